"""Proof of how layers lie over their input: the model is run on a few changed copies of one of the caller's images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Shaped
from torch import Tensor

from seewhy.geometry.judge import Answers, Lies, NoPlaces, judge
from seewhy.geometry.placement import Placement, Shape
from seewhy.geometry.probes import Probes

# for each image among the inputs a batch of N -> by label what a layer returned, folded: (N * rows, C, *grid)
Run = Callable[[Sequence[Tensor]], Mapping[str, Tensor]]

_ROUNDING = 16  # steps of the layer's precision: what changes less has not changed
_MIXED = 0.01  # of its changes, by which an image alone differs from it in a batch of others if images see each other
_WIDE = 6  # cells that a larger image is to give a grid that is too small to show where it lies


@dataclass(frozen=True)
class Row:
    """What one row of a layer answers to, of the rows that it has per image of the batch.

    inputs: the numbers of the images among the inputs. frame: of that image, along its first axis, if rows are frames.
    """

    inputs: tuple[int, ...]
    placement: Placement
    frame: int | None = None


@dataclass(frozen=True)
class Proof:
    """How a layer lies over its input.

    rows: for each row per image what it answers to; None for one that answers to none. Of a batch of B row r of image b
    is the layer's b * len(rows) + r where `images_first`, else r * B + b. agreement: the least of its rows', 0 to 1.
    """

    rows: tuple[Row | None, ...]
    images_first: bool
    agreement: float

    @property
    def placement(self) -> Placement:
        """How the first row that answers lies: of all rows that are frames, and of most layers."""
        return next(row.placement for row in self.rows if row is not None)


@dataclass(frozen=True)
class Proofs:
    """By label what was proven; forwards: what that took, in forwards of one image.

    mixed: images of a batch see each other, or the model takes one at a time.
    """

    verdicts: dict[str, Proof | NoPlaces]
    forwards: float
    mixed: bool


def prove(
    run: Run,
    images: Sequence[Shaped[Tensor, "1 C *space"]],
    *,
    rounds: int = 2,
    larger: bool = True,
    at_once: int = 32,
    seed: int = 0,
) -> Proofs:
    """How each layer that `run` returns lies over its input, or that it has no places.

    One forward is of the images alone. Then each of them is changed in turn, in a round of one forward on 22 copies of
    an image (26 of a volume, 16 of a signal): at first on what it shows, then on its mean colour. Further rounds are
    run while layers remain that are not proven; last of all, for those whose grid is too small to tell, one with a
    larger image. Where the model takes no batch, or images see each other in one, copies are run one at a time.

    Args:
        run: runs the model without a graph, under the guard, and folds what its layers return to (N * rows, C,
            *grid). Include the first layer with a grid: where a model crops, pads or zooms, that one shows it to a
            pixel. Handed larger images it folds what comes then, and leaves out what it cannot.
        images: one of the caller's own, for each image among the inputs.
        rounds: at most so many for each of them.
        larger: whether a larger image may be tried.
        at_once: copies in one forward.
        seed: of the changes.
    """
    runner = _Runner(run, images, at_once, seed)
    heard: dict[str, list[Answers | None]] = {}
    verdicts: dict[str, Proof | NoPlaces] = {}
    for number in range(rounds):
        for which in range(len(images)):
            for label, new in runner.answers(which, blank=number % 2 == 1).items():
                before = heard.setdefault(label, [None] * len(images))
                old = before[which]
                before[which] = new if old is None else old.with_more(new)
        verdicts = _verdicts(heard, runner)
        if all(isinstance(verdict, Proof) for verdict in verdicts.values()):
            break
    if larger:
        verdicts |= _enlarged(run, images, verdicts, runner, seed)
    return Proofs(verdicts, runner.forwards, runner.mixed)


class _Runner:
    """Runs changed copies, and holds what is found out on the way: rows, batches, cost."""

    def __init__(self, run: Run, images: Sequence[Tensor], at_once: int, seed: int) -> None:
        self.run, self.images, self.at_once = run, images, at_once
        self.draw = torch.Generator().manual_seed(seed)
        self.probes = [Probes.of(tuple(image.shape[2:])) for image in images]
        self.alone = run(images)
        self.forwards = 1.0
        self.mixed = False
        self.images_first = dict.fromkeys(self.alone, True)

    def answers(self, which: int, *, blank: bool) -> dict[str, Answers]:
        """How the layers answer to changes of one of the images: (1, tiles, rows, *grid)."""
        probes = self.probes[which]
        copies = probes.changed(self.images[which][0], self.draw, blank=blank)
        self.forwards += len(copies)
        made = None if self.mixed else self._together(which, copies, blank=blank)
        if made is None:
            self.mixed = True
            made = self._one_by_one(which, copies)
        return {label: _answers(found, probes) for label, found in made.items()}

    def _given(self, which: int, copies: Tensor) -> list[Tensor]:
        return [
            copies if number == which else image.expand(len(copies), *image.shape[1:])
            for number, image in enumerate(self.images)
        ]

    def _one_by_one(self, which: int, copies: Tensor) -> dict[str, Tensor]:
        made = [self.run(self._given(which, copy[None])) for copy in copies]
        return {label: torch.stack([one[label] for one in made]) for label in self.alone}

    def _together(self, which: int, copies: Tensor, *, blank: bool) -> dict[str, Tensor] | None:
        """By label (N, rows, C, *grid), or None where the model does not take a batch, or mixes it."""
        try:
            parts = [
                self.run(self._given(which, copies[start : start + self.at_once]))
                for start in range(0, len(copies), self.at_once)
            ]
        except Exception:  # of whatever kind: it does run on one image, so what it cannot do is a batch
            return None
        alone = self.alone if not blank else self.run(self._given(which, copies[:1]))
        made = {}
        for label, one in alone.items():
            count = len(one)
            if any(part[label].shape[1:] != one.shape[1:] for part in parts) or sum(
                len(part[label]) for part in parts
            ) != count * len(copies):
                return None
            ways = {
                True: torch.cat([part[label].reshape(-1, *one.shape) for part in parts]),
                False: torch.cat([part[label].reshape(count, -1, *one.shape[1:]).transpose(0, 1) for part in parts]),
            }
            off = {first: float((way[0] - one).abs().max()) for first, way in ways.items()}
            first = off[True] <= off[False]
            changes = float((ways[first][1:] - ways[first][:1]).abs().max())
            if off[first] > max(_MIXED * changes, _ROUNDING * _step(one)):
                return None
            self.images_first[label], made[label] = first, ways[first]
        return made


def _step(tensor: Tensor) -> float:
    """What the largest of a layer's values is rounded to."""
    return float(torch.finfo(tensor.dtype).eps * tensor.abs().max())


