"""Does a map's sum over some pixels agree with what the score loses without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from seewhy.errors import InputError
from seewhy.metrics._inputs import (
    Images,
    Maps,
    Score,
    at_least_one,
    check,
    constant,
    drawing,
    finite,
    in_rounds,
    undefined,
)
from seewhy.metrics._similarity import pearson
from seewhy.metrics.faithfulness._absent import Baseline, fill
from seewhy.metrics.faithfulness._ranking import ranks


def infidelity(
    score: Score,
    images: Images,
    maps: Maps,
    *,
    perturb: Callable[[Tensor], Tensor] | None = None,
    side: float = 0.25,
    baseline: Baseline = "zero",
    samples: int = 64,
    scaled: bool = True,
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, " B"]:
    """How far the map, as a linear model of the score, is off when the image is perturbed.

    Yeh et al. 2019 (arXiv:1901.09392), definition 2.1: the mean of (I · map - (f(x) - f(x - I)))² over perturbations I.
    Lower is better.

    Args:
        score: (N, C, H, W) -> (N,), the score to explain. Row n was made of image n % B: N is B or a multiple of it.
        images: (B, C, H, W) or (B, C, D, H, W), as the model takes them.
        maps: (B, H, W) or (B, D, H, W), the same for all channels; or of the images' shape.
        perturb: images -> perturbed images x - I, called once for each sample. By default a square at a place that is
            drawn is replaced by the baseline (section 4, "square removal"), the same one in all images.
        side: side of the square, as a share of each of the image's sides.
        baseline: what is in the square: "blur", "mean", "zero", "road", or images of the same shape.
        samples: how many perturbations.
        scaled: multiply each map by the number that makes its infidelity least, as captum's `normalize`. Without it
            the map must be in units of the score, which heatmaps are not.
        batch_size: the most rows of a call of `score`; None for B.
        generator: draws the squares; None draws the same in every call.

    Returns:
        (B,) in units of the score squared. NaN where the score is the same for all perturbations, and if `scaled` for a
        map of zeros, which no number makes better.

    Raises:
        InputError: if maps and images differ in size, or a map is not finite.
    """
    maps = finite(maps) if maps.shape == images.shape else check(images, maps)[:, None]
    at_least_one(samples=samples)
    draws = drawing(generator)
    change = perturb if perturb is not None else _square(images, side, baseline, draws)
    products = []

    def changed(numbers: Tensor) -> Tensor:
        perturbed = torch.stack([images if not number else change(images) for number in numbers.tolist()])
        products.append(((images - perturbed) * maps).flatten(2).sum(2, dtype=torch.float64))
        return perturbed

    scores = in_rounds(score, changed, samples + 1, images, batch_size).double()  # the first is of the images
    lost, explained = scores[0] - scores[1:], torch.cat(products)[1:]
    if scaled:
        explained = explained * (explained * lost).sum(0) / explained.square().sum(0)
    result = (explained - lost).square().mean(0)
    return undefined(result, (scores == scores[0]).all(0)).to(torch.promote_types(maps.dtype, torch.float32))


def _square(images: Images, side: float, baseline: Baseline, generator: Generator) -> Callable[[Tensor], Tensor]:
    if not 0 < side <= 1:
        raise InputError("the square's side is out of range.", got=side, expected="a share of the image's, in (0, 1]")
    space = images.shape[2:]
    filled = fill(images, baseline, generator)

    def removed(images: Images) -> Images:
        kept = torch.ones(1, 1, *space, dtype=torch.bool, device=images.device)
        inside: Tensor = kept
        for dim, length in enumerate(space):
            width = max(1, round(side * length))
            first = int(torch.randint(length - width + 1, (), generator=generator, device=generator.device))
            places = torch.arange(length, device=images.device)
            along = (places >= first) & (places < first + width)
            inside = inside & along.reshape(1, 1, *(length if d == dim else 1 for d in range(len(space))))
        return filled(~inside)[0]

    return removed


def sensitivity_n(
    score: Score,
    images: Images,
    maps: Maps,
    *,
    sizes: Sequence[int] | None = None,
    subsets: int = 32,
    baseline: Baseline = "zero",
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, " B"]:
    """Correlation, over random subsets of n pixels, of the map's sum with what the score loses without them.

    Ancona et al. 2018 (arXiv:1711.06104), section 3.4; the mean over n. Higher is better.

    Args:
        score: (N, C, H, W) -> (N,), the score to explain. Row n was made of image n % B: N is B or a multiple of it.
        images: (B, C, H, W) or (B, C, D, H, W), as the model takes them.
        maps: (B, H, W) or (B, D, H, W).
        sizes: the numbers n of pixels; by default eight, from 1% to 80% of all, evenly spaced in the logarithm.
        subsets: how many of each size are drawn, the same ones for all images.
        baseline: what an absent pixel is: "blur", "mean", "zero", "road", or images of the same shape.
        batch_size: the most rows of a call of `score`; None for B.
        generator: draws the subsets; None draws the same in every call.

    Returns:
        (B,) in [-1, 1]. NaN for a constant map, and where the score loses the same with every subset of a size.

    Raises:
        InputError: if maps and images differ in size, a map is not finite, or a size is out of range.
    """
    pixels = images[0, 0].numel()
    if sizes is None:
        sizes = sorted({max(1, round(0.01 * 80 ** (number / 7) * pixels)) for number in range(8)})
    draws = drawing(generator)
    each = [
        faithfulness_correlation(
            score, images, maps, size=size, subsets=subsets, baseline=baseline, batch_size=batch_size, generator=draws
        )
        for size in sizes
    ]
    return torch.stack(each).mean(0)


def faithfulness_correlation(
    score: Score,
    images: Images,
    maps: Maps,
    *,
    size: int | None = None,
    subsets: int = 100,
    baseline: Baseline = "zero",
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, " B"]:
    """Correlation, over random subsets of `size` pixels, of the map's sum with what the score loses without them.

    Bhatt et al. 2020 (arXiv:2005.00631), definition 3. Higher is better.

    Args:
        size: how many pixels a subset has; by default a tenth of all.
        score: as that of `sensitivity_n`.
        images: as that of `sensitivity_n`.
        maps: as that of `sensitivity_n`.
        subsets: as that of `sensitivity_n`.
        baseline: as that of `sensitivity_n`.
        batch_size: as that of `sensitivity_n`.
        generator: as that of `sensitivity_n`.

    Returns:
        (B,) in [-1, 1]. NaN for a constant map, and where the score loses the same with every subset.

    Raises:
        InputError: as `sensitivity_n`.
    """
    maps = check(images, maps)
    at_least_one(subsets=subsets)
    pixels = maps[0].numel()
    size = max(1, pixels // 10) if size is None else size
    if not 0 < size < pixels:
        raise InputError("a subset has some of the pixels.", got=size, expected=f"a size from 1 to {pixels - 1}")
    draws = drawing(generator)

    def drawn(numbers: Tensor) -> Tensor:
        masks = torch.zeros(len(numbers), pixels, dtype=torch.bool)
        for mask in masks:
            mask[torch.randperm(pixels, generator=draws, device=draws.device)[:size].cpu()] = True
        return masks.to(images.device).reshape(-1, 1, *maps.shape[1:])

    lost, sums = _lost(score, images, maps, drawn, subsets, fill(images, baseline, draws), batch_size)
    return undefined(pearson(sums.T, lost.T).to(maps.dtype), constant(maps))


def faithfulness_estimate(
    score: Score,
    images: Images,
    maps: Maps,
    *,
    groups: int = 32,
    baseline: Baseline = "zero",
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, " B"]:
    """Correlation of the map's sum over a group of pixels with what the score loses without that group.

    Alvarez-Melis and Jaakkola 2018 (arXiv:1806.07538), section 4.2. Groups are as many pixels each, from the hottest
    down; which of equal pixels come first is drawn. Higher is better.

    Args:
        groups: how many groups.
        score: as that of `sensitivity_n`.
        images: as that of `sensitivity_n`.
        maps: as that of `sensitivity_n`.
        baseline: as that of `sensitivity_n`.
        batch_size: as that of `sensitivity_n`.
        generator: as that of `sensitivity_n`.

    Returns:
        (B,) in [-1, 1]. NaN for a constant map, and where the score loses the same with every group.

    Raises:
        InputError: as `sensitivity_n`.
    """
    lost, sums = _by_groups(score, images, maps, groups, baseline, batch_size, generator)
    return undefined(pearson(sums, lost).to(torch.promote_types(maps.dtype, torch.float32)), constant(maps))


def saco(
    score: Score,
    images: Images,
    maps: Maps,
    *,
    groups: int = 10,
    baseline: Baseline = "mean",
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, " B"]:
    """Whether the groups of pixels that the map calls hotter cost more of the score: the faithfulness coefficient.

    Wu et al. 2024 (SaCo, arXiv:2404.01415), algorithm 1. For each two groups, the difference of the map's sums counts
    for it if the hotter group costs at least as much, and against it if not. Higher is better.

    Args:
        groups: how many groups, of as many pixels each, from the hottest down.
        score: as that of `sensitivity_n`.
        images: as that of `sensitivity_n`.
        maps: as that of `sensitivity_n`.
        baseline: as that of `sensitivity_n`.
        batch_size: as that of `sensitivity_n`.
        generator: as that of `sensitivity_n`.

    Returns:
        (B,) in [-1, 1]. NaN for a constant map, and where the score loses the same with every group.

    Raises:
        InputError: as `sensitivity_n`.
    """
    lost, sums = _by_groups(score, images, maps, groups, baseline, batch_size, generator)
    first, second = torch.triu_indices(groups, groups, 1, device=lost.device)
    apart = sums[:, first] - sums[:, second]
    signs = torch.where(lost[:, first] >= lost[:, second], 1, -1)
    coefficient = (signs * apart).sum(1) / apart.abs().sum(1)
    same = (lost == lost[:, :1]).all(1)
    return undefined(coefficient.to(torch.promote_types(maps.dtype, torch.float32)), constant(maps) | same)


def _by_groups(
    score: Score,
    images: Images,
    maps: Maps,
    groups: int,
    baseline: Baseline,
    batch_size: int | None,
    generator: Generator | None,
) -> tuple[Float[Tensor, "B groups"], Float[Tensor, "B groups"]]:
    """What the score loses without each group, and the map's sum over it."""
    maps = check(images, maps)
    pixels = maps[0].numel()
    if not 1 < groups <= pixels:
        raise InputError("a group has some of the pixels.", got=groups, expected=f"2 to {pixels} groups")
    draws = drawing(generator)
    order = ranks(maps, draws)
    bounds = torch.tensor([round(number * pixels / groups) for number in range(groups + 1)], device=maps.device)

    def of(numbers: Tensor) -> Tensor:
        first, end = (bounds[n].reshape(-1, *(1,) * maps.ndim) for n in (numbers, numbers + 1))
        return (order >= first) & (order < end)

    lost, sums = _lost(score, images, maps, of, groups, fill(images, baseline, draws), batch_size)
    return lost.T, sums.T


def _lost(
    score: Score,
    images: Images,
    maps: Maps,
    removed: Callable[[Tensor], Tensor],
    count: int,
    filled: Callable[[Tensor], Tensor],
    batch_size: int | None,
) -> tuple[Float[Tensor, "count B"], Float[Tensor, "count B"]]:
    """What the score loses without each of `count` sets of pixels (k, B or 1, *space), and the map's sum over each."""
    sums = []

    def changed(numbers: Tensor) -> Tensor:
        without = removed(numbers)
        sums.append((without * maps).flatten(2).sum(2, dtype=torch.float64))
        return filled(~without)

    whole = in_rounds(score, lambda _: images[None], 1, images, None).double()
    return whole - in_rounds(score, changed, count, images, batch_size).double(), torch.cat(sums)
