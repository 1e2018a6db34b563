"""Windows that a grid is cut into, as Swin and SAM have them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Windows:
    """The places of an image cut into windows of `size`, the rest of the last ones padded: (B * windows, *size, C).

    The grid was rolled back by `shift` before (Liu et al. 2021, arXiv:2103.14030, section 3.2).
    """

    size: Shape
    shift: Shape

    def joined(self, tensor: Tensor, space: Shape) -> Tensor:
        """(B, *space, C) for (B * windows, places, C)."""
        count, sides = len(space), self.counts(space)
        parts = tensor.reshape(-1, *sides, *self.size, tensor.shape[-1])
        pairs = [axis for side in range(1, 1 + count) for axis in (side, side + count)]
        whole = parts.permute(0, *pairs, -1).reshape(
            -1, *(many * each for many, each in zip(sides, self.size, strict=True)), tensor.shape[-1]
        )
        for axis, (cells, shift) in enumerate(zip(space, self.shift, strict=True), 1):
            whole = whole.roll(shift, axis).narrow(axis, 0, cells)
        return whole

    def counts(self, space: Shape) -> Shape:
        """How many windows there are along each axis."""
        return tuple(-(-cells // each) for cells, each in zip(space, self.size, strict=True))

    def fit(self, space: Shape) -> bool:
        """Whether it is known what a grid's windows are: of padding and shifting, models differ in what comes first."""
        padded = any(cells % each for cells, each in zip(space, self.size, strict=True))
        return not (padded and any(self.shift))

    def __str__(self) -> str:
        size, shift = (" x ".join(map(str, sides)) for sides in (self.size, self.shift))
        return f"windows of {size}" + (f" shifted by {shift}" if any(self.shift) else "")
