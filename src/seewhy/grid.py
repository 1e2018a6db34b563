"""How a layer's tensor lies over the input: any layout  ->  (B, C, *space)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """A layout that was recognised. `fold` takes a tensor to (B, C, *space), linearly: gradients can go along."""

    space: tuple[int, ...]
    layout: str
    fold: Callable[[Tensor], Tensor]

    def __str__(self) -> str:
        return " x ".join(map(str, self.space))


def read(shape: tuple[int, ...], space: tuple[int, ...]) -> Grid | None:
    """The grid of a tensor of `shape` over an input of size `space`, or None if it has none that makes sense.

    Channels first, (B, C, *grid), for images and volumes. A grid has more than one place, is no finer than the input
    and has its aspect ratio, to within a cell and a half (odd sizes, convolutions without padding).
    """
    grid = tuple(shape[2:])
    if len(grid) != len(space) or not _lies_over(grid, space):
        return None
    return Grid(grid, "channels first", lambda tensor: tensor)


def given(fold: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Grid:
    """The grid of a caller's own function from the layer's tensor to (B, C, *space)."""
    return Grid(tuple(shape[2:]), "given", fold)


def unfold(fold: Callable[[Tensor], Tensor], folded: Tensor, like: Tensor) -> Tensor:
    """A folded tensor (B, C, *space) back in the layout of `like`, 0 where that has no place of the grid.

    A fold moves entries about, and is linear: its transpose moves them back.
    """
    blank = torch.zeros_like(like).requires_grad_()
    again = fold(blank)
    (found,) = torch.autograd.grad(again, blank, folded.to(again))
    return found


def _lies_over(grid: tuple[int, ...], space: tuple[int, ...]) -> bool:
    (rows, columns), (height, width) = grid[-2:], space[-2:]
    coarser = all(cells <= pixels for cells, pixels in zip(grid, space, strict=True))
    return coarser and rows * columns > 1 and abs(rows * width - columns * height) <= 1.5 * max(height, width)
