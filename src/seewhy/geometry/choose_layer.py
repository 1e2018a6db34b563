"""Which layer to draw from, where the caller names none: chosen by what one forward of the caller's input shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

from seewhy._types import CallLabel
from seewhy.errors import LayerError
from seewhy.geometry.grid import Grid
from seewhy.geometry.observe import Seen

_EARLY = 0.25  # up to this share of the forward a layer holds edges and colours, which tell nothing of a class


def candidates(seen: Sequence[Seen], space: tuple[int, ...], answers: Set[int]) -> list[Seen]:
    """The calls that a map could be drawn from, the best first.

    A candidate is made of an activation, has a grid that can be told, and is not of the first quarter of the forward.
    A grid coarser than the input is preferred. Later calls come first. Those inside a layer that makes a tensor of its
    own (a residual block, an attention) come after those of the trunk. Those with the channels of an output come last:
    they are what the model says, and not why.

    Args:
        seen: every call of a forward, in the order in which they returned.
        space: of the input.
        answers: the channels of the model's outputs with space.

    Raises:
        LayerError: if there is none.
    """
    late = [call for call in reversed(seen) if call.handed and call.depth > _EARLY]
    with_grid = [call for call in late if call.grid is not None]
    coarser = [call for call in with_grid if call.grid is not None and call.grid.space[-2:] != space[-2:]]
    ambiguous = next((call for call in late if call.readings), None)
    if not with_grid and ambiguous:
        raise several_ways(ambiguous.label, ambiguous.readings, ambiguous.shape, space)
    if not with_grid:
        raise LayerError(
            "no layer of this model has space: none but the first returns a tensor that can be laid over the input.",
            got=", ".join(sorted({f"{call.kind} {call.shape}" for call in seen[-5:]})) or "no layer at all ran",
            expected=f"a map or a sequence of tokens with the aspect ratio of {space}",
            do="pass layers= and grid=, the size of the grid or a function from the layer's output to (B, C, *space)",
        )
    return sorted(coarser or with_grid, key=lambda call: (bool(call.widths & answers), bool(call.within)))


def several_ways(label: CallLabel, found: Sequence[Grid], shape: tuple[int, ...], space: tuple[int, ...]) -> LayerError:
    """The refusal of a layer whose output can be laid over the input as each of `found`."""
    return LayerError(
        f"the output of {label} can lie over the input in several ways.",
        got=f"shape {shape} for inputs of size {space}",
        expected="one of: " + "; ".join(grid.layout for grid in found),
        do="pass grid=, the size of the grid or a function from this output to (B, C, *grid), or another layer",
    )


def growing(seen: Sequence[Seen]) -> Iterator[Sequence[Seen]]:
    """`seen` in order, in groups of 4, 16, 64 and so on: each is a forward, and few reach the last.

    The first group is enough behind a class token too, where the last norm, the blocks and the last block say nothing.
    """
    start, size = 0, 4
    while start < len(seen):
        yield seen[start : start + size]
        start, size = start + size, size * 4


def stages(seen: Sequence[Seen], chosen: Seen, answers: Set[int]) -> list[Seen]:
    """The last layer of every resolution, from the output of the first convolution to `chosen`.

    Early layers count: methods that look at every resolution live on the fine ones. Layers of the trunk come before
    those inside a block, as for `candidates`.

    Args:
        seen: every call of a forward, in the order in which they returned.
        chosen: the layer to end with, which stands for its own resolution.
        answers: the channels of the model's outputs with space.

    Returns:
        One call for each grid, in the order in which they returned.
    """
    first = next((number for number, call in enumerate(seen) if "Conv" in call.kind), 0)
    until = seen[first : seen.index(chosen) + 1]
    usable = [call for call in reversed(until) if call.handed and call.grid is not None]
    by_grid = {call.grid.space: call for call in (chosen,) if call.grid is not None}
    for call in sorted(usable, key=lambda call: (bool(call.widths & answers), bool(call.within))):
        if call.grid is not None:
            by_grid.setdefault(call.grid.space, call)
    return [call for call in until if call in by_grid.values()]


def pyramid(chosen: Seen, seen: Sequence[Seen]) -> list[Seen]:
    """`chosen`, and whatever else the same layer returned if that is of several resolutions, in the order of the calls.

    A detector's pyramid, or its head that runs over every level, reads each box from one of them.
    """
    levels = [call for call in reversed(seen) if call.label.name == chosen.label.name]
    spaces = {call.grid.space for call in levels if call.grid is not None}
    return levels if len(spaces) > 1 else [chosen]


def reason(
    chosen: Seen,
    seen: Sequence[Seen],
    *,
    parallel: Sequence[Seen] = (),
    proven: bool = False,
    refused: bool = False,
    reached: bool = True,
) -> str:
    """Why `chosen` was chosen among `seen`, in a sentence.

    Args:
        chosen: the call.
        seen: all candidates, the best first.
        parallel: further calls, by which the input passes beside the chosen one.
        proven: whether changed copies of an image showed where it lies.
        refused: whether a better candidate turned out to have no places.
        reached: whether the score's gradient was seen to reach it; otherwise there is none to see.
    """
    later = seen.index(chosen)
    after = f"; of the {later} later ones none is reached{' and has places' if refused else ''}" if later else ""
    which = "that the score's gradient reaches" if reached else "(no gradient leads to any)"
    layout = "" if chosen.grid is None else chosen.grid.layout
    shown = "; where it lies was seen from changed copies of an image" if proven else ""
    names = ", ".join(str(call.label) for call in parallel)
    beside = f"; the input passes beside it through {names}: the maps are added" if parallel else ""
    return f"{chosen.label} ({layout}) is the last layer with space {which}{after}{shown}{beside}"
