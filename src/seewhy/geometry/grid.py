"""How a layer's tensor lies over the input: any layout  ->  (B, C, *space)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from seewhy.geometry.windows import Shape, Windows

_TOLD = 4  # tokens that are named one by one
_ROWS = 16  # for each image, that are no frames: more are boxes, or heads of an attention

_LEARNED_TOKENS = (
    5  # the most before the patches that a sequence of undeclared make-up is tried with: class, 4 registers
)


@dataclass(frozen=True)
class Rows:
    """A layer has several rows for each image of the batch: crops, frames, views, or several images in one batch.

    Attributes:
        count: how many for each image; 1 for a call that saw one frame of it.
        number: which of them.
        images_first: whether all rows of an image follow each other.
        frame: which frame of its image the row is, if rows are frames.
    """

    count: int
    number: int | None = None
    images_first: bool = True
    frame: int | None = None

    def taken(self, tensor: Tensor, axis: int) -> Tensor:
        """The rows with this number, (B, ...), of a layer's (B * count, ...); all of them where none is said."""
        if self.number is None:
            return tensor
        parts = (-1, self.count) if self.images_first else (self.count, -1)
        split = tensor.reshape(*tensor.shape[:axis], *parts, *tensor.shape[axis + 1 :])
        return split.select(axis + self.images_first, self.number)


@dataclass(frozen=True)
class Grid:
    """A layout that was recognised: the axes of images and channels, and which tokens are no places.

    All other axes are places, in rows: gridded already, or one sequence, of which the tokens at the positions `others`
    (in order) are of class, registers, detections.
    windows: the images are cut into these, in rows along the first axis. rows: which of the several rows that the layer
    has for each image; None takes a layer's rows as they are.
    """

    space: Shape
    batch_axis: int = 0
    channel_axis: int = 1
    others: tuple[int, ...] = ()
    windows: Windows | None = None
    rows: Rows | None = None

    def fold(self, tensor: Tensor) -> Tensor:
        """A tensor of this layout as (B, C, *space): linear, so that gradients can go along."""
        tensor = tensor if self.windows is None else self.windows.joined(tensor, self.space)
        tensor = tensor if self.rows is None else self.rows.taken(tensor, self.batch_axis)
        places = tensor.movedim((self.batch_axis, self.channel_axis), (0, 1)).flatten(2)
        ends = (-1, *self.others, places.shape[2])
        spans = [(start + 1, end) for start, end in itertools.pairwise(ends) if start + 1 < end]
        parts = [places[:, :, start:end] for start, end in spans]
        return (parts[0] if len(parts) == 1 else torch.cat(parts, 2)).reshape(*places.shape[:2], *self.space)

    def __str__(self) -> str:
        return " x ".join(map(str, self.space))

    @property
    def layout(self) -> str:
        """The layout in words."""
        axis = "channels first" if self.channel_axis == 1 else "channels last"
        places = _left_out(self.others)
        order = "tokens before images" if self.batch_axis == 1 else ""
        windows = "" if self.windows is None else f"in {self.windows}"
        rows = "" if self.rows is None else f"{self.rows.count} rows for each image"
        return ", ".join(part for part in (str(self), axis, places, order, windows, rows) if part)


def _left_out(others: tuple[int, ...]) -> str:
    """Which tokens are no places, in words; "" for none."""
    if not others:
        return ""
    if others == (*range(len(others)),):
        return f"from token {len(others)} on"
    numbers = ", ".join(map(str, others[:_TOLD])) + (" and so on" if len(others) > _TOLD else "")
    return f"without token{'s' if len(others) > 1 else ''} {numbers}"


