"""Proof of how a layer lies over the input: what a few changed copies of an image change in it.

Each tile of the image is changed in a copy of its own, and four more copies are changed everywhere, by noise that grows
or fades along one axis. A layer with places answers to a tile where that tile lies; how much it answers to growing
against fading noise says how far along the axis each of its places looks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.geometry.placement import Placement, Shape, Side

Run = Callable[[Tensor], Mapping[str, Tensor]]  # changed images (N, C, *space) -> by label the folded (N, C, *grid)

_TILES = {1: (12,), 2: (4, 4), 3: (2, 3, 3)}  # along each axis, by the number of axes
_SHARES = (0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 1.0)  # blurs of the receptive field that are tried, of the side
_LINES = 12  # of a grid are looked at along each axis, evenly spaced: a wrong order shows in any of them
_DEAD = 1e-6  # of the strongest answer: a place that answers less does not answer
_ROUNDS = 2
_FEWEST = 4  # places along an axis that a line is drawn through
_TOLERANCE = 0.04  # of a side, by which a grid may miss the input's borders and still lie over all of it
_AGREES, _AGREES_ALONG, _SURELY = 0.4, 0.3, 0.5  # correlation with what a grid that lies so would answer
_DEVIATIONS = 4.5  # of a random order of the places, that it is better by
_FOCUSED = 0.7  # correlation of each place's answers with those of the place that it suits best
_MARGIN = 0.02  # of agreement, that is no difference
_BENT = 0.12  # the same where the layer is not linear in the image


@dataclass(frozen=True)
class NoPlaces:
    """A layer to draw nothing from, and why, in plain words."""

    reason: str


@dataclass(frozen=True)
class Probes:
    """Where the copies of an image of size `space` are changed: one tile each, and along each axis up and down.

    The tiles have soft edges, and add up to the whole image.
    """

    space: Shape
    counts: Shape

    @classmethod
    def of(cls, space: Shape) -> Probes:
        return cls(space, tuple(min(pair) for pair in zip(_TILES[len(space)], space, strict=True)))

    @property
    def windows(self) -> list[Float[Tensor, "count pixels"]]:
        """Along each axis how much each of its tiles covers each pixel."""
        return [_windows(pixels, count) for pixels, count in zip(self.space, self.counts, strict=True)]

    @property
    def tiles(self) -> Float[Tensor, "tiles *space"]:
        masks = torch.ones(1, dtype=torch.float64)
        for window in self.windows:
            masks = torch.einsum("k...,ip->ki...p", masks, window).flatten(0, 1)
        return masks

    @property
    def ramps(self) -> Float[Tensor, "axes 2 *space"]:
        """The squares rise or fall evenly along an axis, as the variance of noise does that they are factors of."""
        found = []
        for axis, pixels in enumerate(self.space):
            rising = _centres(pixels) / pixels
            shape = [pixels if axis == other else 1 for other in range(len(self.space))]
            found += [share.sqrt().reshape(shape).expand(self.space) for share in (rising, 1 - rising)]
        return torch.stack(found).reshape(-1, 2, *self.space)

    def copies(
        self, image: Float[Tensor, "C *space"], draw: torch.Generator, *, blank: bool
    ) -> Float[Tensor, "N C *space"]:
        """The image, then its copies with one tile changed each, then those changed along each axis, up and down.

        blank: all of it on the image's mean colour instead. What is put in are the image's own colours, at random.
        """
        flat = image.flatten(1)
        mean = flat.mean(1).reshape(-1, *[1] * len(self.space))
        ground = mean.expand_as(image) if blank else image
        tiles, ramps = (masks[:, None].to(image) for masks in (self.tiles, self.ramps.flatten(0, 1)))
        other = torch.stack([_redrawn(image, draw) for _ in tiles])
        noise = torch.stack([_redrawn(image, draw) - mean for _ in self.space]).repeat_interleave(2, 0)
        both = ground + noise[:1] * (ramps[:1] + ramps[1:2])
        return torch.cat([ground[None], ground + (other - ground) * tiles, ground + noise * ramps, both])


@dataclass(frozen=True)
class Responses:
    """How much each place of a layer answered: to each tile, in one or more draws; to noise along each axis.

    bent: by what share the answer to the sum of two changes is not the sum of the answers: 0 for a linear layer.
    """

    tiles: Float[Tensor, "draws tiles *grid"]
    ramps: Float[Tensor, "draws axes 2 *grid"]
    bent: Float[Tensor, " draws"]


def _centres(pixels: int) -> Float[Tensor, " pixels"]:
    return torch.arange(pixels, dtype=torch.float64) + 0.5


def _windows(pixels: int, count: int) -> Float[Tensor, "count pixels"]:
    edges = torch.linspace(0, pixels, count + 1, dtype=torch.float64)[1:-1]
    soft = max(pixels / count / 4, 1.0)
    steps = ((_centres(pixels) - edges[:, None]) / soft + 0.5).clamp(0, 1)
    ends = torch.ones(1, pixels, dtype=torch.float64)
    steps = torch.cat([ends, steps, 0 * ends])
    return steps[:-1] - steps[1:]


def _redrawn(image: Float[Tensor, "C *space"], draw: torch.Generator) -> Float[Tensor, "C *space"]:
    """Noise of the image's own colours, half of it fine and half in blocks, with its mean and variance.

    Of an image of a single colour it is normal noise around that.
    """
    space, colours = image.shape[1:], image.flatten(1)
    mean = colours.mean(1, keepdim=True)
    spread = (colours - mean).square().mean().sqrt()
    if not spread > 1e-6 * colours.abs().max():
        scale = float(colours.abs().max()) or 1.0
        colours = mean + scale * torch.randn(colours.shape, generator=draw).to(image)

    def drawn(block: int) -> Tensor:
        coarse = [-(-pixels // block) for pixels in space]
        places = torch.randint(colours.shape[1], (math.prod(coarse),), generator=draw).to(image.device)
        noise = (colours[:, places] - mean).reshape(-1, *coarse)
        for axis, pixels in enumerate(space, 1):
            noise = noise.repeat_interleave(block, axis).narrow(axis, 0, pixels)
        return noise

    mixed = (drawn(1) + drawn(max(2, round(max(space) / 16)))) / 2**0.5
    return mixed + mean.reshape(-1, *[1] * len(space))


def prove(
    run: Run, image: Float[Tensor, "1 C *space"], *, rounds: int = _ROUNDS, seed: int = 0
) -> dict[str, Placement | NoPlaces]:
    """How each layer that `run` returns lies over the image, or that it has no places.

    The first round changes the image, the second its mean colour, and so on by turns, until every layer is proven; a
    round is one forward of a copy for each tile (16 of an image), two for each axis, and one more.

    Args:
        run: changed images (N, C, *space) -> by label what takes part in the proof, folded to (N, C, *grid). An early
            layer beside the ones in question tells how a model crops, pads or zooms; a late one shows that less well.
        image: one of the caller's own.
        rounds: at most so many.
        seed: of the noise.

    Returns:
        By label the placement of the grid, or why there is none.
    """
    probes = Probes.of(tuple(image.shape[2:]))
    draw = torch.Generator().manual_seed(seed)
    seen: dict[str, list[Responses]] = {}
    verdicts: dict[str, Placement | NoPlaces] = {}
    for number in range(rounds):
        made = run(probes.copies(image[0], draw, blank=bool(number % 2)))
        for label, folded in made.items():
            seen.setdefault(label, []).append(_responses(folded, probes))
        together = {
            label: Responses(*(torch.cat([getattr(one, name) for one in found]) for name in ("tiles", "ramps", "bent")))
            for label, found in seen.items()
        }
        verdicts = judge_all(together, probes)
        if all(isinstance(verdict, Placement) for verdict in verdicts.values()):
            break
    return verdicts


def _responses(folded: Float[Tensor, "N C *grid"], probes: Probes) -> Responses:
    """The norm over channels of what changed at each place."""
    changes, count = (folded[1:] - folded[:1]).double().cpu(), math.prod(probes.counts)
    size = torch.linalg.vector_norm(changes, dim=1)
    rising, falling, both = changes[count], changes[count + 1], changes[-1]
    bent = (both - rising - falling).norm() / both.norm().clamp(min=1e-300)
    return Responses(size[None, :count], size[count:-1].reshape(1, -1, 2, *size.shape[1:]), bent[None])


def judge_all(responses: Mapping[str, Responses], probes: Probes) -> dict[str, Placement | NoPlaces]:
    """The verdict on each layer, the finest first: where a late one may lie is taken from those before it."""
    known: list[Placement] = []
    verdicts: dict[str, Placement | NoPlaces] = {}
    for label in sorted(responses, key=lambda label: -math.prod(responses[label].tiles.shape[2:])):
        verdicts[label] = verdict = judge(responses[label], probes, known)
        if isinstance(verdict, Placement) and verdict not in known:
            known.append(verdict)
    return {label: verdicts[label] for label in responses}


def judge(responses: Responses, probes: Probes, known: Sequence[Placement] = ()) -> Placement | NoPlaces:
    """Where the grid lies that answered so, or that it has no places.

    Args:
        responses: of one layer.
        probes: what was changed.
        known: placements of other layers of the same forward, which this one may share.
    """
    grid = tuple(responses.tiles.shape[2:])
    if math.prod(grid) == 1:
        return Placement.upright(probes.space)
    fitted = Fitted.of(responses, probes)
    if fitted is None:
        return NoPlaces("nothing in it changes when the image does: it is constant, saturated, or of another input")
    found = [(fitted.agreement(placement), placement) for placement in fitted.candidates()]
    agreement, best = max(found, key=lambda entry: entry[0])
    before = [(fitted.agreement(placement), placement) for placement in known if _alike(placement, best)]
    score, chosen = max(before, key=lambda entry: entry[0], default=(-1.0, best))
    chosen = chosen if score > agreement - _MARGIN else best
    own = fitted.own(chosen)
    if own is not None:
        chosen = own
    score, axes, deviations = fitted.scores(chosen)
    if score > _AGREES and min(axes) > _AGREES_ALONG and (deviations > _DEVIATIONS or score > _SURELY):
        return chosen
    figures = f"agreement {score:.2f}, along each axis {', '.join(f'{axis:.2f}' for axis in axes)}"
    if fitted.focus() > _FOCUSED:
        return NoPlaces(
            "each of its entries answers to a place of the image, but not in the order of a grid: they are shuffled, "
            f"sorted, dropped or merged ({figures})"
        )
    return NoPlaces(f"its entries answer to the image as a whole, and not each to a place of it ({figures})")


def _alike(one: Placement, other: Placement) -> bool:
    return [(side.axis, side.flipped) for side in one.sides] == [(side.axis, side.flipped) for side in other.sides]


@dataclass(frozen=True)
class Fitted:
    """Responses as a table (tiles, places), with how strongly each tile acts and each place reacts divided out."""

    probes: Probes
    grid: Shape
    lines: list[Tensor]
    live: Tensor
    weights: Float[Tensor, " places"]
    table: Float[Tensor, "tiles places"]
    ramps: Float[Tensor, "axes 2 *grid"]
    local: bool
    linear: bool

    @classmethod
    def of(cls, responses: Responses, probes: Probes) -> Fitted | None:
        grid = tuple(responses.tiles.shape[2:])
        lines = [torch.linspace(0, cells - 1, min(cells, _LINES)).round().long() for cells in grid]
        tiles = responses.tiles
        for axis, line in enumerate(lines, 2):
            tiles = tiles.index_select(axis, line)
        flat = tiles.flatten(2)
        strongest = flat.amax((1, 2), keepdim=True)
        if not bool((strongest > 0).all()) or not bool(flat.isfinite().all()):
            return None
        flat = flat / strongest
        live = flat.amax((0, 1)) > _DEAD
        if int(live.sum()) < 2:
            return None
        flat = flat[..., live]
        strength = flat.mean((0, 1))
        balanced = torch.stack([_balanced(draw + 1e-9).log() for draw in flat]).mean(0).exp()
        floor = (flat.amin(1) / flat.amax(1)).quantile(0.75)
        return cls(
            probes, grid, lines, live, (strength / strength.quantile(0.9)).clamp(max=1), _balanced(balanced) - 1,
            responses.ramps.square().mean(0), bool(floor < 0.05), bool((responses.bent < 0.01).all()),
        )  # fmt: skip

    def candidates(self) -> Iterator[Placement]:
        """All of the grid over all of the input, axes in any order and either way."""
        space = self.probes.space
        for axes in itertools.permutations(range(len(space)), len(self.grid)):
            for flips in itertools.product((False, True), repeat=len(self.grid)):
                yield Placement(
                    space,
                    tuple(Side(axis, 0.0, float(space[axis]), flip) for axis, flip in zip(axes, flips, strict=True)),
                )

    def own(self, placement: Placement) -> Placement | None:
        """Start and extent as noise along each axis shows them, where they differ from those of `placement`."""
        if not self.local:
            return None
        sides = tuple(self._side(side, number) or side for number, side in enumerate(placement.sides))
        found = Placement(placement.space, sides)
        better = self.agreement(found) - self.agreement(placement)
        return found if found != placement and (self.linear or better > _MARGIN) else None

    def _side(self, side: Side, number: int) -> Side | None:
        """The same side by what answered to rising and falling noise, None where it shows no other.

        The places of a linear layer look, along the axis, at the share rising^2 / (rising^2 + falling^2) of it. Others
        bend that, and are believed only where they differ a lot.
        """
        pixels, cells = self.probes.space[side.axis], self.grid[number]
        rising, falling = self.ramps[side.axis].movedim(1 + number, 1).reshape(2, cells, -1).sum(2)
        heard = rising + falling
        inner = (heard > heard.median() / 4).nonzero().flatten()
        inner = inner[len(inner) // 8 : len(inner) - len(inner) // 8]
        if len(inner) < _FEWEST:
            return None
        at = (inner.double() + 0.5) / cells
        start, slope = _line(at, pixels * rising[inner] / heard[inner])
        low, extent = (start + slope, -slope) if side.flipped else (start, slope)
        off = max(abs(low - side.start), abs(low + extent - side.start - side.extent))
        if extent <= 0 or off <= max((_TOLERANCE if self.linear else _BENT) * pixels, side.extent / cells):
            return None
        return Side(side.axis, low, extent, side.flipped)

    def expected(self, placement: Placement, share: float) -> Float[Tensor, "tiles places"]:
        """The table of a layer that lies so, with receptive fields of `share` of the side around each place."""
        factors = []
        by_axis = {side.axis: (number, side) for number, side in enumerate(placement.sides)}
        for axis, window in enumerate(self.probes.windows):
            shape = [1] * len(self.grid)
            if axis not in by_axis:
                factors.append(torch.full((len(window), *shape), 1 / len(window), dtype=torch.float64))
                continue
            number, side = by_axis[axis]
            centres = side.centres(self.grid[number])[self.lines[number]]
            spread = math.hypot(share * self.probes.space[axis], side.extent / self.grid[number] / 12**0.5)
            seen = _blurred(window, centres, spread)
            shape[number] = len(centres)
            factors.append(seen.reshape(len(window), *shape))
        table = factors[0]
        for factor in factors[1:]:
            table = (table[:, None] * factor[None]).flatten(0, 1)
        table = table.expand(-1, *map(len, self.lines)).flatten(1)[:, self.live]
        return _balanced(table + 1e-3) - 1

    def focus(self) -> float:
        """How well each place's answers suit some place of the image, whichever it is: a correlation."""
        suits = torch.full_like(self.weights, -1)
        for share in _SHARES:
            seen = torch.ones(1, 1, dtype=torch.float64)
            for window, pixels in zip(self.probes.windows, self.probes.space, strict=True):
                centres = pixels * (torch.arange(8, dtype=torch.float64) + 0.5) / 8
                seen = (
                    (seen[:, None, :, None] * _blurred(window, centres, share * pixels)[None, :, None])
                    .flatten(2)
                    .flatten(0, 1)
                )
            one, other = (table - table.mean(0) for table in (seen, self.table))
            norms = one.norm(dim=0)[:, None] * other.norm(dim=0)
            suits = suits.maximum((one.T @ other / norms.clamp(min=1e-30)).amax(0))
        return float((suits * self.weights).sum() / self.weights.sum())

    def _best(self, placement: Placement) -> tuple[float, Tensor]:
        found = [self.expected(placement, share) for share in _SHARES]
        scores = [float(_correlation(self.table, table, self.weights)) for table in found]
        best = max(range(len(scores)), key=scores.__getitem__)
        return scores[best], found[best]

    def agreement(self, placement: Placement) -> float:
        return self._best(placement)[0]

    def scores(self, placement: Placement) -> tuple[float, list[float], float]:
        """Agreement in all, that along each axis of the grid, and by how many deviations of a random order it is so."""
        score, expected = self._best(placement)
        mixed = (self.table * self.weights) @ expected.T
        product = (self.table * self.weights).T @ expected
        deviations = float(mixed.trace() / (product.norm() / max(1, product.shape[0] - 1) ** 0.5))
        axes = []
        for number, side in enumerate(placement.sides):
            if self.grid[number] == 1:
                continue
            one, other = (
                table.reshape(*self.probes.counts, -1).movedim(side.axis, 0).flatten(1, -2).mean(1)
                if len(self.probes.counts) > 1
                else table
                for table in (self.table, expected)
            )
            axes.append(float(_correlation(one, other, self.weights)))
        return score, axes, deviations


