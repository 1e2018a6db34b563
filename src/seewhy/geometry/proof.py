"""Proof of how layers lie over their input: the model is run on a few changed copies of one of the caller's images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Shaped
from torch import Tensor

from seewhy.geometry.judge import MANY, SILENT, Answers, Lies, NoPlaces, judge
from seewhy.geometry.placement import Placement, Shape
from seewhy.geometry.probes import Probes

# for each image among the inputs a batch of N -> by label what a layer returned, folded: (N * rows, C, *grid)
Run = Callable[[Sequence[Tensor]], Mapping[str, Tensor]]

_ROUNDING = 4  # steps of its precision: a place that changes by less has not changed
_MIXED = 0.01  # of its changes, by which an image alone differs from it in a batch of others if images see each other
_OPEN = 0.2  # agreement after two rounds from which further ones may prove a layer
_ROWS = 16  # per image at most, that are not frames: more are boxes, or windows
_LARGEST = 2**20  # pixels of an image that is larger than the caller's
_SURE = 0.85  # agreement of a few places that is no chance: true grids of 2 x 2 have 0.9
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
    own: whether it holds for this image only, and lies otherwise for one that shows something else.
    """

    rows: tuple[Row | None, ...]
    images_first: bool
    agreement: float
    own: bool = False

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
    rounds: int = 4,
    larger: bool = True,
    at_once: int = 32,
    seed: int = 0,
) -> Proofs:
    """How each layer that `run` returns lies over its input, or that it has no places.

    One forward is of the images alone. Then each of them is changed in turn, in a round of one forward on 22 copies of
    an image (26 of a volume, 16 of a signal): at first on what it shows, then on its mean colour, by turns. Rounds are
    run while layers remain that are not proven but may be; last of all, for those that are not still, some with a
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
        refused = [verdict for verdict in verdicts.values() if isinstance(verdict, NoPlaces)]
        if not number and any(_by_chance(verdict, runner.alone[label]) for label, verdict in verdicts.items()):
            continue
        if not refused or (number and not any(verdict.agreement > _OPEN for verdict in refused)):
            break
    if larger:
        verdicts |= _enlarged(run, images, verdicts, runner, seed)
    return Proofs(verdicts, runner.forwards, runner.mixed)


def _by_chance(verdict: Proof | NoPlaces, folded: Shaped[Tensor, "rows C *grid"]) -> bool:
    """Whether a few places may agree by chance with a grid that they are not, so that one round is not enough."""
    return isinstance(verdict, Proof) and 1 < math.prod(folded.shape[2:]) < MANY and verdict.agreement < _SURE


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
        if not self.mixed:
            try:
                return self._measured(which, copies, self.at_once, blank=blank)
            except _Mixed:
                self.mixed = True
        return self._measured(which, copies, 1, blank=blank)

    def _run(self, which: int, copies: Tensor) -> Mapping[str, Tensor]:
        """The layers for copies of one of the images, the others as they are."""
        made = self.run(
            [
                copies if number == which else image.expand(len(copies), *image.shape[1:])
                for number, image in enumerate(self.images)
            ]
        )
        self.forwards += len(copies)
        return made

    def _measured(self, which: int, copies: Tensor, at_once: int, *, blank: bool) -> dict[str, Answers]:
        """The same in batches of `at_once`. Raises `_Mixed` where the model takes no batch, or mixes its images."""
        ground = self._run(which, copies[:1]) if blank else self.alone
        heard = {label: _Heard(made) for label, made in ground.items() if label in self.alone}
        for start in range(0, len(copies), at_once):
            part = copies[start : start + at_once]
            try:
                made = self._run(which, part)
            except Exception as error:  # of whatever kind: it runs on one image, so what it cannot do is a batch
                if len(part) == 1:
                    raise
                raise _Mixed from error
            if len(part) > 1 and not heard.keys() <= made.keys():  # once for each image perhaps
                raise _Mixed
            heard = {label: one for label, one in heard.items() if label in made}  # some run for some images only
            for label, one in heard.items():
                one.add(made[label], len(part))
        for label, one in heard.items():
            self.images_first[label] = one.images_first
        return {label: one.answers(self.probes[which]) for label, one in heard.items()}


class _Mixed(Exception):
    """A batch is not what its images are one by one."""


class _Heard:
    """How much one layer changes, copy by copy: kept are its places' norms, and of four copies the layer itself."""

    def __init__(self, ground: Shaped[Tensor, "rows C *grid"]) -> None:
        self.ground = ground
        self.images_first = True
        self.first: Tensor | None = (
            None  # the first four copies: the ground, it changed more, less, and by half of both
        )
        self.norms: list[Tensor] = []
        self.apart: list[Tensor] = []

    def add(self, made: Shaped[Tensor, "_ C *grid"], count: int) -> None:
        """The next copies. Raises `_Mixed` if they do not have as many rows each as one alone, or the first differs."""
        if made.shape != (count * len(self.ground), *self.ground.shape[1:]):
            raise _Mixed
        if self.first is None:
            apart = {first: self._by_image(made, first) for first in (True, False)}
            self.images_first = self._off(apart[True]) <= self._off(apart[False])
        copies = self._by_image(made, self.images_first)
        if self.first is None and count > 1:
            largest = float((copies[1:] - copies[:1]).abs().max())
            if self._off(copies) > max(_MIXED * largest, _ROUNDING * _step(self.ground)):
                raise _Mixed
        base = copies[:1] if self.first is None else self.first[:1]
        changes = copies - base
        common = changes.flatten(3).mean(-1).reshape(*changes.shape[:3], *[1] * (changes.ndim - 3))
        self.norms.append(_norms(changes, base).cpu())
        self.apart.append(_norms(changes - common, base).cpu())
        if self.first is None or len(self.first) < 4:
            kept = copies if self.first is None else torch.cat([self.first, copies])
            self.first = kept[:4].clone()

    def _by_image(self, made: Tensor, images_first: bool) -> Shaped[Tensor, "N rows C *grid"]:
        shape = self.ground.shape
        if images_first:
            return made.reshape(-1, *shape)
        return made.reshape(shape[0], -1, *shape[1:]).transpose(0, 1)

    def _off(self, copies: Tensor) -> float:
        return float((copies[0] - self.ground).abs().max())

    def answers(self, probes: Probes) -> Answers:
        norms, apart = torch.cat(self.norms), torch.cat(self.apart)
        tiles = slice(4, 4 + math.prod(probes.counts))
        first = torch.empty(0) if self.first is None else self.first
        more, less, half = (copy.float() for copy in first[1:4] - first[:1])
        bent = (2 * half - more - less).norm() / (more + less).norm().clamp(min=1e-30)
        ramps = torch.cat([norms[1:3], norms[tiles.stop :]]).reshape(1, -1, 2, *norms.shape[1:])
        return Answers(norms[None, tiles], apart[None, tiles], ramps, bent.reshape(1).cpu())


