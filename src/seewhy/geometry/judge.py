"""From how much each place of a layer answered to each change of an image to where its grid lies, or that it has none.

A layer with places answers to a changed tile most where that lies. That is seen after what would hide it is divided
out: how strongly each tile acts, and how easily each place is moved. What attention and pooling tell every place alike
goes with these. What is left is compared with what a grid that lies so or so would answer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy._torch import unwatched
from seewhy.geometry.placement import Placement, Shape, Side
from seewhy.geometry.probes import Probes, centres

_LINES = {1: 32, 2: 12, 3: 7}  # of a grid are looked at along each axis, evenly spaced: a wrong order shows in any
_DEAD = 1e-6  # of the strongest answer: a place that answers less does not answer
_SHARES = (0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 1.0)  # of the side: the receptive fields that are tried
_AGREES, _ALONG = 0.4, 0.3  # least agreement, in all and along each axis; measured: see tests/geometry/test_judge.py
_FEW = 1.2  # more of it per place: two or four places agree easily by chance
MANY = 9  # places, of which what they have in common says little of one
_EQUAL = 1e-6  # agreements that differ by rounding
_SAME = 0.02  # agreements that are no different
_BETTER = 0.04  # agreements of which one is
_WELL = 0.9  # agreement of a layer that is bent as it is: attention to few places draws its ramps to the middle
_FOCUSED = 0.7  # agreement of each place by itself with the place that suits its answers best
_ELSEWHERE = 0.25  # less than that is the agreement of a grid some of whose rows lie elsewhere; of others by 0.15
_LOCAL = 0.05  # of the strongest answer of a place, that it gives to the furthest tile at most
_LINEAR = 0.05  # a layer whose answers to a sum of changes differ by less from the sum of its answers is linear
_FEWEST = 4  # cells that a line is drawn through
_NEAR, _NEAR_BENT = (
    0.04,
    0.12,
)  # of a side, by which a grid may miss the borders of the image and still lie over all of it


@dataclass(frozen=True)
class Answers:
    """How much each place of a layer changed with each change of the image; in one draw of the changes or several.

    apart: the same, less the change that all places have in common. ramps: for changes that grow along each axis, and
    for those that shrink. bent: by what share the change by a sum is not the sum
    of the changes; 0 for a linear layer.
    """

    tiles: Float[Tensor, "draws tiles *grid"]
    apart: Float[Tensor, "draws tiles *grid"]
    ramps: Float[Tensor, "draws axes 2 *grid"]
    bent: Float[Tensor, " draws"]

    @property
    def grid(self) -> Shape:
        return tuple(self.tiles.shape[2:])

    @property
    def silent(self) -> bool:
        """Whether nothing changed at all."""
        return not bool(self.tiles.any())

    def with_more(self, other: Answers) -> Answers:
        names = ("tiles", "apart", "ramps", "bent")
        return Answers(*(torch.cat([getattr(self, name), getattr(other, name)]) for name in names))

    def of_row(self, row: int) -> Answers:
        """Those of one line along the first axis of the grid."""
        return Answers(self.tiles[:, :, row], self.apart[:, :, row], self.ramps[:, :, :, row], self.bent)


@dataclass(frozen=True)
class Lies:
    """A grid that lies over the image as `placement` says; agreement: 0 to 1, of its answers with that.

    exact: the layer is linear in the image, so that start and extent are known to a fraction of a cell.
    """

    placement: Placement
    agreement: float = math.nan
    exact: bool = False


@dataclass(frozen=True)
class NoPlaces:
    """A layer to draw nothing from, and why, in plain words."""

    reason: str
    agreement: float = math.nan


SILENT = NoPlaces("nothing in it changes with the image: it is constant, saturated, or of another input")


def judge(answers: Answers, probes: Probes, known: Sequence[Placement] = ()) -> Lies | NoPlaces:
    """Where the grid lies that answered so, or that it has no places.

    Args:
        answers: of one layer, over a grid with as many axes as the image or fewer.
        probes: what was changed.
        known: how other layers of the same forward lie, which this one may share.
    """
    if len(answers.grid) > len(probes.space):
        return NoPlaces("it has more axes than the image")
    if answers.silent:
        return SILENT
    if math.prod(answers.grid) == 1:
        return Lies(Placement(probes.space, Placement.upright(probes.space).sides[-len(answers.grid) :]))
    if not bool(answers.tiles.isfinite().all()):
        return NoPlaces("it is not finite where the image is changed")
    with unwatched():  # the guard watches what a model does, and not this
        verdict = _judge(answers.tiles, answers, probes, known)
        if not isinstance(verdict, NoPlaces) or math.prod(answers.grid) < MANY:
            return verdict
        apart = _judge(answers.apart, answers, probes, known)
        return verdict if verdict.agreement > apart.agreement and isinstance(apart, NoPlaces) else apart


def _judge(tiles: Tensor, answers: Answers, probes: Probes, known: Sequence[Placement]) -> Lies | NoPlaces:
    table = _Table.of(tiles, answers, probes)
    if table.live.sum() < 2:
        return NoPlaces("only one of its places changes with the image: the rest is constant or saturated")
    found = table.ranked(table.candidates())
    agreement = max(found, key=_first)[0]
    best = next(placement for score, placement in found if score > agreement - _EQUAL)
    shared = table.ranked([placement for placement in known if _alike(placement, best)])
    score, other = max(shared, key=_first, default=(-1.0, best))
    chosen = table.measured(other if score > agreement - _SAME else best)
    focus = table.focus()
    agreement, along = table.agreements(chosen)
    if table.local and focus > _FOCUSED and not table.suits(agreement, along, focus):  # of a part of the image perhaps
        chosen = max(table.ranked([table.along_ramps(placement) for _, placement in found]), key=_first)[1]
        agreement, along = table.agreements(chosen)
    if table.suits(agreement, along, focus):
        return Lies(chosen, agreement, table.linear)
    figures = f"agreement {agreement:.2f}, along each axis {', '.join(f'{score:.2f}' for score in along)}"
    if focus > _FOCUSED:
        return NoPlaces(
            "each of its entries answers to a place of the image, but not in the order of a grid: they are shuffled, "
            f"sorted, dropped or merged ({figures})",
            agreement,
        )
    return NoPlaces(f"its entries answer to the image as a whole, and not each to a place of it ({figures})", agreement)


def _first(pair: tuple[float, Placement]) -> float:
    return pair[0]


def _alike(one: Placement, other: Placement) -> bool:
    return [(side.axis, side.flipped) for side in one.sides] == [(side.axis, side.flipped) for side in other.sides]


@dataclass(frozen=True)
class _Table:
    """Answers by tile and place, with how strongly each tile acts and how easily each place is moved divided out.

    lines: which lines of the grid are in it. live: which of their places answer at all. weights: by how much.
    """

    probes: Probes
    grid: Shape
    lines: list[Tensor]
    live: Tensor
    weights: Float[Tensor, " places"]
    values: Float[Tensor, "tiles places"]
    ramps: Float[Tensor, "axes 2 *grid"]
    local: bool
    linear: bool

    @classmethod
    def of(cls, tiles: Tensor, answers: Answers, probes: Probes) -> _Table:
        lines = [
            torch.linspace(0, cells - 1, min(cells, _LINES[len(answers.grid)])).round().long() for cells in answers.grid
        ]
        tiles = tiles.double()
        for axis, line in enumerate(lines, 2):
            tiles = tiles.index_select(axis, line)
        flat = tiles.flatten(2)
        flat = flat / flat.amax((1, 2), keepdim=True).clamp(min=1e-300)
        live = flat.amax((0, 1)) > _DEAD
        flat = flat[..., live]
        strength = flat.mean((0, 1))
        balanced = torch.stack([_balanced(draw + 1e-9).log() for draw in flat]).mean(0).exp()
        return cls(
            probes,
            answers.grid,
            lines,
            live,
            (strength / strength.quantile(0.9)).clamp(max=1) if bool(live.any()) else strength,
            _balanced(balanced) - 1,
            answers.ramps.double().square().mean(0),
            local=bool(live.any()) and bool((flat.amin(1) / flat.amax(1).clamp(min=_DEAD)).quantile(0.75) < _LOCAL),
            linear=bool((answers.bent < _LINEAR).all()),
        )

    def candidates(self) -> list[Placement]:
        """All of the grid over all of the image, axes in any order and either way."""
        space, count = self.probes.space, len(self.grid)
        return [
            Placement(
                space, tuple(Side(axis, 0.0, float(space[axis]), flip) for axis, flip in zip(axes, flips, strict=True))
            )
            for axes in itertools.permutations(range(len(space)), count)
            for flips in itertools.product((False, True), repeat=count)
        ]

    def agreement(self, placement: Placement) -> float:
        """The correlation with the answers of such a grid, with the receptive fields that suit best."""
        return self._closest([placement])[0][0]

    def ranked(self, placements: Sequence[Placement]) -> list[tuple[float, Placement]]:
        """The same for several, each with its agreement, in their order."""
        scores = (score for score, _ in self._closest(placements))
        return list(zip(scores, placements, strict=True))

    def agreements(self, placement: Placement) -> tuple[float, list[float]]:
        """That, and the same along each axis of the grid, of the mean over the tiles that lie level on it."""
        ((score, expected),) = self._closest([placement])
        along = []
        for side, cells in zip(placement.sides, self.grid, strict=True):
            if cells > 1:
                shaped = (
                    table.reshape(*self.probes.counts, -1).movedim(side.axis, 0) for table in (self.values, expected)
                )
                one, other = (table.reshape(len(table), -1, table.shape[-1]).mean(1) for table in shaped)
                along.append(float(_correlation(one, other, self.weights)))
        return score, along

    def suits(self, agreement: float, along: Sequence[float], focus: float) -> bool:
        """Whether a grid agrees well enough, and not much less than its places do one by one: then some lie elsewhere.

        Args:
            agreement, along: of the grid.
            focus: of its places.
        """
        places = math.prod(self.grid)
        more = _FEW / places
        in_order = places < MANY or focus < _FOCUSED or focus - agreement < _ELSEWHERE
        return agreement > _AGREES + more and min(along) > _ALONG + more and in_order

    def _closest(self, placements: Sequence[Placement]) -> list[tuple[float, Tensor]]:
        """For each placement the best correlation over all receptive fields, and the values that it is with."""
        if not placements:
            return []
        tables = torch.stack([self._expected(placement, share) for placement in placements for share in _SHARES])
        tables = _balanced(tables + 1e-3) - 1
        scores = _correlation(self.values, tables, self.weights).reshape(len(placements), -1)
        best = scores.argmax(1).tolist()
        found = tables.reshape(*scores.shape, *tables.shape[1:])
        return [(float(scores[number, share]), found[number, share]) for number, share in enumerate(best)]

    def _expected(self, placement: Placement, share: float) -> Float[Tensor, "tiles places"]:
        """What a grid that lies so answers, with Gaussian receptive fields of `share` of the side."""
        by_axis = {side.axis: number for number, side in enumerate(placement.sides)}
        table = torch.ones(1, *[1] * len(self.grid), dtype=torch.float64)
        for axis, window in enumerate(self.probes.windows):
            shape = [len(window), *[1] * len(self.grid)]
            seen = torch.ones(len(window), 1, dtype=torch.float64)  # an axis that the grid has lost
            if axis in by_axis:
                number = by_axis[axis]
                side, cells = placement.sides[number], self.grid[number]
                spread = math.hypot(share * self.probes.space[axis], side.extent / cells / 12**0.5)
                seen = _seen(window, side.centres(cells)[self.lines[number]], spread)
                shape[1 + number] = len(self.lines[number])
            table = (table[:, None] * seen.reshape(shape)[None]).flatten(0, 1)
        return table.expand(-1, *map(len, self.lines)).flatten(1)[:, self.live]

    def focus(self) -> float:
        """How well the answers of each place suit some place of the image, whichever that is: a mean correlation."""
        suits = torch.full_like(self.weights, -1)
        for share in _SHARES:
            seen = torch.ones(1, 1, dtype=torch.float64)
            for window, pixels in zip(self.probes.windows, self.probes.space, strict=True):
                along = _seen(window, centres(8) * pixels / 8, share * pixels)
                seen = torch.einsum("tp,ks->tkps", seen, along).flatten(2).flatten(0, 1)
            one, other = (table - table.mean(0) for table in (seen, self.values))
            norms = one.norm(dim=0)[:, None] * other.norm(dim=0)
            suits = suits.maximum((one.T @ other / norms.clamp(min=1e-30)).amax(0))
        return float((suits * self.weights).sum() / self.weights.sum())

    def measured(self, placement: Placement) -> Placement:
        """The same with start and extent as the ramps show them, where these are believed and tell another."""
        if not self.local:
            return placement
        found = self.along_ramps(placement)
        before, after = self.agreement(placement), self.agreement(found)
        if self.linear:
            return found
        shown = after > before + _BETTER or 1 - after < (1 - before) / 2
        return found if shown and before < _WELL else placement

    def along_ramps(self, placement: Placement) -> Placement:
        """The same with start and extent as the ramps show them."""
        return Placement(placement.space, tuple(itertools.starmap(self._side, enumerate(placement.sides))))

    def _side(self, number: int, side: Side) -> Side:
        """The same side, or one that differs from it by more than a cell.

        The cells of a linear layer look, along the axis, at the share rising^2 / (rising^2 + falling^2) of it: what
        changes at random adds up by its variance. Others bend that, and are believed where they differ by a lot.
        """
        pixels, cells = self.probes.space[side.axis], self.grid[number]
        rising, falling = self.ramps[side.axis].movedim(1 + number, 1).reshape(2, cells, -1).sum(2)
        heard = rising + falling
        inner = (heard > heard.median() / 4).nonzero().flatten()
        inner = inner[len(inner) // 8 : len(inner) - len(inner) // 8]  # the outer ones see less on one side
        if len(inner) < _FEWEST:
            return side
        start, slope = _line((inner.double() + 0.5) / cells, pixels * rising[inner] / heard[inner])
        low, extent = (start + slope, -slope) if side.flipped else (start, slope)
        off = max(abs(low - side.start), abs(low + extent - side.start - side.extent))
        near = max((_NEAR if self.linear else _NEAR_BENT) * pixels, side.extent / cells)
        return Side(side.axis, low, extent, side.flipped) if extent > 0 and off > near else side


def _line(at: Float[Tensor, " N"], values: Float[Tensor, " N"]) -> tuple[float, float]:
    """Intercept and slope of the straight line nearest to points."""
    x, y = at - at.mean(), values - values.mean()
    slope = float((x * y).sum() / x.square().sum())
    return float(values.mean() - slope * at.mean()), slope


def _balanced(table: Float[Tensor, "*many tiles places"]) -> Float[Tensor, "*many tiles places"]:
    """The table with rows and columns scaled until each has the mean 1 (Sinkhorn and Knopp 1967)."""
    for _ in range(20):
        table = table / table.mean(-1, keepdim=True)
        table = table / table.mean(-2, keepdim=True)
    return table


def _seen(
    windows: Float[Tensor, "count pixels"], at: Float[Tensor, " cells"], spread: float
) -> Float[Tensor, "count cells"]:
    """How much of each window a Gaussian receptive field around each place sees."""
    reach = ((centres(windows.shape[1]) - at[:, None]) / spread).square()
    weights = (-(reach - reach.amin(1, keepdim=True)) / 2).exp()
    return windows @ (weights / weights.sum(1, keepdim=True)).T


def _correlation(
    one: Float[Tensor, "rows columns"], other: Float[Tensor, "*many rows columns"], weights: Float[Tensor, " columns"]
) -> Float[Tensor, "*many"]:
    """Over rows and columns, each column by its weight; for each of many others."""
    shares = weights / weights.sum() / one.shape[0]
    one, other = (table - (table * shares).sum((-2, -1), keepdim=True) for table in (one, other))
    both = (one.square() * shares).sum((-2, -1)) * (other.square() * shares).sum((-2, -1))
    return (one * other * shares).sum((-2, -1)) / both.sqrt().clamp(min=1e-30)
