"""The plan of a run: the model is loaded, the method and its layers are chosen once."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seewhy._late import late
from seewhy.errors import InputError, SeewhyError
from seewhy.explainer import Explainer
from seewhy.images.letterbox import Letterbox
from seewhy.images.preprocess import Preprocess
from seewhy.jobs import targets
from seewhy.jobs.explaining import Job
from seewhy.jobs.plan import NAME, Found, Plan, check_same
from seewhy.jobs.reading import Batch, read
from seewhy.jobs.sources.base import Sample, Source
from seewhy.jobs.sources.datasets import Stream
from seewhy.methods.registry import get
from seewhy.models.accepted import as_module
from seewhy.models.fingerprint import versions, weights_hash
from seewhy.models.loaded import Loaded
from seewhy.models.loading import load
from seewhy.targets import class_scores, matching_labels

_TRIED = 64  # samples, all over the source, among which one that can be read is looked for
_CHOOSING = 16  # images that "auto" measures on, at most


def loaded(
    model: str | nn.Module | Loaded,
    weights: str | Path,
    seed: int,
    preprocess: Preprocess | Callable[[Preprocess], Preprocess] | None,
) -> Loaded:
    """The model. Random weights are those of the seed; the caller's random state stays as it is."""
    if isinstance(model, str):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            found = load(model, weights=weights)
    elif isinstance(model, Loaded):
        found = model
    else:
        module = as_module(model)
        found = Loaded(module, Preprocess(), None, type(module).__name__)
    if isinstance(found.preprocess, Letterbox):
        raise InputError(
            "a job reads photographs of one size, and this model letterboxes them.",
            got=repr(found.preprocess),
            do="call seewhy.explain on each photograph",
        )
    if preprocess is None:
        return found
    way = preprocess if isinstance(preprocess, Preprocess) else preprocess(found.preprocess)
    return dataclasses.replace(found, preprocess=way)


def planned(
    source: Source,
    model: Loaded,
    out: Path,
    *,
    name: str,
    method: str,
    layers: Any,
    target: Any,
    labels: Sequence[str] | None,
    seed: int,
    batch_size: int,
    part_size: int | None,
    check: bool,
    options: Mapping[str, Any],
) -> Job:
    """The plan that is asked for, complete: from the folder, or worked out and written there.

    Raises:
        InputError: if the folder has another plan, or no picture of the source can be read.
    """
    asked = {
        "source": dict(source.described()),
        "model": name,
        "weights": weights_hash(model.module),
        "method": method,
        "target": targets.written(target),
        "options": {
            **{
                key: value if isinstance(value, str | int | float | None) else repr(value)
                for key, value in options.items()
            },
            "layers": targets.written(layers),
            "labels": None if labels is None else list(labels),
        },
        "preprocess": dataclasses.asdict(model.preprocess),
        "seed": seed,
        "batch_size": batch_size,
        "part_size": part_size or _part_size(source.count, batch_size),
        "check": check,
        "versions": versions(),
    }
    before = Plan.read(out) if (out / NAME).exists() else None
    if before is not None:
        check_same(before, asked, out)
    assert isinstance(model.preprocess, Preprocess)
    first, inputs, samples = _first(source, model.preprocess, several=before is None and method == "auto")
    if before is None:
        found = _found(
            model,
            inputs,
            samples,
            source,
            method=method,
            layers=layers,
            target=target,
            labels=labels,
            batch_size=batch_size,
            options=options,
        )
        before = Plan(**asked, found=found)
        before.write(out)
    return Job(before, target, options, source.columns, first)


def _part_size(count: int | None, batch_size: int) -> int:
    """Images in a part: whole batches, so that a part can be made again alike; some 128 parts of a large source."""
    wanted = 1024 if count is None else min(max(count // 128, 256), 8192)
    return max(1, round(wanted / batch_size)) * batch_size


def _first(source: Source, preprocess: Preprocess, *, several: bool) -> tuple[Batch, Tensor, list[Sample]]:
    """A batch of the first sample that can be read; with `several` the inputs of more of its shape, and these samples.

    Raises:
        InputError: if none of those that were tried can be read.
    """
    inputs: list[Tensor] = []
    samples: list[Sample] = []
    first, error = None, ""
    for sample in _spread(source):
        batch = read(0, [sample], preprocess)
        if not batch.inputs:
            error = error or batch.samples[0].error
            continue
        first = first or batch
        ((_, found),) = batch.inputs
        if not inputs or found.shape == inputs[0].shape:
            inputs.append(found)
            samples += batch.samples
        if len(inputs) == (_CHOOSING if several else 1):
            break
    if first is None:
        raise InputError("none of the pictures that were tried can be read.", got=error or "an empty source")
    return first, torch.cat(inputs), samples


def _spread(source: Source) -> Iterator[Sample]:
    """Some samples from all over the source; of a stream the first ones."""
    if isinstance(source, Stream):
        yield from itertools.islice(source.stream(), _TRIED)
    else:
        count = source.count or 0
        for number in range(min(count, _TRIED)):
            yield from source.samples([number * count // min(count, _TRIED)])


def _found(
    model: Loaded,
    inputs: Tensor,
    samples: Sequence[Sample],
    source: Source,
    *,
    method: str,
    layers: Any,
    target: Any,
    labels: Sequence[str] | None,
    batch_size: int,
    options: Mapping[str, Any],
) -> Found:
    """What is worked out on some inputs: the method, its layers, the classes."""
    weights = next((tensor for tensor in model.module.parameters() if tensor.is_floating_point()), torch.empty(0))
    inputs = inputs.to(weights)
    explainer = partial(Explainer, model, labels=labels or model.labels or source.classes, batch_size=batch_size)
    reason = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        kind, count = _scores(explainer(), inputs[:1])
        classes = tuple(labels) if labels is not None else _classes(model.labels, source.classes, count)
        asked = targets.of_samples(target, samples, classes)
        if method == "auto":
            choice = late("choose")(model, inputs, asked, batch_size=batch_size)
            method, layers, reason = choice.method, list(choice.layers) or None, choice.reason
        first = targets.of_samples(target, samples[:1], classes)
        explanation = explainer(method, layers=layers, **{"labels": classes, **options})(inputs[:1], first)
    layered = get(method).layered
    size = None if model.preprocess.size is None else explanation.size
    reason = reason or explanation.note
    return Found(explanation.method, explanation.layers if layered else (), reason, kind, classes, size)


def _scores(explainer: Explainer, inputs: Tensor) -> tuple[str | None, int]:
    """What the model's class scores are, and how many; None where it has none, one for each image."""
    try:
        explanation = explainer(inputs)
        kind = explanation.targets.kind
        return kind, class_scores(explanation.outputs, kind).values.shape[1]
    except (SeewhyError, AttributeError):
        return None, 0


def _classes(own: Sequence[str] | None, given: Sequence[str] | None, count: int) -> tuple[str, ...] | None:
    """The names of the classes: the model's own; those of the source where they are as many, and other words."""
    fits = given is not None and len(given) == count
    if given is not None and fits and (own is None or not any(matching_labels(name, own) for name in given)):
        return tuple(given)
    return None if own is None else tuple(own)
