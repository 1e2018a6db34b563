"""What the maps of a whole dataset say: means, groups of alike maps, right answers for odd reasons."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import InputError, MissingExtra
from seewhy.images import arrays
from seewhy.jobs.measures import border

if TYPE_CHECKING:
    from seewhy.jobs.table import Table

_AT_ONCE = 8192  # rows whose maps are in memory together
_CLUSTERED = 2000  # maps that are compared with one another, at most
_SIDE = 16  # places along the longer side of the maps that are compared
_GROUPS = 10  # at most
_FAR = 3.0  # standard deviations, estimated from the median absolute deviation


@dataclass(frozen=True, eq=False)
class OfLabel:
    """The rows of one label.

    Attributes:
        label: its name; None of rows without one.
        rows: how many there are that are no errors.
        accuracy: the share of them whose predicted class is the label; NaN where there is no label.
        entropy: the mean of the column.
        border: the mean share of a heatmap in the outer eighth of the image, 0.44 for a constant one.
        mean_map: (h, w) the mean heatmap.
    """

    label: str | None
    rows: int
    accuracy: float
    entropy: float
    border: float
    mean_map: Float[Tensor, "h w"]


@dataclass(frozen=True, eq=False)
class Summary:
    """The rows of a run, label by label.

    Attributes:
        labels: in the order of their names.
        errors: how many rows are errors.
    """

    labels: tuple[OfLabel, ...]
    errors: int

    def __str__(self) -> str:
        width = max([5, *(len(str(each.label)) for each in self.labels)])
        lines = [f"{'label':{width}}     rows  accuracy  entropy  border"]
        lines += [
            f"{each.label!s:{width}} {each.rows:8,} {each.accuracy:9.3f} {each.entropy:8.3f} {each.border:7.3f}"
            for each in self.labels
        ]
        return "\n".join([*lines, f"{self.errors:,} errors"])


@dataclass(frozen=True, eq=False)
class Cluster:
    """Alike heatmaps.

    Attributes:
        table: their rows.
        share: of all maps that were compared.
        mean_map: (h, w).
    """

    table: Table
    share: float
    mean_map: Float[Tensor, "h w"]


@dataclass(frozen=True, eq=False)
class Clusters:
    """Groups of heatmaps, the largest first.

    Attributes:
        groups: each with its rows.
        eigenvalues: the smallest ones of the graph's Laplacian; the widest gap between them says how many groups.
    """

    groups: tuple[Cluster, ...]
    eigenvalues: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, number: int) -> Cluster:
        return self.groups[number]

    def __iter__(self) -> Iterator[Cluster]:
        return iter(self.groups)

    def __str__(self) -> str:
        return "\n".join(
            f"group {number}: {len(group.table)} maps, {group.share:.0%}" for number, group in enumerate(self.groups)
        )


@dataclass(frozen=True)
class Suspect:
    """A right answer that may have an odd reason.

    Attributes:
        key: of the sample.
        path: where it is.
        label: which is also what was predicted.
        distance: of its heatmap from its class's mean one, 1 less the cosine.
        border: the share of its heat in the outer eighth of the image.
        check: its p-value against chance, where that was asked for.
        reasons: what is odd.
    """

    key: str
    path: str | None
    label: str
    distance: float
    border: float
    check: float | None
    reasons: tuple[str, ...]


def heatmaps(table: Table) -> Float[Tensor, "N h w"]:
    """The positive parts of the maps of a table, each scaled to [0, 1] by its own range.

    Args:
        table: of rows that are no errors.

    Returns:
        (N, h, w), at the size that most of them have.

    Raises:
        InputError: if there are no maps.
    """
    read = table.to_arrow(["map", "map_shape"])
    shapes = [tuple(shape) for shape in read["map_shape"].to_pylist()]
    if not shapes:
        raise InputError("there are no maps.", got="no row without an error")
    values = torch.from_numpy(read["map"].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float32))
    ((shape, _),) = Counter(shapes).most_common(1)
    if len(set(shapes)) == 1:
        maps = values.reshape(len(shapes), *shape)
    else:
        each = zip(torch.split(values, [math.prod(size) for size in shapes]), shapes, strict=True)
        maps = torch.stack([arrays.resize(flat.reshape(size), shape) for flat, size in each])
    return arrays.rescale(maps.clamp(min=0), tuple(range(1, maps.ndim)))


def mean_map(table: Table, label: str | None = None) -> Float[Tensor, "h w"]:
    """The mean heatmap of the rows with a label.

    Args:
        table: of a run.
        label: which rows; None is all of them.

    Returns:
        (h, w), of heatmaps that are each in [0, 1].

    Raises:
        InputError: if there are no such rows.
    """
    rows = _rows(table, label)
    sums = [(len(part), heatmaps(part).sum(0)) for part in _parts(rows)]
    if not sums:
        raise _nothing(label)
    total = sum((arrays.resize(found, tuple(sums[0][1].shape)) for _, found in sums), torch.zeros(()))
    return total / len(rows)


def summary(table: Table) -> Summary:
    """What there is to say of each label.

    Args:
        table: of a run.

    Returns:
        For each label: accuracy, mean heatmap, mean entropy, share of the heat at the border.
    """
    rows = table.filter(status="ok")
    labels = rows["label"]
    found = []
    for label in sorted(set(labels), key=lambda label: (label is None, label)):
        own = rows.filter(labels == label)
        at_border = sum(float(border(heatmaps(part)).nansum()) for part in _parts(own))
        accuracy = float("nan") if label is None else float((own["predicted"] == label).mean())
        entropy = float(np.nanmean(own["entropy"].astype(float)))
        found.append(OfLabel(label, len(own), accuracy, entropy, at_border / len(own), mean_map(own)))
    return Summary(tuple(found), len(table) - len(rows))


def clusters(table: Table, label: str | None = None, count: int | None = None) -> Clusters:
    """Group the heatmaps of a class: a group with its heat elsewhere may have another reason (Clever Hans).

    Spectral relevance analysis (SpRAy, Lapuschkin et al. 2019, arXiv:1902.10178): the maps, made small, are joined to
    their nearest neighbours; the eigenvectors of that graph's Laplacian are clustered, and the widest gap between its
    eigenvalues says how many groups there are.

    Args:
        table: of a run. Of more than 2000 rows every k-th is taken.
        label: of the rows; None takes all.
        count: how many groups; None is by the gap.

    Returns:
        The groups, the largest first.

    Raises:
        MissingExtra: if scikit-learn is not installed.
        InputError: for fewer than four maps.
    """
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise MissingExtra.of("scikit-learn", "clusters") from error
    rows = _rows(table, label)
    rows = rows[:: max(1, math.ceil(len(rows) / _CLUSTERED))]
    if len(rows) < 4:
        raise _nothing(label, expected="four maps or more")
    maps = heatmaps(rows)
    factor = max(1, math.ceil(max(maps.shape[1:]) / _SIDE))
    small = arrays.resize(maps, tuple(max(1, side // factor) for side in maps.shape[1:]), "area")
    values, vectors = torch.linalg.eigh(_laplacian(F.normalize(small.flatten(1).double())))
    lowest = values[: min(_GROUPS, len(rows) - 1) + 1]
    groups = int(lowest.diff().argmax()) + 1 if count is None else count
    embedded = F.normalize(vectors[:, :groups])
    owner = KMeans(groups, n_init=10, random_state=0).fit_predict(embedded.numpy())
    found = [np.flatnonzero(owner == number) for number in range(groups)]
    return Clusters(
        tuple(
            Cluster(rows.filter(owner == owner[own[0]]), len(own) / len(rows), maps[own].mean(0))
            for own in sorted(found, key=len, reverse=True)
            if len(own)
        ),
        tuple(lowest.tolist()),
    )


def suspects(table: Table) -> list[Suspect]:
    """Right answers for odd reasons.

    A heatmap is odd if it is far from its class's mean one or has far more at the border than the others of its class
    (three standard deviations, estimated from the median absolute deviation), or if it was checked and cannot be told
    from chance (p > 0.05).

    Args:
        table: of a run.

    Returns:
        The rows that are odd, each with why, the oddest first.
    """
    rows = table.filter(status="ok")
    labels = rows["label"]
    right = rows.filter((labels == rows["predicted"]) & (labels == rows["target"]))
    labels = right["label"]
    found = []
    for label in sorted(set(labels)):
        own = right.filter(labels == label)
        maps = heatmaps(own)
        distances = 1 - F.cosine_similarity(maps.flatten(1), maps.mean(0).flatten()[None], dim=1)
        edges = border(maps).nan_to_num()
        odd = {
            "far from its class's mean map": _far(distances) > _FAR,
            "at the border": _far(edges) > _FAR,
        }
        for number, row in enumerate(own.to_arrow(["key", "path", "check"]).to_pylist()):
            reasons = [reason for reason, which in odd.items() if which[number]]
            if row["check"] is not None and row["check"] > 0.05:
                reasons.append("cannot be told from chance")
            if reasons:
                found.append(
                    Suspect(
                        **row,
                        label=label,
                        distance=float(distances[number]),
                        border=float(edges[number]),
                        reasons=tuple(reasons),
                    )
                )
    return sorted(found, key=lambda suspect: (-len(suspect.reasons), -suspect.distance))


def _far(values: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """How many standard deviations above the median."""
    deviation = (values - values.median()).abs().median() * 1.4826
    return (values - values.median()) / deviation.clamp(min=1e-3)


def _laplacian(points: Float[Tensor, "N D"]) -> Float[Tensor, "N N"]:
    """The normalised Laplacian of the graph that joins each point to its nearest neighbours."""
    count = len(points)
    nearest = (
        torch.cdist(points, points)
        .fill_diagonal_(math.inf)
        .topk(min(count - 1, max(5, math.ceil(math.log2(count)))), largest=False)
    )
    joined = torch.zeros(count, count, dtype=points.dtype).scatter_(1, nearest.indices, 1.0)
    joined = torch.maximum(joined, joined.T)
    scale = joined.sum(1).rsqrt()
    return torch.eye(count, dtype=points.dtype) - scale[:, None] * joined * scale


def _rows(table: Table, label: str | None) -> Table:
    return table.filter(status="ok") if label is None else table.filter(status="ok", label=label)


def _parts(table: Table) -> Sequence[Table]:
    return [table[start : start + _AT_ONCE] for start in range(0, len(table), _AT_ONCE)]


def _nothing(label: str | None, expected: str | None = None) -> InputError:
    of = "" if label is None else f" with the label {label!r}"
    return InputError(f"there are too few maps{of}.", expected=expected)
