"""Where the layers of a session lie over its input: proven, by construction or by changed copies of the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from seewhy._types import CallLabel
from seewhy.engine.session import Session
from seewhy.geometry.grid import Grid, Rows, read
from seewhy.geometry.judge import NoPlaces
from seewhy.geometry.observe import Seen
from seewhy.geometry.placement import Placement, Side
from seewhy.geometry.proof import Proof, Row, prove
from seewhy.hooks.activations import activations_in, call_labels
from seewhy.hooks.attach import after_forward

_AT_ONCE = 32  # changed copies in one forward
_NEAR = 0.12  # of a side, to which a layer that is not linear in its input is seen to lie in the same place twice
_ONE_FRAME = 0.9  # of how much a call changes with all frames together comes from the frame that it saw


def can_be_proven(run: Session) -> bool:
    """Whether copies of the input can be changed: not those of integers, nor those that the model lays out itself."""
    images = run.call.images
    return isinstance(images, Tensor) and images.is_floating_point() and run.call.canvas is None and len(images) > 0


def placements(
    run: Session, calls: Sequence[Seen], seen: Sequence[Seen], *, batch_size: int = _AT_ONCE
) -> dict[CallLabel, Proof | NoPlaces]:
    """How these calls lie over the input, row by row, or why they have no places.

    Costs nothing where nothing before a call can move places. Otherwise the model runs on some twenty changed copies
    of the first image, and again on as many for what these do not show. Where what an image shows may steer a model, it
    runs on as many of the image turned by half: a model that looks where it finds something looks elsewhere then.

    Args:
        run: the session.
        calls: those in question, each with a grid.
        seen: all calls of the forward: the first with a grid helps to see how a model crops, pads or zooms.
        batch_size: copies in one forward.
    """
    space = run.call.space
    upright = Placement.upright(space)
    found: dict[CallLabel, Proof | NoPlaces] = {call.label: _certain(upright) for call in calls if call.plain}
    asked = {call.label: call.grid for call in calls if not call.plain and call.grid is not None}
    if one_by_one := {label: grid for label, grid in asked.items() if grid.rows and grid.rows.count == 1}:
        with run.aside():
            found |= _of_frames(run, one_by_one, min(batch_size, _AT_ONCE))
    asked = {label: grid for label, grid in asked.items() if label not in one_by_one}
    if not asked:
        return found
    able = (call for call in seen if call.grid is not None and call.handed and not call.label.level)
    first = next((call for call in able if call.grid and not (call.grid.rows and call.grid.rows.count == 1)), None)
    known = asked | ({} if first is None or first.grid is None else {first.label: first.grid})
    names = {str(label): label for label in known}

    fixed = False  # whether the model takes no other batch than the caller's

    def folded(images: Sequence[Tensor]) -> dict[str, Tensor]:
        nonlocal fixed
        if not fixed:
            try:
                return {str(label): grid for label, grid in _folded(run, images[0], known).items()}
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # of whatever kind: it ran on the caller's batch
                if len(images[0]) > 1 or run.call.batch == 1:
                    raise
                made = _in_a_batch(run, images[0], known, error)
                fixed = True
                return made
        return _in_a_batch(run, images[0], known)

    image, steered = run.call.image[:1], {call.label for call in calls if call.steered}
    with run.aside():
        verdicts = prove(folded, [image], at_once=min(batch_size, _AT_ONCE)).verdicts
        if any(names[text] in steered and isinstance(verdict, Proof) for text, verdict in verdicts.items()):
            turned = image.flip(tuple(range(2, image.ndim)))  # shows the same elsewhere
            others = prove(folded, [turned], at_once=min(batch_size, _AT_ONCE)).verdicts
            verdicts = {text: _compared(verdict, others[text]) for text, verdict in verdicts.items()}
    for text, verdict in verdicts.items():
        if names[text] in asked:
            found[names[text]] = verdict
    return found


def _compared(verdict: Proof | NoPlaces, other: Proof | NoPlaces) -> Proof | NoPlaces:
    """A verdict, and whether it holds for an image that shows something else too."""
    if isinstance(verdict, NoPlaces) or isinstance(other, NoPlaces):
        return verdict
    pairs = zip(verdict.rows, other.rows, strict=True)
    return replace(
        verdict, own=any(one and two and not one.placement.is_near(two.placement, _NEAR) for one, two in pairs)
    )


def taken_as_upright(calls: Sequence[Seen], space: tuple[int, ...]) -> dict[CallLabel, Proof | NoPlaces]:
    """The calls as they are, where nothing can be proven, or the caller has said how they lie."""
    several = NoPlaces("it has several rows for each image, and what these are cannot be seen")
    return {
        call.label: several if call.grid is not None and call.grid.rows else _certain(Placement.upright(space))
        for call in calls
    }


def _certain(placement: Placement) -> Proof:
    return Proof((Row((0,), placement),), images_first=True, agreement=1.0)


def laid_out(call: Seen, proof: Proof) -> dict[CallLabel, tuple[Grid, Placement]]:
    """The grids of a call and where they lie: one, or one for each of its rows that answers to the image."""
    assert call.grid is not None
    if call.grid.rows is None:
        return {call.label: (call.grid, proof.placement)}
    count = len(proof.rows)
    if count == 1 and proof.rows[0] is not None:
        return {call.label: (replace(call.grid, rows=Rows(1, frame=proof.rows[0].frame)), proof.placement)}
    return {
        call.label._replace(row=number): (
            replace(call.grid, rows=Rows(count, number, proof.images_first, row.frame)),
            row.placement,
        )
        for number, row in enumerate(proof.rows)
        if row is not None
    }


def _of_frames(run: Session, known: Mapping[CallLabel, Grid], at_once: int) -> dict[CallLabel, Proof | NoPlaces]:
    """How calls lie that saw one frame each: which one it is, and where their grids lie over that.

    Each frame is changed alone, in one forward; then a video of copies of one frame is changed in places.
    """
    video = run.call.image[:1]
    count = video.shape[2]
    changed = video.repeat(count, 1, 1, 1, 1)
    every = torch.arange(count, device=video.device)
    changed[every, :, every] += video.std(correction=0).clamp(min=1e-3)
    before, after = _folded(run, video, known), _folded(run, changed, known)

    def folded(images: Sequence[Tensor]) -> dict[str, Tensor]:
        shown = images[0][:, :, None].expand(-1, -1, count, -1, -1)
        return {str(label): grid for label, grid in _folded(run, shown, known).items()}

    verdicts = prove(folded, [video[:, :, 0]], larger=False, at_once=at_once).verdicts
    found: dict[CallLabel, Proof | NoPlaces] = {}
    for label in known:
        verdict = verdicts[str(label)]
        moved = (after[label] - before[label]).flatten(1).norm(dim=1)
        if isinstance(verdict, Proof) and float(moved.amax()) > _ONE_FRAME * float(moved.sum()):
            sides = tuple(replace(side, axis=side.axis + 1) for side in verdict.placement.sides)
            place = Placement(run.call.space, (Side(0, 0.0, float(count)), *sides))
            row = Row((0,), place, int(moved.argmax()))
            found[label] = replace(verdict, rows=(row,))
        else:
            several = NoPlaces("it answers to several frames, and has no axis for them")
            found[label] = verdict if isinstance(verdict, NoPlaces) else several
    return found


def _in_a_batch(
    run: Session, images: Tensor, known: Mapping[CallLabel, Grid], otherwise: Exception | None = None
) -> dict[str, Tensor]:
    """What the calls return for one image, from a batch of it that is as large as the caller's.

    Raises `otherwise`, if it is given, where the model does not take that either.
    """
    if len(images) > 1:
        raise ValueError("one image at a time")
    try:
        made = _folded(run, images.expand(run.call.batch, *images.shape[1:]), known)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # then it is not the size
        raise otherwise or error from None
    return {str(label): grid[: len(grid) // run.call.batch] for label, grid in made.items() if not known[label].rows}


def _folded(run: Session, images: Tensor, known: Mapping[CallLabel, Grid]) -> dict[CallLabel, Tensor]:
    """What the calls return for these images in place of the first one, as (N, C, *grid)."""
    rows = run.call.with_rows(lambda tensor: tensor[:1].repeat_interleave(len(images), 0), images)
    space = tuple(images.shape[2:])
    made: list[tuple[tuple[str, str], Tensor]] = []

    def keep(name: str, _: tuple[Any, ...], output: Any) -> None:
        made.extend(((name, level), tensor.clone()) for level, tensor in activations_in(output).items())

    modules = run.modules(tuple(dict.fromkeys(label.name for label in known)))
    with torch.no_grad(), after_forward(modules, keep):
        rows.with_rows(Tensor.clone).run(run.model)  # what it answers is of no interest
    labels = call_labels([call for call, _ in made])
    found = {}
    for label, (_, tensor) in zip(labels, made, strict=True):
        if label not in known:
            continue
        grid: Grid | None = known[label]
        if space != run.call.space:
            grid = read(tuple(tensor.shape), space, len(images), known[label])  # tokens of images cannot be told anew
        if grid is not None:
            found[label] = grid.fold(tensor)
    return found
