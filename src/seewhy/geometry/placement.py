"""Where the grid of a layer lies over the input, axis by axis, and how maps on it are drawn there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import InputError
from seewhy.images.arrays import resize

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Side:
    """One axis of a grid over one axis of the input.

    axis: of the input's space, from 0. start, extent: in input pixels; the grid covers start to start + extent, which
    reaches beyond the input where the model pads it. flipped: the first cell lies at the upper end.
    """

    axis: int
    start: float
    extent: float
    flipped: bool = False

    def centres(self, cells: int) -> Float[Tensor, " cells"]:
        """The centre of each cell in input pixels; pixel i reaches from i to i + 1."""
        found = self.start + self.extent * (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
        return found.flip(0) if self.flipped else found


@dataclass(frozen=True)
class Placement:
    """How a grid lies over an input of size `space`."""

    space: Shape
    sides: tuple[Side, ...]  # one for each axis of the grid, which may have lost some of the input's

    @classmethod
    def upright(cls, space: Shape) -> Placement:
        """The whole grid over the whole input: cell i of n lies at (i + 1/2) / n of the side."""
        return cls(space, tuple(Side(axis, 0.0, float(pixels)) for axis, pixels in enumerate(space)))

    @property
    def is_upright(self) -> bool:
        return self == Placement.upright(self.space)

    def is_near(self, other: Placement, share: float) -> bool:
        """Whether it lies where another one does, to a share of each side."""
        return all(
            (one.axis, one.flipped) == (two.axis, two.flipped)
            and abs(one.start - two.start) <= share * self.space[one.axis]
            and abs(one.start + one.extent - two.start - two.extent) <= share * self.space[one.axis]
            for one, two in zip(self.sides, other.sides, strict=True)
        )

    def __str__(self) -> str:
        if self.is_upright:
            return "over the whole input"
        words = []
        for number, side in enumerate(self.sides):
            turned = f" (axis {number} of the grid)" if side.axis != number else ""
            flipped = ", backwards" if side.flipped else ""
            reach = f"{side.start:.4g} to {side.start + side.extent:.4g} of {self.space[side.axis]}"
            words.append(f"axis {side.axis}: {reach}{flipped}{turned}")
        return "; ".join(words)


def draw(
    maps: Float[Tensor, "*batch_and_grid"], placement: Placement, size: Shape, mode: str = "bilinear"
) -> Float[Tensor, "*batch_and_size"]:
    """Maps drawn where their grid lies over the input, 0 where it does not reach.

    Args:
        maps: (..., *grid).
        placement: of the grid over the input.
        size: of what is drawn, which shows the whole input: (H, W) of the photograph, say.
        mode: "bilinear" (linear along each axis) or "nearest"; for an upright grid whatever `arrays.resize` knows.

    Returns:
        (..., *size); for an upright grid what `arrays.resize` returns. Between the centres of cells values are
        interpolated; from the outer centres to the border of the grid they stay (the half-pixel rule). Along an axis
        that the grid has lost they are the same everywhere.

    Raises:
        InputError: for another mode and a grid that is not upright.
    """
    if placement.is_upright:
        return resize(maps, size, mode)
    if mode not in ("bilinear", "nearest"):
        raise InputError(
            "a grid that does not lie over the whole input is drawn in two modes only.",
            got=f"mode={mode!r}",
            expected='"bilinear" or "nearest"',
        )
    count = len(placement.sides)
    grid = maps.shape[maps.ndim - count :]
    lines = maps[(..., *[None] * (len(size) - count))]  # axes that the grid has lost
    missing = [axis for axis in range(len(size)) if axis not in {side.axis for side in placement.sides}]
    order = [side.axis for side in placement.sides] + missing
    lines = lines.movedim(tuple(range(-len(size), 0)), tuple(axis - len(size) for axis in order))
    for side, cells in zip(placement.sides, grid, strict=True):
        weights = _along(side, cells, placement.space[side.axis], size[side.axis], mode).to(lines)
        axis = side.axis - len(size)
        lines = (lines.movedim(axis, -1) @ weights.T).movedim(-1, axis)
    return lines.expand(*lines.shape[: lines.ndim - len(size)], *size)


def _along(side: Side, cells: int, pixels: int, drawn: int, mode: str) -> Float[Tensor, "drawn cells"]:
    """What each of the `drawn` pixels takes from each cell along one axis of `pixels` input pixels."""
    at = (torch.arange(drawn, dtype=torch.float64) + 0.5) * pixels / drawn
    share = (at - side.start) / side.extent
    inside = (share >= 0) & (share <= 1)
    if side.flipped:
        share = 1 - share
    cell = (share * cells - 0.5).clamp(0, cells - 1)
    if mode == "nearest":
        cell = (share * cells).floor().clamp(0, cells - 1)
    low = cell.floor().long()
    high = (low + 1).clamp(max=cells - 1)
    weights = torch.zeros(drawn, cells, dtype=torch.float64)
    rows = torch.arange(drawn)
    weights[rows, low] += 1 - (cell - low)
    weights[rows, high] += cell - low
    return weights * inside[:, None]


def placed(sides: Sequence[tuple[int, float, float, bool]], space: Shape) -> Placement:
    """A placement from plain numbers: (axis, start, extent, flipped) for each axis of the grid."""
    return Placement(space, tuple(Side(*side) for side in sides))
