"""A run: the plan, the source, an engine, the sink."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import torch
from torch import nn

from seewhy.errors import InputError
from seewhy.images.preprocess import Preprocess
from seewhy.jobs import planning, sink
from seewhy.jobs.engines import local
from seewhy.jobs.engines import ray as on_ray
from seewhy.jobs.events import Events, Listener, line_on, log_in
from seewhy.jobs.explaining import Explained
from seewhy.jobs.interrupt import Interrupt
from seewhy.jobs.lock import locked
from seewhy.jobs.overlays import parse
from seewhy.jobs.plan import Plan
from seewhy.jobs.sources import source_of
from seewhy.jobs.table import Table
from seewhy.models.loaded import Loaded


@dataclass(frozen=True)
class Run:
    """What came of a run.

    Attributes:
        out: its folder.
        images: how many samples are done, by this run and earlier ones.
        new: how many of them by this one.
        errors: how many samples could not be explained, in all.
        table: the results.
    """

    out: Path
    images: int
    new: int
    errors: int
    table: Table


def run(
    source: Any,
    out: str | Path,
    *,
    model: str | nn.Module | Loaded = "default",
    weights: str | Path = "pretrained",
    method: str = "grad_cam",
    layers: Any = None,
    target: Any = None,
    labels: Sequence[str] | None = None,
    preprocess: Preprocess | Callable[[Preprocess], Preprocess] | None = None,
    engine: str = "local",
    workers: int | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 32,
    part_size: int | None = None,
    seed: int = 0,
    check: bool = False,
    overlays: str | None = None,
    progress: bool = False,
    listener: Listener | None = None,
    **options: Any,
) -> Run:
    """Explain every picture of a dataset, into a table that can be asked.

        run = seewhy.jobs.run("photos/", out="why/", model="timm:resnet50", method="auto")

    The same call again goes on where it stopped: after Ctrl-C, which finishes the part in hand, and after the process
    was killed at any instant. The finished table is that of a run that was never stopped, but for its column `seconds`.
    A picture that cannot be read or explained becomes a row with its error.

    Args:
        source: a folder, a pattern, a manifest, Parquet or tar files, by name; or a dataset: see docs/jobs.md.
        out: a folder of this machine: the plan, the parts of the table, a log.
        model: a name as for `seewhy.load`, what that returned, or any module.
        weights: as for `seewhy.load`; "none" are random ones, the same for the same seed.
        method: one of `seewhy.methods.available()`, or "auto", which is chosen once.
        layers: as for `Explainer`. None chooses, once.
        target: None is the predicted class; "label" the sample's own; "top:5" the five most likely ones; a class or a
            list of classes for every image; or any target of `seewhy.targets`.
        labels: a name per class. None takes the model's own, or those of the source where they are as many.
        preprocess: how a photograph becomes an input; a function changes the model's own way, which None takes.
        engine: "local"; "ray" for the Ray that is connected, or one on this machine; or the address of a cluster,
            "ray://host:10001".
        workers: local: processes that decode; None is one per core, but at most 8. Ray: actors; None is 2.
        device: where to explain; None is every GPU, or the CPU.
        batch_size: images at once.
        part_size: images in a part of the table: what is lost at most when a run is killed. None is by the source.
        seed: of random weights, and of methods that draw.
        check: whether each map is held against chance, which costs some 60 forwards of each image.
        overlays: pictures to draw in the end: "all", "worst:200" or "wrong:200"; see `Table.save_overlays`.
        progress: whether a line on the terminal says how far it is.
        listener: takes events: a dict with "event" and "time", see docs/jobs.md.
        **options: further ones of `Explainer`: those of the method, `fuse`, `grid`, `output` and others.

    Returns:
        What came of it.

    Raises:
        InputError: if another run is writing there, if the folder holds the results of another plan (the message names
            the lines that differ), or if no picture can be read.
        KeyboardInterrupt: after Ctrl-C, once the part in hand is written.
    """
    if batch_size < 1 or (part_size is not None and (part_size < batch_size or part_size % batch_size)):
        raise InputError(
            "a part is made of whole batches.",
            got=f"batch_size={batch_size}, part_size={part_size}",
            expected="a part size that is a multiple of the batch size",
        )
    if engine not in ("local", "ray") and not engine.startswith("ray://"):
        raise InputError("there is no such engine.", got=repr(engine), expected='"local", "ray" or "ray://host:10001"')
    if "://" in os.fspath(out):
        raise InputError("the results go into a folder of this machine.", got=out, do='out="why/"')
    if overlays is not None:
        parse(overlays)
    folder = Path(out)
    sink.folder_of_parts(folder).mkdir(parents=True, exist_ok=True)
    with locked(folder), Interrupt() as interrupt:
        sink.remove_unfinished(folder)
        pictures = source_of(source, os.fspath(folder))
        devices = _devices(device)
        make = partial(planning.loaded, model, weights, seed, preprocess)
        ready = make().to(devices[0])
        job = planning.planned(
            pictures,
            ready,
            folder,
            name=model if isinstance(model, str) else ready.name,
            method=method,
            layers=layers,
            target=target,
            labels=labels,
            seed=seed,
            batch_size=batch_size,
            part_size=part_size,
            check=check,
            options=options,
        )
        before = sink.parts(folder)
        table = Table.of(folder)
        listeners = [log_in(folder), *([line_on()] if progress else []), *([listener] if listener else [])]
        events = Events(job.plan.count, table.images, listeners)
        events.tell("start", out=str(folder), done=table.images, total=job.plan.count, method=job.plan.found.method)
        if not table.complete and not interrupt.pressed:
            if engine == "local":
                count = min(os.cpu_count() or 1, 8) if workers is None else workers
                found = local.explained(job, pictures, before, ready, workers=count, devices=devices)
            else:
                address = None if engine == "ray" else engine
                found = on_ray.explained(job, pictures, before, make, workers=workers or 2, address=address)
            with closing(found):
                _collect(job.plan, found, folder, events, interrupt)
        result = Table.of(folder)
        errors = result.errors
        if overlays is not None and result.complete:
            result.save_overlays(overlays, source=pictures)
        events.tell("end", done=result.images, total=job.plan.count, errors=errors, complete=result.complete)
        if interrupt.pressed:
            raise KeyboardInterrupt
    return Run(folder, result.images, result.images - table.images, errors, result)


def _collect(plan: Plan, found: Iterator[Explained], out: Path, events: Events, interrupt: Interrupt) -> None:
    """Write every part whose batches are all there; after Ctrl-C none but the one in hand."""
    waiting: dict[int, list[Explained]] = {}

    def write(part: int) -> None:
        batches = sorted(waiting.pop(part, []), key=lambda batch: batch.number)
        samples = sum(batch.samples for batch in batches)
        sink.write_part(out, part, [batch.rows for batch in batches], samples)
        events.tell("part", part=part, images=samples, done=events.done, total=plan.count, errors=events.errors)

    for batch in found:
        part = plan.part(batch.number)
        waiting.setdefault(part, []).append(batch)
        events.batch(batch.samples, pc.sum(pc.equal(batch.rows["status"], "error")).as_py() or 0)
        if sum(each.samples for each in waiting[part]) == plan.samples(part):
            write(part)
            if interrupt.pressed:
                return
    if plan.count is None:  # a stream ends with a part that is not full, be it empty
        write(next(iter(waiting), len(sink.parts(out))))


def _devices(device: str | torch.device | None) -> list[torch.device]:
    if device is not None:
        return [torch.device(device)]
    return [torch.device("cuda", number) for number in range(torch.cuda.device_count())] or [torch.device("cpu")]
