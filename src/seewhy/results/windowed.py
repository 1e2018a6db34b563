"""Explanations of volumes and pictures that are larger than a model takes: window by window, blended."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import InputError, InputTypeError
from seewhy.results.explanation import Explanation
from seewhy.targets import Region

Pool = Literal["mean", "max"]
Explain = Callable[[Tensor, Any], Mapping[str, Explanation]]

_SPREAD = 0.125  # of a window's side, the deviation of its Gaussian: that of nnU-Net and MONAI
_LEAST = 1e-3  # a place's weight is at least this, so that a lone window's corners keep theirs


@dataclass(frozen=True)
class Windows:
    """Windows that slide over an image.

    Attributes:
        size: of each along every axis, in pixels or voxels; an image that is smaller is padded with zeros.
        overlap: the share of a window that the next one covers again.
        gaussian: whether places count more in the middle of a window; else all count alike.
        pool: how the windows' class scores become the image's: their mean, or the largest.
    """

    size: tuple[int, ...]
    overlap: float = 0.5
    gaussian: bool = True
    pool: Pool = "mean"

    @classmethod
    def of(cls, window: Any, overlap: float | None = None, pool: Pool = "mean") -> Windows:
        """Windows as a caller says them: a size, or an object of MONAI's that infers by windows.

        Raises:
            InputError: for sizes below 1, an overlap out of [0, 1), or another pool.
            InputTypeError: for anything else.
        """
        gaussian = True
        if hasattr(window, "roi_size") and hasattr(window, "overlap"):  # MONAI's SlidingWindowInferer and its kin
            overlap = window.overlap if overlap is None else overlap
            gaussian = str(getattr(window.mode, "value", window.mode)) == "gaussian"
            window = window.roi_size
        sides = (window,) if isinstance(window, int) else window
        share = 0.5 if overlap is None else max(overlap) if isinstance(overlap, Sequence) else overlap
        if not isinstance(sides, Sequence) or not all(isinstance(side, int) for side in sides):
            raise InputTypeError(
                "this is no window.",
                got=type(window).__name__,
                expected="a side, a size such as (96, 96, 96), or a SlidingWindowInferer of MONAI's",
            )
        if min(sides, default=0) < 1 or not 0 <= share < 1 or pool not in ("mean", "max"):
            raise InputError(
                "these windows do not cover anything.",
                got=f"window={tuple(sides)}, overlap={share}, pool={pool!r}",
                expected='sides of 1 or more, an overlap in [0, 1), a pool "mean" or "max"',
            )
        return cls(tuple(sides), float(share), gaussian, pool)

    def over(self, space: tuple[int, ...]) -> tuple[int, ...]:
        """The size of a window over images of this size."""
        sides = self.size * len(space) if len(self.size) == 1 else self.size
        if len(sides) != len(space):
            raise InputError("window and images differ in dimensions.", got=f"{self.size} over images of size {space}")
        return sides

    def starts(self, space: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Where windows begin, as few as cover images of this size; the last ones end where the image does."""
        lines = []
        for side, pixels in zip(self.over(space), space, strict=True):
            step, last = max(1, int(side * (1 - self.overlap))), max(0, pixels - side)
            lines.append([min(start, last) for start in range(0, last + step, step)])
        return itertools.product(*(sorted(set(line)) for line in lines))

    def weights(self, space: tuple[int, ...]) -> Float[Tensor, "*window"]:
        """How much each place of a window counts."""
        sides = self.over(space)
        if not self.gaussian:
            return torch.ones(sides)
        lines = [(-(((torch.arange(side) - (side - 1) / 2) / (_SPREAD * side)) ** 2) / 2).exp() for side in sides]
        weights = torch.ones(())
        for line in lines:
            weights = weights[..., None] * line
        return weights.clamp(min=_LEAST)


def explained(
    windows: Windows,
    images: Float[Tensor, "B C *space"],
    target: Any,
    explain: Explain,
    class_scores: Callable[[Tensor], Float[Tensor, "B K"]],
) -> dict[str, Explanation]:
    """Explanations of whole images, by method, from those of windows. One window at a time is in memory.

    Maps are signed and of the images' size: at each place the weighted mean of the windows' that cover it; with the
    pool "max" only the window of each image's largest score counts. Of a `Region` with a mask, a window's score is that
    of the part of the mask that lies in it, by its weight in the blended output, and so is its map: both add up to what
    the whole stitched output gives.

    Args:
        windows: where they lie and how they are pooled.
        images: may be mapped from a file.
        target: as for `explain`; None is the class of the highest pooled score.
        explain: explains a window of each image.
        class_scores: of a window of each image.

    Raises:
        InputError: where a mask does not fit the images.
    """
    space = tuple(images.shape[2:])
    sides, places = windows.over(space), list(windows.starts(space))
    weights = windows.weights(space)
    if target is None:
        target = _predicted(class_scores(_window(images, start, sides)) for start in places)(windows.pool)
    masked = isinstance(target, Region) and target.mask is not None
    cover = torch.zeros(space)
    if masked:
        for start in places:
            _part(cover, start, sides).add_(_cut(weights, start, sides, space))
    found: dict[str, _Blend] = {}
    for start in places:
        asked, shares = target, torch.ones(len(images))
        if masked:
            share = _mask(target.mask, images, start, sides) * _padded(
                _cut(weights, start, sides, space) / _part(cover, start, sides), sides
            )
            shares = share.expand(len(images), *sides).flatten(1).sum(1)
            if not bool(shares.any()):
                continue
            empty = (shares == 0).reshape(-1, *[1] * len(sides))
            asked = replace(target, mask=torch.where(empty, 1.0, share))  # of such an image this window does not count
        for name, explanation in explain(_window(images, start, sides), asked).items():
            blend = found.setdefault(name, _Blend(explanation, space))
            blend.add(explanation, start, sides, weights, shares, masked=masked, largest=windows.pool == "max")
    return {
        name: blend.explanation(masked=masked, pool=windows.pool, count=len(places)) for name, blend in found.items()
    }