def _answers(made: Tensor, probes: Probes) -> Answers:
    """The norm over channels of what changed at each place, 0 where that is rounding; from (N, rows, C, *grid)."""
    changes = (made[1:] - made[:1]).float()
    size = torch.linalg.vector_norm(changes, dim=2)
    size = torch.where(size > _ROUNDING * _step(made), size, 0).cpu()
    count = math.prod(probes.counts)
    rising, falling, both = changes[count], changes[count + 1], changes[-1]
    bent = (both - rising - falling).norm() / both.norm().clamp(min=1e-30)
    return Answers(size[None, :count], size[count:-1].reshape(1, -1, 2, *size.shape[1:]), bent[None].cpu())


def _verdicts(heard: Mapping[str, Sequence[Answers | None]], runner: _Runner) -> dict[str, Proof | NoPlaces]:
    """The verdict on each layer; the finest first, as where a later one may lie is taken from those before it."""
    known: list[list[Placement]] = [[] for _ in runner.images]
    found: dict[str, Proof | NoPlaces] = {}
    for label in sorted(heard, key=lambda label: -math.prod(runner.alone[label].shape[2:])):
        answers = [one for one in heard[label] if one is not None]
        found[label] = proof = _verdict(answers, runner.probes, known, runner.images_first[label])
        for row in proof.rows if isinstance(proof, Proof) else ():
            for number in row.inputs if row is not None else ():
                if row is not None and row.placement not in known[number]:
                    known[number].append(row.placement)
    return {label: found[label] for label in heard}