@dataclass(frozen=True)
class Evidence:
    """What one forward and the model's own words tell about its layouts, besides a single tensor's shape.

    axes: by shape, the axes (1 or -1) on which modules that know their channels had them. widths: all those channel
    counts. grids: of the maps seen and of the declared patches. lengths: of the token sequences. prefixes, suffix: how
    many tokens may stand before, and must stand after the patches. apart: by the length of a sequence, the positions of
    the tokens that were seen to be no patches, the best guess first. queries: lengths of sequences that are declared to
    be no patches at all. tokens_first: attention runs on (N, B, C).
    """

    axes: Mapping[Shape, Set[int]] = field(default_factory=dict)
    widths: Set[int] = frozenset()
    grids: Set[Shape] = frozenset()
    lengths: Set[int] = frozenset()
    prefixes: Set[int] = frozenset()
    suffix: int = 0
    apart: Mapping[int, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    queries: Set[int] = frozenset()
    tokens_first: bool = False


def readings(
    shape: Shape,
    space: Shape,
    batch: int,
    evidence: Evidence | None = None,
    grid: Shape | None = None,
    windows: Windows | None = None,
) -> list[Grid]:
    """The grids that a tensor of `shape` can have over a batch of inputs of size `space`: none, one, or several.

    Known are (B, C, *grid), (B, *grid, C), (B, N, C), (B, C, N) and (N, B, C). A grid has more than one place and is no
    finer than the input. Where no module says which axis has the channels, it has the input's aspect ratio, to within a
    cell and a half (odd sizes, unpadded convolutions).
    The channels are where the modules of the forward had them. A sequence has the grid of a map of the same forward, or
    half of it and so on (patch merging), and as many channels as some module; where no map is known, the grid is one
    that divides the input evenly. Of a signal every sequence can be a map: (B, N, C) that suits no known grid has N
    places. With `grid` only that one counts. A layer that `windows` are declared of has (B * windows, N, C) or
    (B * windows, *window, C), of a grid that has so many of them.
    """
    evidence = evidence or Evidence()
    if windows and shape[0] != batch and shape[1:-1] in (windows.size, (math.prod(windows.size),)):
        return _windowed(shape[0] / batch, windows, evidence)
    known = evidence.axes.get(shape, frozenset())
    found = [
        Grid(places, batch_axis, channel_axis, others)
        for batch_axis, channel_axis in _arrangements(shape, space, batch, evidence, grid is not None)
        for places, others in _grids(
            _places(shape, batch_axis, channel_axis),
            space,
            evidence,
            grid,
            declared=channel_axis in known,
            tokens=len(shape) == 3 and channel_axis == -1,
        )
    ]
    found = [reading for reading in found if reading.channel_axis in known] if known else found
    if grid is not None and len(space) == 1:  # (B, C, N) and (B, N, C) alike
        found = [reading for reading in found if not reading.others] or found
    if not known:
        found = [reading for reading in found if not _is_attention(shape, reading, evidence)]
        if len(shape) == 3 and evidence.widths:  # boxes (B, N, 4) are no 2 x 2 places of N channels
            found = [reading for reading in found if shape[reading.channel_axis] in evidence.widths]
        if len(space) == 1:  # an average (B, C, 1) is no series of C steps
            found = [reading for reading in found if shape[reading.channel_axis] > 1]
    if len(found) > 1:
        of_some_layer = [reading for reading in found if shape[reading.channel_axis] in evidence.widths]
        found = of_some_layer or found
    return found


def in_rows(
    shape: Shape, space: Shape, batch: int, evidence: Evidence | None = None, *, repeated: bool = False
) -> list[Grid]:
    """The grids that a tensor can have which has several rows for each image: frames, crops, views, or two images.

    Rows may be frames of a video (T, H, W) or slices of a volume, of which there are as many; else they are images of
    the input's own kind, a few of them. A layer that ran `repeated`ly may have seen one frame in each call.
    """
    if not shape or not batch or shape[0] % batch or shape[0] < batch:
        return []
    count = shape[0] // batch
    spaces: list[Shape] = [space[1:]] if len(space) == 3 and (count > 1 or repeated) else []
    spaces += [space] if 1 < count <= _ROWS else []
    for of_a_row in spaces:
        if found := readings(shape, of_a_row, shape[0], evidence):
            return [replace(grid, rows=Rows(count)) for grid in found if grid.batch_axis == 0]
    return []


def read(shape: Shape, space: Shape, batch: int, like: Grid | None = None) -> Grid | None:
    """The grid that the same layer has for inputs of another size: by the shape alone; None for tokens of images.

    Args:
        shape: of what the layer returned.
        space: of those inputs.
        batch: how many they are.
        like: its grid for the inputs that it is known for. Of a signal it tells which axis the places are on; None
            takes the last one.
    """
    if len(space) == 1 and len(shape) < 3:
        return None
    if len(space) == 1:
        like = like or Grid(())
        (length,) = _places(shape, like.batch_axis, like.channel_axis)
        places = length - len(like.others)
        return replace(like, space=(places,)) if 1 < places <= space[0] else None
    found = readings(shape, space, batch) if len(shape) > 3 else []
    if like is not None and like.rows is not None:
        found = in_rows(shape, space, batch) if len(shape) > 3 else []
    return found[0] if found else None


def unfold(fold: Callable[[Tensor], Tensor], folded: Tensor, like: Tensor) -> Tensor:
    """A folded tensor (B, C, *space) back in the layout of `like`, 0 where that has no place of the grid.

    A fold moves entries about, and is linear: its transpose moves them back.
    """
    blank = torch.zeros_like(like).requires_grad_()
    again = fold(blank)
    (found,) = torch.autograd.grad(again, blank, folded.to(again))
    return found


def _arrangements(shape: Shape, space: Shape, batch: int, evidence: Evidence, given: bool) -> Iterator[tuple[int, int]]:
    """(images' axis, channels' axis) as they may be. Sequences are (B, C, N) only where there is no choice."""
    if len(shape) not in (3, 2 + len(space)):
        return
    if shape[0] == batch and not (evidence.tokens_first and len(shape) == 3 and shape[1] == batch):
        if len(shape) > 3 or not given or len(space) == 1:
            yield 0, 1
        yield 0, -1
    elif len(shape) == 3 and shape[1] == batch:
        yield 1, -1


def _places(shape: Shape, batch_axis: int, channel_axis: int) -> Shape:
    taken = {batch_axis, channel_axis % len(shape)}
    return tuple(size for axis, size in enumerate(shape) if axis not in taken)


def _grids(
    places: Shape, space: Shape, evidence: Evidence, given: Shape | None, *, declared: bool, tokens: bool
) -> list[tuple[Shape, tuple[int, ...]]]:
    """(grid, tokens that are none of its places) for a tensor with these places.

    declared: a module says where its channels are. tokens: it is a sequence, channels last.
    """
    if places == given:
        return [(places, ())]
    if len(places) > 1 or (len(space) == 1 and not tokens and given is None):
        fits = given is None and len(places) == len(space) and _lies_over(places, space, any_aspect=declared)
        return [(places, ())] if fits else []
    (length,) = places
    found = [
        (grid, _apart(length, before, math.prod(grid), evidence))
        for grid, before in _sequences(length, space, evidence, given, declared=declared)
    ]
    as_seen = ([pair for pair in found if pair[1] == others] for others in evidence.apart.get(length, ()))
    return next(filter(None, as_seen), found)


def _apart(length: int, before: int, places: int, evidence: Evidence) -> tuple[int, ...]:
    """The tokens of a sequence that are no places: as they were seen, else some before and what follows."""
    seen = (found for found in evidence.apart.get(length, ()) if len(found) == length - places)
    return next(seen, (*range(before), *range(before + places, length)))


def _sequences(
    length: int, space: Shape, evidence: Evidence, given: Shape | None, *, declared: bool
) -> list[tuple[Shape, int]]:
    """(grid, tokens before it) for a sequence of this length."""
    if given is not None:
        return [(given, length - math.prod(given))] if length >= math.prod(given) else []
    as_it_is: list[tuple[Shape, int]]
    as_it_is = [((length,), 0)] if len(space) == 1 and _lies_over((length,), space, any_aspect=declared) else []
    if length in evidence.queries:
        return []
    if not evidence.grids:  # of a volume the order is open too: frames of patches, or patches of frames
        return (_dividing(length, space) if len(space) < 3 else []) or as_it_is
    for grids in _levels(evidence.grids):
        found = [
            (grid, extra)
            for grid in sorted(grids)
            for extra in [length - math.prod(grid) - evidence.suffix * (length > evidence.suffix)]
            if extra in {0, 1} | evidence.prefixes
        ]
        if evenly := [pair for pair in found if pair[1] == 0]:
            return evenly
        if found:
            return found
    return as_it_is


def _windowed(count: float, windows: Windows, evidence: Evidence) -> list[Grid]:
    """The first grids that are cut into `count` windows."""
    for grids in _levels(evidence.grids):
        found = [grid for grid in sorted(grids) if math.prod(windows.counts(grid)) == count and windows.fit(grid)]
        if found:
            return [Grid(grid, channel_axis=-1, windows=windows) for grid in found]
    return []


def _levels(grids: Set[Shape]) -> Iterator[Set[Shape]]:
    """These grids, then what one more merging of patches makes of them, and so on."""
    while grids:
        yield grids
        grids = {half for grid in grids for half in _halves(grid) if math.prod(half) > 1} - grids


def _halves(grid: Shape) -> Iterator[Shape]:
    """A grid after one more merging of patches, two by two; odd sizes are padded or cut, and time may be kept."""
    time, sides = grid[:-2], grid[-2:]
    times = {time, tuple(-(-frames // 2) for frames in time)}
    for merged in (tuple(-(-side // 2) for side in sides), tuple(side // 2 for side in sides)):
        if min(merged) > 0:
            yield from ((*frames, *merged) for frames in times)


def _dividing(length: int, space: Shape) -> list[tuple[Shape, int]]:
    """(grid, tokens before it) for a sequence that nothing is known of: square patches that divide the input evenly.

    Of a signal the fewest tokens before it count: any length is close to that of some patches.
    """
    side = math.gcd(*space)
    grids = [tuple(pixels // patch for pixels in space) for patch in range(1, side + 1) if side % patch == 0]
    found = [
        (grid, length - math.prod(grid))
        for grid in grids
        if math.prod(grid) > 1 and 0 <= length - math.prod(grid) <= _LEARNED_TOKENS
    ]
    return [min(found, key=lambda pair: pair[1])] if found and len(space) == 1 else found


def _is_attention(shape: Shape, reading: Grid, evidence: Evidence) -> bool:
    """Whether what looks like a map is what each token of a sequence makes of each other one."""
    rows, columns = shape[-2:] if len(reading.space) == 1 else reading.space[-2:]
    return rows == columns and rows in evidence.lengths


def _lies_over(grid: Shape, space: Shape, *, any_aspect: bool) -> bool:
    """Whether the grid has several places, is no finer than the input, and has its aspect ratio, if that counts."""
    sides = list(zip(grid, space, strict=True))
    coarser = all(cells <= pixels for cells, pixels in sides)
    alike = any_aspect or all(
        abs(rows * width - columns * height) <= 1.5 * max(height, width)
        for (rows, height), (columns, width) in itertools.combinations(sides[-2:], 2)
    )
    return coarser and math.prod(grid[-2:]) > 1 and alike
