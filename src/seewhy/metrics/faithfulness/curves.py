"""How the score changes while pixels come and go in the order of a map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from seewhy.errors import InputError
from seewhy.metrics._inputs import Images, Maps, Score, at_least_one, check, constant, drawing, in_rounds, undefined
from seewhy.metrics.faithfulness._absent import Baseline, fill
from seewhy.metrics.faithfulness._ranking import cuts, ranks

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Curve(NamedTuple):
    """Scores of each image by the share of its pixels that was inserted or taken away.

    Attributes:
        shares: (B, S) in [0, 1], ascending.
        scores: (B, S), in units of the score. NaN for a map that is constant: it puts its pixels in no order.
    """

    shares: Float[Tensor, "B S"]
    scores: Float[Tensor, "B S"]

    def area(self) -> Float[Tensor, " B"]:
        """The mean height of the curve, by trapezoids.

        Returns:
            (B,), in units of the score; NaN where every score is the same.
        """
        widths = self.shares.diff(dim=1)
        heights = (self.scores[:, 1:] + self.scores[:, :-1]) / 2
        return undefined((widths * heights).sum(1) / widths.sum(1), unchanging(self.scores))

    def mean(self) -> Float[Tensor, " B"]:
        """The mean of the scores.

        Returns:
            (B,), in units of the score; NaN where every score is the same.
        """
        return undefined(self.scores.mean(1), unchanging(self.scores))


def unchanging(scores: Float[Tensor, "B S"]) -> Tensor:
    """Where every score of an image is the same."""
    return (scores == scores[:, :1]).all(1)


def insertion_curve(
    score: Score,
    images: Images,
    maps: Maps,
    *,
    baseline: Baseline = "blur",
    steps: int = 32,
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Curve:
    """The score as the hottest pixels are inserted into a baseline image. See `insertion`.

    Args:
        score: (N, C, H, W) -> (N,), the score to explain. Row n was made of image n % B: N is B or a multiple of it.
        images: (B, C, H, W) or (B, C, D, H, W), as the model takes them.
        maps: (B, H, W) or (B, D, H, W); only the order of its values counts. Equal values are inserted together.
        baseline: what an absent pixel is: "blur", "mean", "zero", "road", or images of the same shape.
        steps: how many shares of the pixels are tried, evenly spaced.
        batch_size: the most rows of a call of `score`; None for B.
        generator: draws the noise of "road"; None draws the same in every call.

    Returns:
        Shares and scores, each (B, steps + 1). The scores are NaN for a constant map, which puts pixels in no order.

    Raises:
        InputError: if maps and images differ in size, or a map is not finite.
    """
    return _curve(score, images, maps, lambda hot: hot, baseline, steps, batch_size, generator)


def deletion_curve(
    score: Score,
    images: Images,
    maps: Maps,
    *,
    baseline: Baseline = "blur",
    steps: int = 32,
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Curve:
    """The score as the hottest pixels are replaced by those of a baseline image. See `deletion`.

    Args:
        score: (N, C, H, W) -> (N,), the score to explain. Row n was made of image n % B: N is B or a multiple of it.
        images: (B, C, H, W) or (B, C, D, H, W), as the model takes them.
        maps: (B, H, W) or (B, D, H, W); only the order of its values counts. Equal values are taken away together.
        baseline: what an absent pixel is: "blur", "mean", "zero", "road", or images of the same shape.
        steps: how many shares of the pixels are tried, evenly spaced.
        batch_size: the most rows of a call of `score`; None for B.
        generator: draws the noise of "road"; None draws the same in every call.

    Returns:
        Shares and scores, each (B, steps + 1). The scores are NaN for a constant map, which puts pixels in no order.

    Raises:
        InputError: if maps and images differ in size, or a map is not finite.
    """
    return _curve(score, images, maps, torch.logical_not, baseline, steps, batch_size, generator)


def insertion(
    score: Score,
    images: Images,
    maps: Maps,
    *,
    baseline: Baseline = "blur",
    steps: int = 32,
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, " B"]:
    """Area under the score as the hottest pixels are inserted into a baseline image.

    Petsiuk et al. 2018 (arXiv:1806.07421), section 4.1. Higher is better.

    Args:
        score: (N, C, H, W) -> (N,), the score to explain. Row n was made of image n % B: N is B or a multiple of it.
        images: (B, C, H, W) or (B, C, D, H, W), as the model takes them.
        maps: (B, H, W) or (B, D, H, W); only the order of its values counts. Equal values are inserted together.
        baseline: what an absent pixel is: "blur", "mean", "zero", "road", or images of the same shape.
        steps: how many shares of the pixels are tried, evenly spaced.
        batch_size: the most rows of a call of `score`; None for B.
        generator: draws the noise of "road"; None draws the same in every call.

    Returns:
        (B,) the area over shares from 0 to 1, in units of the score. NaN for a constant map, which puts pixels in no
        order, and where the score never changes.

    Raises:
        InputError: if maps and images differ in size, or a map is not finite.
    """
    return insertion_curve(
        score, images, maps, baseline=baseline, steps=steps, batch_size=batch_size, generator=generator
    ).area()


def deletion(
    score: Score,
    images: Images,
    maps: Maps,
    *,
    baseline: Baseline = "blur",
    steps: int = 32,
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, " B"]:
    """Area under the score as the hottest pixels are replaced by those of a baseline image.

    Petsiuk et al. 2018 (arXiv:1806.07421), section 4.1. Lower is better.

    Args:
        score: (N, C, H, W) -> (N,), the score to explain. Row n was made of image n % B: N is B or a multiple of it.
        images: (B, C, H, W) or (B, C, D, H, W), as the model takes them.
        maps: (B, H, W) or (B, D, H, W); only the order of its values counts. Equal values are taken away together.
        baseline: what an absent pixel is: "blur", "mean", "zero", "road", or images of the same shape.
        steps: how many shares of the pixels are tried, evenly spaced.
        batch_size: the most rows of a call of `score`; None for B.
        generator: draws the noise of "road"; None draws the same in every call.

    Returns:
        (B,) the area over shares from 0 to 1, in units of the score. NaN for a constant map, which puts pixels in no
        order, and where the score never changes.

    Raises:
        InputError: if maps and images differ in size, or a map is not finite.
    """
    return deletion_curve(
        score, images, maps, baseline=baseline, steps=steps, batch_size=batch_size, generator=generator
    ).area()


def insertion_minus_deletion(
    score: Score,
    images: Images,
    maps: Maps,
    *,
    baseline: Baseline = "blur",
    steps: int = 32,
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, " B"]:
    """`insertion` less `deletion`: 0 for an order by chance, higher is better (Shah et al. 2021, arXiv:2102.12781).

    Args:
        score: (N, C, H, W) -> (N,), the score to explain. Row n was made of image n % B: N is B or a multiple of it.
        images: (B, C, H, W) or (B, C, D, H, W), as the model takes them.
        maps: (B, H, W) or (B, D, H, W); only the order of its values counts. Equal values come and go together.
        baseline: what an absent pixel is: "blur", "mean", "zero", "road", or images of the same shape.
        steps: how many shares of the pixels are tried, evenly spaced.
        batch_size: the most rows of a call of `score`; None for B.
        generator: draws the noise of "road"; None draws the same in every call.

    Returns:
        (B,), in units of the score. NaN for a constant map, and where the score never changes.

    Raises:
        InputError: if maps and images differ in size, or a map is not finite.
    """
    inserted, deleted = (
        area(score, images, maps, baseline=baseline, steps=steps, batch_size=batch_size, generator=generator)
        for area in (insertion, deletion)
    )
    return inserted - deleted


def pixel_flipping(
    score: Score,
    images: Images,
    maps: Maps,
    *,
    baseline: Baseline = "zero",
    steps: int = 32,
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, " B"]:
    """How much the score falls on average while the hottest pixels are flipped: the area over the perturbation curve.

    Bach et al. 2015 (doi:10.1371/journal.pone.0130140); the average is AOPC, equation 12 of Samek et al. 2017
    (arXiv:1509.06321): the mean of f(x) - f(x_k) over k = 0 ... steps. Higher is better. The curve is `deletion_curve`.

    Args:
        score: (N, C, H, W) -> (N,), the score to explain. Row n was made of image n % B: N is B or a multiple of it.
        images: (B, C, H, W) or (B, C, D, H, W), as the model takes them.
        maps: (B, H, W) or (B, D, H, W); only the order of its values counts. Equal values are taken away together.
        baseline: what an absent pixel is: "blur", "mean", "zero", "road", or images of the same shape.
        steps: how many shares of the pixels are tried, evenly spaced.
        batch_size: the most rows of a call of `score`; None for B.
        generator: draws the noise of "road"; None draws the same in every call.

    Returns:
        (B,), in units of the score. NaN for a constant map, and where the score never changes.

    Raises:
        InputError: if maps and images differ in size, or a map is not finite.
    """
    curve = deletion_curve(
        score, images, maps, baseline=baseline, steps=steps, batch_size=batch_size, generator=generator
    )
    return curve.scores[:, 0] - curve.mean()


def road_curve(
    score: Score,
    images: Images,
    maps: Maps,
    *,
    first: Literal["most", "least"] = "most",
    shares: Sequence[float] = SHARES,
    noise: float = 0.01,
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Curve:
    """The score when a share of the pixels is taken away and filled in from what is around them: remove and debias.

    Rong et al. 2022 (arXiv:2202.00449). Which of equal pixels go first is drawn, so that a map with many zeros loses no
    more pixels than another one.

    Args:
        score: (N, C, H, W) -> (N,), the score to explain. Row n was made of image n % B: N is B or a multiple of it.
        images: (B, C, H, W), as the model takes them.
        maps: (B, H, W); only the order of its values counts.
        first: whether the "most" or the "least" relevant pixels are taken.
        shares: which shares of the pixels are taken, ascending, each between 0 and 1.
        noise: deviation of what is added to the pixels that are filled in, in units of the images.
        batch_size: the most rows of a call of `score`; None for B.
        generator: draws the order of equal values and the noise; None draws the same in every call.

    Returns:
        Shares, those that whole pixels make, and scores, each (B, S) for S shares. The scores are NaN for a constant
        map.

    Raises:
        InputError: if maps and images differ in size, a map is not finite, `first` is another word, a share is out of
            range, or the images are volumes.
    """
    maps = check(images, maps)
    if first not in ("most", "least"):
        raise InputError("`first` is not known.", got=first, expected='"most" or "least"')
    if not shares or list(shares) != sorted(shares) or not 0 < shares[0] <= shares[-1] < 1:
        raise InputError("these are no shares.", got=shares, expected="numbers between 0 and 1, ascending")
    draws = drawing(generator)
    order = ranks(maps if first == "most" else -maps, draws)
    filled = fill(images, "road", draws, noise)
    counts = torch.tensor([round(share * maps[0].numel()) for share in shares], device=maps.device)

    def changed(numbers: Tensor) -> Tensor:
        return filled(order >= counts[numbers].reshape(-1, *(1,) * maps.ndim))

    scores = in_rounds(score, changed, len(shares), images, batch_size).T
    share = (counts.double() / maps[0].numel()).to(scores).expand_as(scores)
    return Curve(share, undefined(scores, constant(maps)[:, None]))


def road_most_relevant_first(
    score: Score,
    images: Images,
    maps: Maps,
    *,
    shares: Sequence[float] = SHARES,
    noise: float = 0.01,
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, " B"]:
    """The mean of `road_curve` with the most relevant pixels taken first. Lower is better.

    Args:
        score: (N, C, H, W) -> (N,), the score to explain. Row n was made of image n % B: N is B or a multiple of it.
        images: (B, C, H, W), as the model takes them.
        maps: (B, H, W); only the order of its values counts.
        shares: which shares of the pixels are taken, ascending, each between 0 and 1.
        noise: deviation of what is added to the pixels that are filled in, in units of the images.
        batch_size: the most rows of a call of `score`; None for B.
        generator: draws the order of equal values and the noise; None draws the same in every call.

    Returns:
        (B,), in units of the score. NaN for a constant map, and where the score never changes.

    Raises:
        InputError: if maps and images differ in size, a map is not finite, a share is out of range, or the images are
            volumes.
    """
    return road_curve(
        score, images, maps, first="most", shares=shares, noise=noise, batch_size=batch_size, generator=generator
    ).mean()


def road_least_relevant_first(
    score: Score,
    images: Images,
    maps: Maps,
    *,
    shares: Sequence[float] = SHARES,
    noise: float = 0.01,
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, " B"]:
    """The mean of `road_curve` with the least relevant pixels taken first. Higher is better.

    Args:
        score: (N, C, H, W) -> (N,), the score to explain. Row n was made of image n % B: N is B or a multiple of it.
        images: (B, C, H, W), as the model takes them.
        maps: (B, H, W); only the order of its values counts.
        shares: which shares of the pixels are taken, ascending, each between 0 and 1.
        noise: deviation of what is added to the pixels that are filled in, in units of the images.
        batch_size: the most rows of a call of `score`; None for B.
        generator: draws the order of equal values and the noise; None draws the same in every call.

    Returns:
        (B,), in units of the score. NaN for a constant map, and where the score never changes.

    Raises:
        InputError: if maps and images differ in size, a map is not finite, a share is out of range, or the images are
            volumes.
    """
    return road_curve(
        score, images, maps, first="least", shares=shares, noise=noise, batch_size=batch_size, generator=generator
    ).mean()


def road(
    score: Score,
    images: Images,
    maps: Maps,
    *,
    shares: Sequence[float] = SHARES,
    noise: float = 0.01,
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, " B"]:
    """Half of what ROAD's score is higher when the least relevant pixels go first than when the most relevant do.

    0 for an order by chance, higher is better.

    Args:
        score: (N, C, H, W) -> (N,), the score to explain. Row n was made of image n % B: N is B or a multiple of it.
        images: (B, C, H, W), as the model takes them.
        maps: (B, H, W); only the order of its values counts.
        shares: which shares of the pixels are taken, ascending, each between 0 and 1.
        noise: deviation of what is added to the pixels that are filled in, in units of the images.
        batch_size: the most rows of a call of `score`; None for B.
        generator: draws the order of equal values and the noise; None draws the same in every call.

    Returns:
        (B,), in units of the score. NaN for a constant map, and where the score never changes.

    Raises:
        InputError: if maps and images differ in size, a map is not finite, a share is out of range, or the images are
            volumes.
    """
    curve = partial(
        road_curve, score, images, maps, shares=shares, noise=noise, batch_size=batch_size, generator=generator
    )
    least, most = curve(first="least").scores, curve(first="most").scores
    return undefined((least.mean(1) - most.mean(1)) / 2, unchanging(torch.cat([least, most], 1)))


def _curve(
    score: Score,
    images: Images,
    maps: Maps,
    kept: Callable[[Tensor], Tensor],
    baseline: Baseline,
    steps: int,
    batch_size: int | None,
    generator: Generator | None,
) -> Curve:
    """The scores with `kept` (which of the pixels, given which are hot) of each image."""
    maps = check(images, maps)
    at_least_one(steps=steps)
    filled = fill(images, baseline, drawing(generator))
    values, shares = cuts(maps, steps)

    def changed(numbers: Tensor) -> Tensor:
        lowest_hot = values[:, numbers].T.reshape(len(numbers), len(maps), *(1,) * (maps.ndim - 1))
        return filled(kept(maps >= lowest_hot))

    scores = in_rounds(score, changed, steps + 1, images, batch_size).T
    return Curve(shares, undefined(scores, constant(maps)[:, None]))