class _Blend:
    """What the windows so far make of one method's map."""

    def __init__(self, like: Explanation, space: tuple[int, ...]) -> None:
        self.like, self.space = like, space
        self.total = torch.zeros(*like.scores.shape, *space)
        self.weight = torch.zeros(space)
        self.scores: list[Tensor] = []
        self.shares: list[Tensor] = []
        self.best = torch.full(like.scores.shape, -torch.inf)

    def add(
        self,
        explanation: Explanation,
        start: tuple[int, ...],
        sides: tuple[int, ...],
        weights: Tensor,
        shares: Tensor,
        *,
        masked: bool,
        largest: bool,
    ) -> None:
        drawn, score = explanation.scaled("none", size=sides).detach().cpu(), explanation.scores.detach().cpu().float()
        drawn = _cut(drawn, start, sides, self.space)
        ones = [1] * len(sides)
        shares = shares.reshape(-1, *[1] * (score.ndim - 1)).expand_as(score)
        self.scores.append(score)
        self.shares.append(shares)
        total = _part(self.total, start, sides)
        if masked:
            total.add_(drawn * shares.reshape(*score.shape, *ones))
        elif largest:
            better = score > self.best
            self.best = torch.where(better, score, self.best)
            self.total[better] = 0
            total.copy_(torch.where(better.reshape(*score.shape, *ones), drawn, total))
        else:
            counted = _cut(weights, start, sides, self.space)
            total.add_(drawn * counted)
            _part(self.weight, start, sides).add_(counted)

    def explanation(self, *, masked: bool, pool: Pool, count: int) -> Explanation:
        scores, shares = torch.stack(self.scores), torch.stack(self.shares)
        pooled = scores.amax(0) if pool == "max" and not masked else (scores * shares).sum(0) / shares.sum(0)
        maps = self.total
        if masked:
            maps = maps / shares.sum(0).reshape(*pooled.shape, *[1] * len(self.space))
        elif pool == "mean":
            maps = maps / self.weight
        how = "added up" if masked else "blended" if pool == "mean" else "the one of the largest score"
        note = f"of {count} windows of {' x '.join(map(str, self.like.size))}, {how}; in each {self.like.note}"
        return replace(
            self.like, maps={" + ".join(self.like.layers): maps}, scores=pooled, size=self.space, outputs=None,
            probabilities=None, placements={}, extents=None, fuse="mean", note=note, origin=None,
        )  # fmt: skip


def _predicted(scores: Iterator[Tensor]) -> Callable[[Pool], Tensor]:
    every = torch.stack(list(scores))
    return lambda pool: (every.amax(0) if pool == "max" else every.mean(0)).argmax(1)


def _slices(start: Sequence[int], sides: Sequence[int]) -> tuple[Any, ...]:
    return (..., *(slice(first, first + side) for first, side in zip(start, sides, strict=True)))


def _part(whole: Tensor, start: Sequence[int], sides: Sequence[int]) -> Tensor:
    """The part of a tensor (..., *space) that a window covers, which ends where the tensor does."""
    return whole[_slices(start, sides)]


def _cut(window: Tensor, start: Sequence[int], sides: Sequence[int], space: Sequence[int]) -> Tensor:
    """The part of a window (..., *sides) that lies on the image."""
    inside = [min(side, pixels - first) for first, side, pixels in zip(start, sides, space, strict=True)]
    return _part(window, [0] * len(inside), inside)


def _padded(part: Tensor, sides: Sequence[int]) -> Tensor:
    missing = [side - have for side, have in zip(sides, part.shape[-len(sides) :], strict=True)]
    return F.pad(part, [amount for side in reversed(missing) for amount in (0, side)])


def _window(images: Tensor, start: Sequence[int], sides: Sequence[int]) -> Tensor:
    return _padded(_part(images, start, sides), sides)


def _mask(mask: Any, images: Tensor, start: Sequence[int], sides: Sequence[int]) -> Tensor:
    """The part of a region's mask in a window, (*sides) or (B, *sides)."""
    given = torch.as_tensor(mask).float()
    if tuple(given.shape[-len(sides) :]) != tuple(images.shape[2:]) or given.ndim > len(sides) + 1:
        raise InputError(
            "the mask does not fit the images.",
            got=f"shape {tuple(given.shape)} for images of size {tuple(images.shape[2:])}",
            expected="(*size), or (B, *size)",
        )
    return _window(given, start, sides)
