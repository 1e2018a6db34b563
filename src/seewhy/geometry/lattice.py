"""Where the tokens of pictures lie, among those of a text: from what each answers to, to a grid over the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.errors import InputError

Box = tuple[float, float, float, float]

_OFF = 0.1  # by how much of a token a grid may miss where it begins
_AGREE = 0.9  # the share of tokens that have to answer to the place where a grid has them


@dataclass(frozen=True)
class Lattice:
    """The tokens of one view of a picture, in rows and columns.

    Attributes:
        tokens: (rows, columns), the number of each in the sequence; -1 where there is none.
        box: (top, left, bottom, right), what they cover, in pixels of the picture.
    """

    tokens: Int[Tensor, "rows columns"]
    box: Box

    @property
    def cell(self) -> tuple[float, float]:
        """The height and width of what a token covers, in pixels."""
        rows, columns = self.tokens.shape
        return (self.box[2] - self.box[0]) / rows, (self.box[3] - self.box[1]) / columns

    def at(self, rows: Float[Tensor, " r"], columns: Float[Tensor, " c"]) -> Int[Tensor, "r c"]:
        """The token that covers each of these places, in pixels; -1 outside, and where there is none."""
        height, width = self.cell
        row, column = ((rows - self.box[0]) / height).floor().long(), ((columns - self.box[1]) / width).floor().long()
        inside = ((row >= 0) & (row < self.tokens.shape[0]))[:, None] & (column >= 0) & (column < self.tokens.shape[1])
        found = self.tokens[row.clamp(0, self.tokens.shape[0] - 1)][:, column.clamp(0, self.tokens.shape[1] - 1)]
        return torch.where(inside, found, -1)


def laid_out(
    tokens: Int[Tensor, " n"], rows: Int[Tensor, " n"], columns: Int[Tensor, " n"], cells: tuple[int, int]
) -> Int[Tensor, "r c"] | None:
    """Tokens in rows and columns, by the patch of a view that each answers to most.

    Where they answer to the patches of a rectangle, one to each, they lie there: what is left of a tile without its
    padding, in whatever order. Else they are merged patches: a grid row by row, nearly all of whose tokens answer to a
    patch inside their own place.

    Args:
        tokens: their numbers in the sequence.
        rows, columns: of the patch that each answers to.
        cells: the numbers of rows and columns of patches.

    Returns:
        As `Lattice.tokens`; None where the tokens have no places: queries, latents, clusters.
    """
    found = _one_each(tokens, rows, columns, cells)
    return _merged(tokens, rows, columns, cells) if found is None else found


def _one_each(tokens: Tensor, rows: Tensor, columns: Tensor, cells: tuple[int, int]) -> Tensor | None:
    """Tokens at the patches that they answer to, if these are a rectangle, and each is one token's."""
    if len(tokens) < 2 or len({*(rows * cells[1] + columns).tolist()}) < len(tokens):
        return None
    height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
    if height * width != len(tokens):
        return None
    found = tokens.new_full(cells, -1)
    found[rows, columns] = tokens
    return found


