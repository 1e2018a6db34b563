"""What the score becomes when an image is multiplied by its map, and what is made of that."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from seewhy.errors import InputError
from seewhy.images.absent import Absent, absent
from seewhy.metrics._inputs import Explain, Images, Maps, Score, check, explained, in_rounds
from seewhy.metrics._similarity import correlation
from seewhy.metrics.faithfulness.curves import SHARES, road


def average_drop(
    score: Score, images: Images, maps: Maps, *, baseline: Absent = "zero", batch_size: int | None = None
) -> Float[Tensor, " B"]:
    """The share of the probability that is lost when the image is multiplied by its map.

    max(0, Y - O) / Y of Chattopadhay et al. 2018 (arXiv:1710.11063), section 4.1, with Y the probability for the image
    and O that for what the map shows. Lower is better. The mean over images is theirs to 100%.

    Args:
        score: (N, C, H, W) -> (N,), a probability. Row n was made of image n % B: N is B or a multiple of it.
        images: (B, C, H, W) or (B, C, D, H, W), as the model takes them.
        maps: (B, H, W) or (B, D, H, W), in [0, 1].
        baseline: what is seen where the map is 0: "blur", "mean", "zero", or images of the same shape.
        batch_size: the most rows of a call of `score`; None for B.

    Returns:
        (B,) in [0, 1]; NaN where Y is 0.

    Raises:
        InputError: if maps and images differ in size, a map is not in [0, 1], or a score is no probability.
    """
    before, after = _seen(score, images, maps, baseline, batch_size)
    return (before - after).clamp(min=0) / before


def average_increase(
    score: Score, images: Images, maps: Maps, *, baseline: Absent = "zero", batch_size: int | None = None
) -> Float[Tensor, " B"]:
    """1 where the probability is higher when the image is multiplied by its map, 0 where not.

    Increase in confidence of Chattopadhay et al. 2018 (arXiv:1710.11063), section 4.1. Higher is better. Arguments and
    errors as those of `average_drop`.
    """
    before, after = _seen(score, images, maps, baseline, batch_size)
    return (after > before).to(before)


def average_gain(
    score: Score, images: Images, maps: Maps, *, baseline: Absent = "zero", batch_size: int | None = None
) -> Float[Tensor, " B"]:
    """The share of the missing probability that is won when the image is multiplied by its map.

    max(0, O - Y) / (1 - Y) of Zhang et al. 2023 (Opti-CAM, arXiv:2301.07002), section 4.1. Higher is better. Arguments
    and errors as those of `average_drop`; NaN where Y is 1.
    """
    before, after = _seen(score, images, maps, baseline, batch_size)
    return (after - before).clamp(min=0) / (1 - before)


def adcc(
    score: Score,
    explain: Explain,
    images: Images,
    maps: Maps,
    *,
    baseline: Absent = "zero",
    batch_size: int | None = None,
) -> Float[Tensor, " B"]:
    """The harmonic mean of coherency, 1 - complexity and 1 - average drop.

    Poppi et al. 2021 (arXiv:2104.10252), equation 6. Coherency is the correlation of the map with that of the image
    times its map, as a share; complexity the mean of the map. Higher is better.

    Args:
        score: as that of `average_drop`.
        explain: (N, C, H, W) -> maps (N, H, W) in rows as those of `score`, by the method that made `maps`.
        images: (B, C, H, W) or (B, C, D, H, W), as the model takes them.
        maps: (B, H, W) or (B, D, H, W), in [0, 1].
        baseline: as that of `average_drop`.
        batch_size: the most rows of a call of `score`; None for B.

    Returns:
        (B,) in [0, 1], 0 if one of the parts is 0; NaN if a map is constant, so that it correlates with nothing.

    Raises:
        InputError: as `average_drop`.
    """
    kept = 1 - average_drop(score, images, maps, baseline=baseline, batch_size=batch_size)
    return harmonic_mean(_coherency(explain, images, maps, baseline), 1 - complexity(maps), kept)


def arcc(
    score: Score,
    explain: Explain,
    images: Images,
    maps: Maps,
    *,
    shares: Sequence[float] = SHARES,
    noise: float = 0.01,
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, " B"]:
    """`adcc` with ROAD in the place of the average drop: the harmonic mean of coherency, 1 - complexity and 2 `road`.

    Twice `road` is cut to [0, 1]. As in grad-cam's package. Higher is better.

    Args:
        score: as that of `road`, a probability.
        explain: as that of `adcc`.
        images: (B, C, H, W), as the model takes them.
        maps: (B, H, W), in [0, 1].
        shares: as that of `road`.
        noise: as that of `road`.
        batch_size: as that of `road`.
        generator: as that of `road`.

    Returns:
        (B,) in [0, 1]; NaN where `road` is or a map is constant.

    Raises:
        InputError: as `road`, and if a map is not in [0, 1].
    """
    used = road(score, images, maps, shares=shares, noise=noise, batch_size=batch_size, generator=generator)
    sure = _coherency(explain, images, maps, "zero")
    return harmonic_mean(sure, 1 - complexity(maps), (2 * used).clamp(0, 1))


def complexity(maps: Maps) -> Float[Tensor, " maps"]:
    """The mean of a map's values in size: 0 for a map of nothing, 1 for one of everything (arXiv:2104.10252)."""
    return maps.abs().flatten(1).mean(1)


def harmonic_mean(*parts: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """What ADCC and ARCC make of their parts in [0, 1]: 0 where one of them is 0."""
    return len(parts) / torch.stack([1 / part for part in parts]).sum(0)


def _coherency(explain: Explain, images: Images, maps: Maps, baseline: Absent) -> Float[Tensor, " B"]:
    again = explained(explain, _shown(images, maps, baseline)[None])[0]
    return (correlation(again, maps.to(again)) + 1) / 2


def _seen(
    score: Score, images: Images, maps: Maps, baseline: Absent, batch_size: int | None
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """The probabilities of the images, and of what their maps show of them."""
    versions = torch.stack([images, _shown(images, maps, baseline)])
    scores = in_rounds(score, lambda numbers: versions[numbers], 2, images, batch_size)
    if bool(((scores < 0) | (scores > 1 + 1e-6)).any()):
        raise InputError(
            "the score is no probability.",
            got=f"scores from {float(scores.min()):.3g} to {float(scores.max()):.3g}",
            expected="scores in [0, 1]",
            do="seewhy.metrics.probability(model, target)",
        )
    before, after = scores.clamp(max=1)
    return before, after


def _shown(images: Images, maps: Maps, baseline: Absent) -> Images:
    maps = check(images, maps)
    if bool(((maps < 0) | (maps > 1)).any()):
        raise InputError(
            "an image is multiplied by a map in [0, 1].",
            got=f"values from {float(maps.min()):.3g} to {float(maps.max()):.3g}",
            do="divide each map by its largest value, and set negative ones to 0",
        )
    weights = maps[:, None].to(images.dtype)
    return images * weights + absent(images, baseline) * (1 - weights)