def _verdict(
    answers: Sequence[Answers], probes: Sequence[Probes], known: Sequence[Sequence[Placement]], images_first: bool
) -> Proof | NoPlaces:
    """From the answers of one layer to each of the images: (draws, tiles, rows, *grid)."""
    count, grid = answers[0].grid[0], answers[0].grid[1:]
    silent = NoPlaces("nothing in it changes with the image: it is constant, saturated, or of another input")
    if count > 1:
        for number, (one, probe) in enumerate(zip(answers, probes, strict=True)):
            if len(probe.space) == 1 + len(grid) and not one.silent:
                return _frames(one, probe, known[number], number, images_first)
    rows: list[Row | None] = []
    agreement = 1.0
    refused = silent
    for row in range(count):
        lies: dict[int, Lies] = {}
        for number, (one, probe) in enumerate(zip(answers, probes, strict=True)):
            own = Answers(one.tiles[:, :, row], one.ramps[:, :, :, row], one.bent)
            if own.silent:
                continue
            verdict = judge(own, probe, known[number])
            if isinstance(verdict, NoPlaces):
                refused = verdict
                break
            lies[number] = verdict
        else:
            first = next(iter(lies.values()), None)
            rows.append(None if first is None else Row(tuple(lies), first.placement))
            agreement = min([agreement, *(lie.agreement for lie in lies.values())])
            continue
        return refused
    return Proof(tuple(rows), images_first, agreement) if any(rows) else silent


def _frames(
    answers: Answers, probes: Probes, known: Sequence[Placement], number: int, images_first: bool
) -> Proof | NoPlaces:
    """Of a layer that may have a row for each frame of a video, or slice of a volume: rows are an axis of the grid."""
    verdict = judge(answers, probes, known)
    if isinstance(verdict, NoPlaces):
        return replace(verdict, reason=f"its {answers.grid[0]} rows per image are no frames of it: {verdict.reason}")
    side = verdict.placement.sides[0]
    frames = side.centres(answers.grid[0]).floor().long().clamp(0, probes.space[side.axis] - 1).tolist()
    rows = tuple(Row((number,), verdict.placement, frame) for frame in frames)
    return Proof(rows, images_first, verdict.agreement)


def _enlarged(
    run: Run, images: Sequence[Tensor], verdicts: Mapping[str, Proof | NoPlaces], runner: _Runner, seed: int
) -> dict[str, Proof | NoPlaces]:
    """The verdicts on layers of few places that were not proven, by a larger image: a grid grows with it, and shows."""
    small = {
        label: tuple(runner.alone[label].shape[2:])
        for label, verdict in verdicts.items()
        if isinstance(verdict, NoPlaces) and 1 < math.prod(runner.alone[label].shape[2:]) < _WIDE**2
    }
    if not small or len(images) > 1:
        return {}
    factor = max(math.ceil(_WIDE / min(grid)) for grid in small.values())
    (image,) = images
    wide = image.repeat(1, 1, *[factor] * (image.ndim - 2))
    try:
        alone = run([wide])
    except Exception:  # of whatever kind: it does run on the image itself, so what it cannot do is a larger one
        return {}
    found: dict[str, Proof | NoPlaces] = {}
    for label, grid in small.items():
        if label in alone and tuple(alone[label].shape[2:]) == grid:
            found[label] = NoPlaces("it has as many entries whatever the size of the image")
    growing = small.keys() & alone.keys() - found.keys()
    if growing:
        proofs = prove(run, [wide], larger=False, at_once=1, seed=seed)
        runner.forwards += proofs.forwards * factor ** (image.ndim - 2)
        proven = {label: proofs.verdicts[label] for label in growing}
        space = tuple(image.shape[2:])
        found |= {label: _shrunk(proof, factor, space) for label, proof in proven.items() if isinstance(proof, Proof)}
    return found


def _shrunk(proof: Proof, factor: int, space: Shape) -> Proof:
    """A proof for an image of size `space` from that for one `factor` times as large."""

    def shrunk(placement: Placement) -> Placement:
        sides = [replace(side, start=side.start / factor, extent=side.extent / factor) for side in placement.sides]
        return Placement(space, tuple(sides))

    rows = [None if row is None else replace(row, placement=shrunk(row.placement)) for row in proof.rows]
    return replace(proof, rows=tuple(rows))
