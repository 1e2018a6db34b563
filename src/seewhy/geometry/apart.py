"""Which tokens of a sequence lie nowhere in the image: of class, registers, detections, wherever they stand."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seewhy._types import CallLabel
from seewhy.geometry.probes import Probes
from seewhy.hooks.activations import activation_in
from seewhy.hooks.attach import Finish, Passed, around

if TYPE_CHECKING:
    from seewhy.engine.session import Session

_ROUNDING = 4  # steps of its precision: a token that changes by less has not changed


class First(NamedTuple):
    """The first call of a forward that a sequence is seen at: as what the layer was given, or as what it returned."""

    label: CallLabel
    given: bool


class _Enough(Exception):
    """The sequence was seen: nothing after it is of interest."""


def apart(run: Session, first: First, length: int) -> tuple[tuple[int, ...], ...]:
    """The tokens of a sequence that are no places of the image, as two guesses: by position, in order.

    The second are the tokens that no change of the image reaches: those that are parameters. The first are these and
    the tokens that changes in opposite corners reach alike: a mean of all patches. It holds no more where patches see
    all of the image. The model runs four times up to the sequence.

    Args:
        run: the session.
        first: where the sequence is seen first, before its tokens look at each other.
        length: of the sequence.
    """
    image = run.call.image
    row = int(image.flatten(1).isfinite().all(1).to(torch.uint8).argmax())
    probes = Probes.of(tuple(image.shape[2:]))
    copies = probes.changed(image[row], torch.Generator().manual_seed(0), blank=False)
    tiles = math.prod(probes.counts)
    before, *after = (
        _sequence(run, first, torch.cat([image[:row], copy[None], image[row + 1 :]]))
        for copy in copies[[0, 3, 4, 3 + tiles]]  # as it is, changed everywhere, in the first tile, in the last
    )
    if before is None or any(one is None or one.shape != before.shape for one in after):
        return ()
    changed, of_low, of_high = (_changed(before, one, length) for one in after if one is not None)
    return tuple(tuple(found.nonzero().flatten().tolist()) for found in (~changed | of_low & of_high, ~changed))


def _changed(before: Tensor, after: Tensor, length: int) -> Bool[Tensor, " length"]:
    """Which tokens differ, in any image of the batch."""
    axis = 1 if before.shape[1] == length else 0
    change, there = ((tensor.float().abs().movedim(axis, 0).flatten(1).amax(1)) for tensor in (after - before, before))
    return change > _ROUNDING * torch.finfo(before.dtype).eps * there


def _sequence(run: Session, first: First, image: Float[Tensor, "B C *space"]) -> Tensor | None:
    """What stands at `first` for these images; the forward ends there."""
    kept: list[Tensor] = []
    number, entered, left = first.label.number or 0, -1, -1

    def keep(found: Tensor | None) -> None:
        if found is not None:
            kept.append(found.clone())
            raise _Enough

    def leave(output: object) -> None:
        nonlocal left
        left += 1
        if not first.given and left == number:
            keep(activation_in(output))

    def visit(_: str, passed: Passed) -> tuple[Passed, Finish]:
        nonlocal entered
        entered += 1
        if first.given and entered == number:
            keep(activation_in(tuple(passed.values())))
        return passed, leave

    layers = run.modules((first.label.name,))
    with run.aside(), torch.no_grad(), suppress(_Enough), around(layers, visit):
        run.run(run.call.with_rows(Tensor.clone, image))
    return kept[0] if kept else None
