"""A batch becomes rows: the one function that all engines run."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from torch import Generator, Tensor

from seewhy._types import CallLabel
from seewhy.errors import GradientError, InputError, OutputError, TargetError
from seewhy.explainer import Explainer
from seewhy.images import arrays
from seewhy.jobs import measures, targets
from seewhy.jobs.plan import Plan
from seewhy.jobs.reading import Batch
from seewhy.jobs.sink import columns, name_of_more
from seewhy.jobs.sources.base import Sample
from seewhy.metrics import entropy
from seewhy.models.loaded import Loaded
from seewhy.results import Explanation
from seewhy.targets import class_name, class_scores

_HOT = 0.5  # of the hottest place: what boxes are drawn around
_OF_THE_SAMPLE = (GradientError, InputError, TargetError)  # another sample may do: the run goes on

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What the workers of an engine need, and can be sent to another process.

    Attributes:
        plan: what is done.
        target: the rule for what is explained.
        options: further ones of `Explainer`.
        columns: the further columns of the source.
        first: a batch with an image that could be read: every worker explains it first, so that all of them, in every
            run, work out on the same image how the layers lie over the input.
    """

    plan: Plan
    target: Any
    options: Mapping[str, Any]
    columns: pa.Schema
    first: Batch


class Explained(NamedTuple):
    """What an engine gives back: the number of a batch, how many samples it has, and their rows."""

    number: int
    samples: int
    rows: pa.Table