def _line(at: Tensor, values: Tensor) -> tuple[float, float]:
    """Intercept and slope of the line through points."""
    design = torch.stack([torch.ones_like(at), at], 1)
    start, slope = torch.linalg.lstsq(design, values[:, None]).solution.flatten().tolist()
    return start, slope


def _balanced(table: Float[Tensor, "tiles places"]) -> Float[Tensor, "tiles places"]:
    """The table scaled by rows and columns until each of them has the mean 1 (Sinkhorn and Knopp 1967)."""
    for _ in range(20):
        table = table / table.mean(1, keepdim=True)
        table = table / table.mean(0, keepdim=True)
    return table


def _blurred(windows: Float[Tensor, "count pixels"], centres: Float[Tensor, " cells"], spread: float) -> Tensor:
    """How much of each window a Gaussian receptive field at each centre sees: (count, cells)."""
    pixels = windows.shape[1]
    reach = (_centres(pixels) - centres[:, None]) / spread
    weights = (-0.5 * (reach.square() - reach.square().amin(1, keepdim=True))).exp()
    return windows @ (weights / weights.sum(1, keepdim=True)).T


def _correlation(one: Tensor, other: Tensor, weights: Tensor) -> Tensor:
    """Over rows and columns, each column by its weight."""
    shares = weights / weights.sum() / one.shape[0]
    one, other = (table - (table * shares).sum() for table in (one, other))
    both = (one.square() * shares).sum() * (other.square() * shares).sum()
    return (one * other * shares).sum() / both.sqrt().clamp(min=1e-30)
