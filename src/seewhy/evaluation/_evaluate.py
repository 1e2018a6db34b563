"""Measure how well maps say what a model looks at: several methods, several metrics, on the same images."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from tqdm import tqdm

from seewhy import metrics as metric_functions
from seewhy.errors import InputError, InputTypeError, MetricError, MissingExtra
from seewhy.evaluation._competitors import FLOOR, Competitor, Maps, attempted, drawn, floor, given, unique
from seewhy.evaluation._score import Asked, Of, asking, prepare
from seewhy.hooks.select import Layers
from seewhy.images.files import written_whole
from seewhy.models.loaded import Loaded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAWS = 2000  # of the bootstrap


class Metric(NamedTuple):
    """A metric as `evaluate` runs it.

    Attributes:
        measure: (score, images, maps, batch_size, generator) -> (B,).
        better: which end is good.
    """

    measure: Callable[[Callable[[Tensor], Tensor], Tensor, Tensor, int, Generator], Float[Tensor, " B"]]
    better: Literal["higher", "lower"]


def _of_score(function: Callable[..., Tensor], better: Literal["higher", "lower"], **options: Any) -> Metric:
    def measure(score: Any, images: Tensor, maps: Tensor, batch_size: int, generator: Generator) -> Tensor:
        size = max(batch_size, len(images))
        return function(score, images, maps, batch_size=size, generator=generator, **options)

    return Metric(measure, better)


def _of_maps(function: Callable[[Tensor], Tensor], better: Literal["higher", "lower"]) -> Metric:
    return Metric(lambda _, __, maps, ___, ____: function(maps), better)


METRICS: dict[str, Metric] = {
    "insertion": _of_score(metric_functions.insertion, "higher"),
    "deletion": _of_score(metric_functions.deletion, "lower"),
    "insertion_minus_deletion": _of_score(metric_functions.insertion_minus_deletion, "higher"),
    "road": _of_score(metric_functions.road, "higher"),
    "pixel_flipping": _of_score(metric_functions.pixel_flipping, "lower"),
    "sparseness": _of_maps(metric_functions.sparseness, "higher"),
    "entropy": _of_maps(metric_functions.entropy, "lower"),
}


class Row(NamedTuple):
    """One method by one metric, over all images.

    Attributes:
        method: its name.
        metric: its name.
        mean: over the images whose value is defined.
        low: lower end of the 95% bootstrap interval of the mean.
        high: upper end.
        images: how many values are defined.
        seconds: for the maps of all images.
    """

    method: str
    metric: str
    mean: float
    low: float
    high: float
    images: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How well maps say what a model looks at.

    Attributes:
        values: by method and metric, each image's value (B,); NaN where a metric is not defined for a map.
        better: by metric, whether "higher" or "lower" is good.
        seconds: by method, what the maps of all images took.
        problems: by method, why it gave no maps.
        of: what the scores are.
    """

    values: Mapping[str, Mapping[str, Float[Tensor, " B"]]]
    better: Mapping[str, str]
    seconds: Mapping[str, float]
    problems: Mapping[str, str] = field(default_factory=dict)
    of: Of = "probability"

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, and the floor."""
        return tuple(self.values)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics."""
        return tuple(self.better)

    def row(self, method: str, metric: str) -> Row:
        """One method by one metric.

        Args:
            method: one of `methods`.
            metric: one of `metrics`.

        Returns:
            The mean with its interval; NaN where no value is defined.
        """
        values = self.values[method][metric]
        defined = values[values.isfinite()]
        mean = float(defined.mean()) if len(defined) else math.nan
        return Row(method, metric, mean, *_interval(defined), len(defined), self.seconds[method])

    def rows(self) -> list[Row]:
        """Every method by every metric.

        Returns:
            The rows, method by method.
        """
        return [self.row(method, metric) for method in self.methods for metric in self.metrics]

    def ranking(self, metric: str) -> list[str]:
        """The methods by a metric.

        Args:
            metric: one of `metrics`.

        Returns:
            The names of the methods and of the floor, the best first; those without a value last.
        """
        sign = -1 if self.better[metric] == "higher" else 1

        def place(method: str) -> tuple[bool, float]:
            mean = self.row(method, metric).mean
            return math.isnan(mean), sign * mean

        return sorted(self.methods, key=place)

    def difference(self, one: str, other: str, metric: str) -> Row:
        """By how much the values of one method are larger than those of another, image by image.

        Args:
            one: one of `methods`.
            other: another one.
            metric: one of `metrics`.

        Returns:
            The mean of the difference `one` - `other` with its 95% interval.
        """
        values = self.values[one][metric] - self.values[other][metric]
        defined = values[values.isfinite()]
        mean = float(defined.mean()) if len(defined) else math.nan
        return Row(f"{one} - {other}", metric, mean, *_interval(defined), len(defined), math.nan)

    def tied(self, metric: str) -> list[tuple[str, str]]:
        """The pairs of methods that a metric cannot tell apart: the interval of their difference holds 0.

        Args:
            metric: one of `metrics`.

        Returns:
            Pairs of names, the better one first.
        """
        pairs = itertools.combinations(self.ranking(metric), 2)
        return [
            (one, other)
            for one, other in pairs
            if not ((row := self.difference(one, other, metric)).low > 0 or row.high < 0)
        ]

    def table(self) -> str:
        """The means with their intervals, best methods of the first metric first.

        Returns:
            A text for a terminal.
        """
        order = self.ranking(self.metrics[0])
        heads = ["method", *(f"{name} ({self.better[name]} is better)" for name in self.metrics), "seconds"]
        lines = [[method, *self._cells(method), f"{self.seconds[method]:.2f}"] for method in order]
        widths = [max(len(line[number]) for line in [heads, *lines]) for number in range(len(heads))]
        text = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [heads, *lines]
        ]
        return "\n".join([*(line.rstrip() for line in text), *self._notes()])

    def figure(self) -> Figure:
        """A heat table: each metric's means, the good end of every column dark.

        Returns:
            A matplotlib figure that a notebook shows.
        """
        from matplotlib.figure import Figure as Drawing

        order = self.ranking(self.metrics[0])
        figure = Drawing(figsize=(2 + 1.6 * len(self.metrics), 1 + 0.34 * len(order)), layout="constrained")
        axes = figure.subplots()
        means = torch.tensor([[self.row(method, metric).mean for metric in self.metrics] for method in order])
        signs = torch.tensor([1.0 if self.better[metric] == "higher" else -1.0 for metric in self.metrics])
        good = means * signs
        low, high = good.nan_to_num(math.inf).amin(0), good.nan_to_num(-math.inf).amax(0)
        axes.imshow(((good - low) / (high - low)).numpy(), cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
        axes.set_xticks(range(len(self.metrics)), [f"{name}\n({self.better[name]} is better)" for name in self.metrics])
        axes.set_yticks(range(len(order)), order)
        axes.xaxis.tick_top()
        for (row, column), value in zip(
            itertools.product(range(len(order)), range(len(self.metrics))), means.flatten(), strict=True
        ):
            axes.text(column, row, "-" if math.isnan(value) else f"{value:.3f}", ha="center", va="center")
        return figure

    def save(self, path: str | Path) -> Path:
        """Write the rows to a file, or rows and every image's value.

        Args:
            path: ends in .csv or .parquet, for the rows, or in .json, for the values as well.

        Returns:
            The path.

        Raises:
            InputError: for any other ending.
            MissingExtra: if pyarrow is not installed, for .parquet.
        """
        path = Path(path)
        writers = {".csv": self._write_csv, ".json": self._write_json, ".parquet": self._write_parquet}
        if path.suffix.lower() not in writers:
            raise InputError("unknown file ending.", got=repr(path.name), expected=", ".join(writers))
        with written_whole(path) as temporary:
            writers[path.suffix.lower()](temporary)
        return path

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        order = self.ranking(self.metrics[0])
        heads = "".join(f"<th>{name}<br><small>{self.better[name]} is better</small></th>" for name in self.metrics)
        lines = "".join(
            f"<tr><td>{method}</td>{''.join(f'<td>{cell}</td>' for cell in self._cells(method))}</tr>"
            for method in order
        )
        notes = "<br>".join(self._notes())
        return f"<table><tr><th>method</th>{heads}</tr>{lines}</table><p>{notes}</p>"

    def _cells(self, method: str) -> list[str]:
        rows = (self.row(method, metric) for metric in self.metrics)
        return ["-" if math.isnan(row.mean) else f"{row.mean:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in rows]

    def _notes(self) -> list[str]:
        notes = [f"{problem}" for problem in self.problems.values()]
        for metric in self.metrics:
            best = next((name for name in self.ranking(metric) if name not in FLOOR), "")
            others = [other for one, other in self.tied(metric) if one == best and other not in FLOOR]
            if others:
                notes.append(f"{metric}: {best} cannot be told from {', '.join(others)} on these images")
            if best and any(pair in self.tied(metric) for pair in ((best, name) for name in FLOOR)):
                notes.append(f"{metric}: no method can be told from the floor on these images")
        return notes

    def _write_csv(self, path: Path) -> None:
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(Row._fields)
            writer.writerows(self.rows())

    def _write_json(self, path: Path) -> None:
        content = {
            "of": self.of,
            "rows": [_plain(row._asdict()) for row in self.rows()],
            "values": {
                method: {metric: _plain(found.tolist()) for metric, found in by_metric.items()}
                for method, by_metric in self.values.items()
            },
            "problems": dict(self.problems),
        }
        path.write_text(json.dumps(content, indent=1, allow_nan=False))

    def _write_parquet(self, path: Path) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise MissingExtra.of("pyarrow", "jobs") from error
        columns = {name: [getattr(row, name) for row in self.rows()] for name in Row._fields}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)


def evaluate(
    model: nn.Module | Loaded,
    inputs: Any,
    target: Any = None,
    *,
    methods: Sequence[Competitor] = ("grad_cam",),
    maps: Mapping[str, Tensor] | None = None,
    metrics: Sequence[str] = ("insertion", "deletion", "road"),
    layers: Layers | None = None,
    of: Of = "probability",
    batch_size: int = 32,
    generator: Generator | None = None,
    progress: bool = False,
) -> Evaluation:
    """Measure methods on a model: how far its score follows what their maps show.

        print(seewhy.evaluate(model, images, methods=["grad_cam", "grad_cam@layer3", "le_grad"]))

    Always beside a random map and a Gaussian in the middle: a method that is no better says nothing.

    Args:
        model: any module, or what `seewhy.load` returned.
        inputs: a batch of images, photographs for a model from `seewhy.load`, or a DataLoader. Of a loader's
            (images, labels) the images are used, and the labels where `target` is "labels".
        target: what is explained; None is the predicted class.
        methods: names, "layer_cam@layer3", `Method` objects, or callables (model, inputs, target) -> (B, *size).
        maps: more maps (B, *size), made by whoever, by name; for a single batch.
        metrics: names of `seewhy.evaluation.METRICS`.
        layers: where methods look that name no layer; None chooses.
        of: whether the scores are probabilities or logits.
        batch_size: how many changed images run at once, at least.
        generator: of the methods and metrics that draw; None draws the same in every call.
        progress: whether a bar is shown.

    Returns:
        The values, with means, intervals, a table, a figure and files.

    Raises:
        MetricError: if there is no such metric.
        InputError: if maps do not fit the images, or a loader is empty.
    """
    if unknown := [name for name in metrics if name not in METRICS]:
        raise MetricError(f"there is no metric {unknown[0]!r}.", expected=", ".join(METRICS))
    if not metrics:
        raise MetricError("no metric was given.", expected=", ".join(METRICS))
    competitors = unique(methods)
    draws = generator or Generator().manual_seed(0)
    parts: list[tuple[dict[str, Maps], dict[str, dict[str, Tensor]]]] = []
    for batch, wanted in _batches(inputs, target):
        if maps and parts:
            raise InputError("maps belong to a single batch.", got="a loader of several batches", do="methods=")
        prepared = prepare(model, batch)
        with asking(model, prepared, wanted, of=of) as asked:
            like = asked.images[:, 0]
            options: dict[str, Any] = {"layers": layers, "batch_size": batch_size, "generator": generator}
            draw = partial(drawn, model, prepared, asked.target, **options)
            found = floor(like, draws) | given(maps or {}, like)
            for name, competitor in tqdm(competitors.items(), disable=not progress, unit="method"):
                found[name] = attempted(competitor, partial(draw, competitor), like)
            measure = partial(_measured, asked=asked, batch_size=batch_size, generator=draws)
            measured = {
                name: {metric: measure(metric, entry) for metric in metrics}
                for name, entry in tqdm(found.items(), disable=not progress, unit="map")
            }
        parts.append((found, measured))
    if not parts:
        raise InputError("there are no images.", got=f"an empty {type(inputs).__name__}")
    names = [*competitors, *(maps or {}), *FLOOR]
    return Evaluation(
        {name: {metric: torch.cat([part[name][metric] for _, part in parts]) for metric in metrics} for name in names},
        {metric: METRICS[metric].better for metric in metrics},
        {name: sum(found[name].seconds for found, _ in parts) for name in names},
        {name: problem for name in names if (problem := parts[0][0][name].problem)},
        of,
    )


def _measured(metric: str, entry: Maps, *, asked: Asked, batch_size: int, generator: Generator) -> Float[Tensor, " B"]:
    """A metric of one competitor's maps; NaN for those that are not finite."""
    finite = entry.maps.flatten(1).isfinite().all(1)
    state = generator.get_state()
    maps = entry.maps.nan_to_num(0.0, 0.0, 0.0)
    found = METRICS[metric].measure(asked.score, asked.images, maps, batch_size, generator)
    generator.set_state(state)  # every competitor meets the same noise
    return found.masked_fill(~finite, math.nan).cpu()


def _batches(inputs: Any, target: Any) -> Iterator[tuple[Any, Any]]:
    """Batches with what is explained of each."""
    if isinstance(inputs, Tensor | Mapping | tuple | list | str | Path) or not isinstance(inputs, Iterable):
        yield inputs, target
        return
    if isinstance(target, Tensor | list | tuple):
        raise InputTypeError(
            "targets by image go with a single batch.",
            got=f"a {type(target).__name__} for a loader",
            do='target="labels", a class for all, or None',
        )
    for batch in inputs:
        images, labels = (batch[0], batch[1]) if isinstance(batch, tuple | list) and len(batch) > 1 else (batch, None)
        yield images, labels if target == "labels" else target


def _interval(values: Float[Tensor, " n"]) -> tuple[float, float]:
    """The 95% bootstrap interval of the mean, over images; NaN for fewer than two of them."""
    if len(values) < 2:
        return math.nan, math.nan
    draws = torch.randint(len(values), (_DRAWS, len(values)), generator=Generator().manual_seed(0))
    means = values.double()[draws].mean(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def _plain(value: Any) -> Any:
    """Numbers as JSON knows them: null where there is none."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