def _merged(tokens: Tensor, rows: Tensor, columns: Tensor, cells: tuple[int, int]) -> Tensor | None:
    """Tokens as the grid, row by row, that agrees best with the patches that they answer to; None where none does."""
    best, found = _AGREE, None
    order = torch.arange(len(tokens), device=tokens.device)
    for down in range(1, min(len(tokens), cells[0]) + 1):
        across = len(tokens) // down
        if down * across != len(tokens) or across > cells[1] or len(tokens) < 2:
            continue
        agree = _near(rows, order // across, down, cells[0]) & _near(columns, order % across, across, cells[1])
        share = float(agree.float().mean())
        rise = _rises(rows.reshape(down, across), cells[0]) and _rises(columns.reshape(down, across).mT, cells[1])
        if share >= best and rise:
            best, found = share + 1e-6, tokens.reshape(down, across)
    return found


def _near(found: Tensor, place: Tensor, count: int, cells: int) -> Tensor:
    """Whether a patch lies in the place of a token, of `count` along this axis, or on its edge."""
    size = cells / count
    return (found + 0.5 - (place + 0.5) * size).abs() <= (size + 1) / 2


def _rises(lines: Tensor, cells: int) -> bool:
    """Whether the mean patch of each line of tokens comes after that of the line before, by half a token or more."""
    means = lines.float().mean(1)
    return bool((means.diff() >= cells / len(lines) / 2).all())


@dataclass(frozen=True)
class TokenGrid:
    """What takes the tokens of a sequence to the grid of the pictures in it.

    Attributes:
        index: (B, cells, views), the token of each view at each cell.
        weights: the same shape: the share of each view in the cell.
        space: (rows, columns), or (pictures, rows, columns).
    """

    index: Int[Tensor, "B cells views"]
    weights: Float[Tensor, "B cells views"]
    space: tuple[int, ...]

    @property
    def shared(self) -> bool:
        """Whether all rows of the batch have the tokens at the same numbers."""
        return bool((self.index == self.index[:1]).all() and (self.weights == self.weights[:1]).all())

    def fold(self, tensor: Float[Tensor, "B L C"]) -> Float[Tensor, "B C *space"]:
        """Tokens as a grid: the mean of the views at each cell, 0 where no token is."""
        own = len(tensor) == len(self.index)
        index, weights = (each.to(tensor.device) for each in (self.index, self.weights))
        if not own:
            index, weights = (each[:1].expand(len(tensor), -1, -1) for each in (index, weights))
        cells, views = index.shape[1:]
        picked = tensor.gather(1, index.flatten(1)[..., None].expand(-1, -1, tensor.shape[-1]))
        if views == 1 and bool((weights == 1).all()):
            mean = picked
        else:
            mean = (picked.reshape(len(picked), cells, views, -1) * weights[..., None].to(picked)).sum(2)
        return mean.mT.reshape(len(tensor), tensor.shape[-1], *self.space)


def token_grid(pictures: Sequence[Sequence[Sequence[Lattice]]], size: tuple[int, ...]) -> TokenGrid:
    """The grid over the pictures of each row of a batch.

    Its cells are as large as what the finest of the tokens covers, or a part of it where a picture was padded so that
    tokens begin before it does. A cell takes the mean of the tokens at its centre,
    one of each view.

    Args:
        pictures: for each row, for each of its pictures, the lattices of its views.
        size: (H, W), or (N, H, W) for several pictures: of the largest picture, in pixels.

    Raises:
        InputError: if there is no lattice.
    """
    every = [lattice for row in pictures for picture in row for lattice in picture]
    if not every:
        raise InputError("no token of the sequence lies in a picture.")
    height, width = (min(sides) for sides in zip(*(lattice.cell for lattice in every), strict=True))
    down = round(size[-2] / height) * _parts(*((lattice.box[0], lattice.cell[0]) for lattice in every))
    across = round(size[-1] / width) * _parts(*((lattice.box[1], lattice.cell[1]) for lattice in every))
    device = every[0].tokens.device
    rows = (torch.arange(down, dtype=torch.float64, device=device) + 0.5) * size[-2] / down
    columns = (torch.arange(across, dtype=torch.float64, device=device) + 0.5) * size[-1] / across
    most, views = (size[0] if len(size) == 3 else 1), max(len(picture) for row in pictures for picture in row)
    index = torch.full((len(pictures), most, down, across, views), -1, device=device)
    for number, row in enumerate(pictures):
        for place, picture in enumerate(row):
            for view, lattice in enumerate(picture):
                index[number, place, ..., view] = lattice.at(rows, columns)
    index = index.flatten(1, 3)
    there = (index >= 0).to(torch.float32)
    return TokenGrid(
        index.clamp(min=0),
        there / there.sum(-1, keepdim=True).clamp(min=1),
        (down, across) if most == 1 else (most, down, across),
    )


def _parts(*sides: tuple[float, float]) -> int:
    """Into how many parts cells are cut, so that the finest lattices begin with one: (start, cell), in pixels."""
    cell = min(size for _, size in sides)
    starts = [start / cell for start, size in sides if size == cell]
    off = [max(abs(start * parts - round(start * parts)) / parts for start in starts) for parts in (1, 2, 3, 4)]
    return 1 + off.index(min(off)) if off[0] > _OFF else 1
