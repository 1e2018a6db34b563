"""What the rows say of a map: its grid, the boxes around what is hot, its entropy, its share in a box."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy._types import Frame
from seewhy.images import arrays
from seewhy.jobs.sources.base import Box
from seewhy.results import Explanation

KEPT = 64  # places along the longer side of a map that is kept, at most
LOOKED_AT = 32  # places along the longer side of the heatmap that boxes are looked for in, at most


def grids(explanation: Explanation) -> Float[Tensor, "B *T_grid"]:
    """The maps of an explanation in one grid, each divided by its largest absolute value.

    A single layer's map is kept in its own grid. Several layers are fused as in the heatmap, at the finest one's grid.
    A map that does not lie over the whole input is drawn on it. No grid is longer than `KEPT`.

    Returns:
        (B, [T,] *grid), float32, from -1 to 1; zero for a map that is not finite.
    """
    dimensions = len(explanation.size)
    shapes = [tuple(grid.shape[-dimensions:]) for grid in explanation.maps.values()]
    grid = _shrunk(max(shapes, key=math.prod), KEPT)
    moved = any(extent != (1, 1) for extent in explanation.extents or ()) or bool(explanation.placements)
    if len(shapes) > 1:
        found = explanation.scaled("per_image", size=grid)
    elif moved:
        found = explanation.scaled("none", size=grid)
    else:
        (found,) = explanation.maps.values()
        found = arrays.resize(found.float(), grid, "area")
    dims = tuple(range(-dimensions, 0))
    finite = found.isfinite().flatten(-dimensions).all(-1).reshape(*found.shape[:-dimensions], *[1] * dimensions)
    found = torch.where(finite, found, 0)
    largest = found.abs().amax(dims, keepdim=True)
    return found / torch.where(largest > 0, largest, 1)


def heat(maps: Float[Tensor, "N *grid"], size: tuple[int, ...]) -> Float[Tensor, "N *places"]:
    """The maps as heatmaps in [0, 1] of the input's proportions, at most `LOOKED_AT` places long."""
    dims = tuple(range(1, maps.ndim))
    return arrays.rescale(arrays.resize(maps.clamp(min=0), _shrunk(size, LOOKED_AT)), dims)


def in_photo(
    boxes: Sequence[Sequence[int]], places: tuple[int, ...], size: tuple[int, ...], frame: Frame | None
) -> list[list[int]]:
    """Boxes in places of a heatmap as boxes in pixels of the photograph; of the input where there is no photograph.

    Args:
        boxes: (x0, y0, x1, y1) or (x0, y0, z0, x1, y1, z1).
        places: the heatmap's size.
        size: the input's size, in pixels.
        frame: what the input shows of the photograph.
    """
    x0, y0, x1, y1 = frame or (0, 0, size[-1], size[-2])
    starts = [x0, y0, *[0] * (len(size) - 2)]
    sides = [x1 - x0, y1 - y0, *size[:-2]]
    steps = [side / count for side, count in zip(sides, reversed(places), strict=True)]
    return [
        [round(start + corner * step) for corner, start, step in zip(box, starts * 2, steps * 2, strict=True)]
        for box in boxes
    ]


def share_in_box(heatmap: Float[Tensor, "h w"], box: Box, size: tuple[int, ...], frame: Frame | None) -> float:
    """The share of a heatmap's sum that lies in a box of the photograph; NaN for a map of zeros."""
    x0, y0, x1, y1 = frame or (0, 0, size[-1], size[-2])
    rows = _covered(heatmap.shape[0], (box[1] - y0) / (y1 - y0), (box[3] - y0) / (y1 - y0))
    across = _covered(heatmap.shape[1], (box[0] - x0) / (x1 - x0), (box[2] - x0) / (x1 - x0))
    inside = rows @ heatmap.double().cpu() @ across
    return float(inside / heatmap.double().sum().cpu())


def border(heatmaps: Float[Tensor, "N h w"]) -> Float[Tensor, " N"]:
    """The share of each heatmap's sum in the outer eighth of the image: 7/16 for a constant map, NaN for zeros."""
    rows, across = (_covered(side, 1 / 8, 7 / 8).to(heatmaps) for side in heatmaps.shape[1:])
    inside = torch.einsum("nhw,h,w->n", heatmaps, rows, across)
    return 1 - inside / heatmaps.sum((1, 2))


def _covered(count: int, start: float, end: float) -> Float[Tensor, " count"]:
    """How much of each of `count` cells of a unit length lies between `start` and `end`."""
    edges = torch.arange(count, dtype=torch.float64)
    return ((edges + 1).clamp(max=end * count) - edges.clamp(min=start * count)).clamp(0, 1)


def _shrunk(size: tuple[int, ...], longest: int) -> tuple[int, ...]:
    factor = max(1, math.ceil(max(size) / longest))
    return tuple(max(1, round(side / factor)) for side in size)