def _step(tensor: Tensor) -> float:
    """What the largest of a layer's values is rounded to."""
    return float(torch.finfo(tensor.dtype).eps * tensor.abs().max())


def _norms(changes: Tensor, base: Tensor) -> Tensor:
    """The norm over channels of what changed at each place, 0 where that is rounding; from (N, rows, C, *grid)."""
    changed, there = (torch.linalg.vector_norm(tensor.float(), dim=2) for tensor in (changes, base))
    return torch.where(changed > _ROUNDING * torch.finfo(base.dtype).eps * there, changed, 0)


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
    sometimes = NoPlaces("it runs for some images only")
    return {label: found.get(label, sometimes) for label in runner.alone}


def _verdict(
    answers: Sequence[Answers], probes: Sequence[Probes], known: Sequence[Sequence[Placement]], images_first: bool
) -> Proof | NoPlaces:
    """From the answers of one layer to each of the images: (draws, tiles, rows, *grid)."""
    count, grid = answers[0].grid[0], answers[0].grid[1:]
    heard = [number for number, one in enumerate(answers) if not one.silent]
    if not heard:
        return SILENT
    for number in heard if count > 1 else []:
        if len(probes[number].space) == 1 + len(grid):
            return _frames(answers[number], probes[number], known[number], number, images_first)
    if count > _ROWS:
        return NoPlaces(f"it has {count} rows per image, which are no images")
    rows: list[Row | None] = []
    agreements = []
    for row in range(count):
        lies: dict[int, Lies] = {}
        for number in heard:
            one = answers[number]
            own = one.of_row(row)
            verdict = judge(own, probes[number], known[number])
            if isinstance(verdict, Lies):
                lies[number] = verdict
                agreements.append(verdict.agreement)
            elif verdict is not SILENT:
                return verdict
        rows.append(Row(tuple(lies), next(iter(lies.values())).placement) if lies else None)
    return Proof(tuple(rows), images_first, min(agreements))


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
    """The verdicts on layers that were not proven, by a larger image: grids grow with it, receptive fields do not."""
    grids = {label: tuple(runner.alone[label].shape[2:]) for label in verdicts}
    open_still = {
        label: grids[label]
        for label, verdict in verdicts.items()
        if isinstance(verdict, NoPlaces) and (verdict.agreement > _OPEN or 1 < math.prod(grids[label]) < _WIDE**2)
    }
    if not open_still or len(images) > 1:
        return {}
    (image,) = images
    factor = max(2, *(math.ceil(_WIDE / min(grid)) for grid in open_still.values()))
    if factor ** (image.ndim - 2) * image[0, 0].numel() > _LARGEST:
        return {}
    wide = image.repeat(1, 1, *[factor] * (image.ndim - 2))
    try:
        alone = run([wide])
    except Exception:  # of whatever kind: it does run on the image itself, so what it cannot do is a larger one
        return {}
    found: dict[str, Proof | NoPlaces] = {}
    for label, grid in open_still.items():
        if label in alone and tuple(alone[label].shape[2:]) == grid:
            found[label] = NoPlaces("it has as many entries whatever the size of the image")
    growing = open_still.keys() & alone.keys() - found.keys()
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