class Worker:
    """Explains batches on one device.

    Args:
        job: what is done.
        model: with its weights.
        device: where.
    """

    def __init__(self, job: Job, model: Loaded, device: torch.device | str) -> None:
        self._job, self._plan = job, job.plan
        self._model = model.to(device)
        weights = next((tensor for tensor in model.module.parameters() if tensor.is_floating_point()), torch.empty(0))
        self._like = torch.empty(0, dtype=weights.dtype, device=device)
        self._generator = Generator(device=device if torch.device(device).type == "cuda" else "cpu")
        self._schema = columns(job.columns)
        self._limit = job.plan.batch_size
        self._explainer = pinned(self._model, job, self._generator)
        self(job.first)

    def __call__(self, batch: Batch) -> Explained:
        """A batch explained: a row for each sample and target, in the order of the samples."""
        rows: list[list[Row]] = [[_failed(sample, sample.error)] if sample.error else [] for sample in batch.samples]
        for places, inputs in batch.inputs:
            start = 0
            while start < len(places):
                part = slice(start, start + self._limit)
                try:
                    found = self._explained(batch, places[part], inputs[part])
                except torch.OutOfMemoryError as error:
                    if torch.cuda.is_available():
                        torch.cuda.empty_cache()
                    if self._limit > 1:
                        self._limit //= 2
                        continue
                    found = [[_failed(batch.samples[places[start]], f"out of memory: {_line(error)}")]]
                for place, entries in zip(places[part], found, strict=False):
                    rows[place] = entries
                start += len(found)
        for place, (sample, entries) in enumerate(zip(batch.samples, rows, strict=True)):
            more = {name_of_more(name): value for name, value in sample.more.items()}
            about = self._about(sample) | {"sha256": batch.hashes[place] or None}
            rows[place] = [about | entry | more for entry in entries]
        flat = [row for entries in rows for row in entries]
        arrays = [pa.array([row.get(field.name) for row in flat], field.type) for field in self._schema]
        return Explained(batch.number, len(batch.samples), pa.table(arrays, schema=self._schema))

    def _about(self, sample: Sample) -> Row:
        found = self._plan.found
        return {
            "key": sample.key,
            "path": sample.path or None,
            "label": targets.label_named(sample.label, found.kind, found.classes),
            "method": found.method,
        }

    def _explained(self, batch: Batch, places: Sequence[int], inputs: Tensor) -> list[list[Row]]:
        """The rows of samples whose inputs have one shape; each by itself where together they cannot be explained."""
        samples = [batch.samples[place] for place in places]
        start = time.perf_counter()
        try:
            inputs = inputs.to(self._like)
            self._generator.manual_seed(self._plan.seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of single maps: the rows say it
                target = targets.of_samples(self._job.target, samples, self._plan.found.classes)
                explanation = kept(self._explainer(inputs, target), self._plan.found.layers)
                checks = explanation.check(self._model, inputs).p_value.tolist() if self._plan.check else None
            rows = list(self._rows(batch, places, explanation))
        except _OF_THE_SAMPLE as error:
            if len(places) > 1:
                return [
                    self._explained(batch, [place], inputs[number : number + 1])[0]
                    for number, place in enumerate(places)
                ]
            return [[_failed(samples[0], _line(error))]]
        seconds = (time.perf_counter() - start) / len(places)
        for number, entries in enumerate(rows):
            for row in entries:
                row |= {"seconds": seconds, "check": None if checks is None else checks[number]}
        return rows

    def _rows(self, batch: Batch, places: Sequence[int], explanation: Explanation) -> Iterator[list[Row]]:
        """The rows of each sample."""
        several = explanation.scores.ndim == 2
        scores = explanation.scores.float().reshape(len(places), -1).tolist()
        count, dimensions = len(scores[0]), len(explanation.size)
        kept = measures.grids(explanation)
        shape = list(kept.shape[-dimensions:])
        flat = kept.reshape(-1, *shape).cpu()
        heats = measures.heat(flat, explanation.size)
        entropies = entropy(flat.clamp(min=0)).tolist()
        boxes = arrays.boxes_of_each(heats, _HOT)
        halves = flat.half().flatten(1).numpy()
        outcomes = _outcomes(explanation, self._plan)
        for number, place in enumerate(places):
            sample, frame = batch.samples[place], batch.frames[place]
            entries = []
            for target in range(count):
                row = number * count + target
                lies = bool(heats[row].any())
                entries.append(
                    outcomes[number]
                    | {
                        "target": explanation.name(number, target if several else None),
                        "score": scores[number][target],
                        "layers": list(explanation.layers),
                        "map": halves[row],
                        "map_shape": shape,
                        "boxes": measures.in_photo(
                            boxes[row].tolist() if lies else [], tuple(heats.shape[1:]), explanation.size, frame
                        ),
                        "entropy": entropies[row] if lies else None,
                        "in_box": None
                        if sample.box is None or not lies or dimensions != 2
                        else measures.share_in_box(heats[row], sample.box, explanation.size, frame),
                        "status": "ok",
                    }
                )
            yield entries


def pinned(model: Loaded, job: Job, generator: Generator) -> Explainer:
    """The explainer of a plan, at the layers that it names."""
    plan = job.plan
    names = list(dict.fromkeys(CallLabel.parse(label).name for label in plan.found.layers))
    return Explainer(
        model,
        plan.found.method,
        layers=names or None,
        generator=generator,
        batch_size=plan.batch_size,
        **{"labels": plan.found.classes, **job.options},
    )


def kept(explanation: Explanation, layers: Sequence[str]) -> Explanation:
    """An explanation with the maps of the calls `layers` alone; a layer that is named may run several times."""
    if not layers or tuple(layers) == explanation.layers:
        return explanation
    return dataclasses.replace(explanation, maps={label: explanation.maps[label] for label in layers})


def _outcomes(explanation: Explanation, plan: Plan) -> list[Row]:
    """For each image the class that the model predicts, and its probability; nothing where it scores no classes."""
    kind: Any = plan.found.kind
    if kind is None:
        return [{} for _ in range(len(explanation))]
    try:
        likely = class_scores(explanation.outputs, kind).likely.float()
    except OutputError:
        return [{} for _ in range(len(explanation))]
    highest, index = likely.max(1)
    return [
        {"predicted": class_name(number, kind, plan.found.classes), "probability": probability}
        for number, probability in zip(index.tolist(), highest.tolist(), strict=True)
    ]


def _failed(sample: Sample, error: str) -> Row:
    return {"status": "error", "error": error or f"{sample.key}: unknown"}


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
