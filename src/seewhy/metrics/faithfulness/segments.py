"""What the score loses as whole regions of an image are taken away."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor

from seewhy.errors import InputError
from seewhy.images.absent import superpixels
from seewhy.metrics._inputs import Images, Maps, Score, check, constant, drawing, in_rounds, undefined
from seewhy.metrics.faithfulness._absent import Baseline, fill
from seewhy.metrics.faithfulness._ranking import ranks
from seewhy.metrics.faithfulness.curves import Curve


def irof(
    score: Score,
    images: Images,
    maps: Maps,
    *,
    segments: Shaped[Tensor, "segmented *area"] | None = None,
    baseline: Baseline = "mean",
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, " B"]:
    """Area over the score, as a share of that of the image, as the regions with the hottest mean are taken away.

    Rieger and Hansen 2020 (iterative removal of features, arXiv:2003.08747), section 3. Higher is better.

    Args:
        score: (N, C, H, W) -> (N,), positive. Row n was made of image n % B: N is B or a multiple of it.
        images: (B, C, H, W) or (B, C, D, H, W), as the model takes them.
        maps: (B, H, W) or (B, D, H, W).
        segments: of the same shape, the number of the region that each pixel belongs to. By default `superpixels`.
        baseline: what an absent pixel is: "blur", "mean", "zero", "road", or images of the same shape.
        batch_size: the most rows of a call of `score`; None for B.
        generator: draws which of regions with equal means goes first; None draws the same in every call.

    Returns:
        (B,) 1 less the area over shares from 0 to 1 of the regions: 1 if the score is gone at once, 0 if it stays. NaN
        if the map has the same mean in all regions, if the score never changes, or is not positive for the image.

    Raises:
        InputError: if maps, segments and images differ in size, or a map is not finite.
    """
    maps = check(images, maps)
    if segments is None:
        segments = superpixels(images)
    if segments.shape != maps.shape or segments.is_floating_point() or segments.dtype == torch.bool:
        raise InputError(
            "the segments do not fit the images.",
            got=f"{segments.dtype} {tuple(segments.shape)}",
            expected=f"integers {tuple(maps.shape)}",
        )
    draws = drawing(generator)
    numbered = [one.unique(return_inverse=True)[1].flatten() for one in segments.to(maps.device)]
    labels = torch.stack(numbered)
    counts = labels.amax(1) + 1
    most = int(counts.max())
    totals, sizes = (
        torch.zeros(len(maps), most, dtype=torch.float64, device=maps.device).scatter_add_(1, labels, values.double())
        for values in (maps.flatten(1), torch.ones_like(labels))
    )
    means = (totals / sizes).nan_to_num(-math.inf)  # a number that an image has no region for goes last
    order = ranks(means, draws).gather(1, labels).reshape(maps.shape)
    filled = fill(images, baseline, draws)

    def changed(numbers: Tensor) -> Tensor:
        return filled(order >= numbers.reshape(-1, *(1,) * maps.ndim))

    scores = in_rounds(score, changed, most + 1, images, batch_size).T
    taken = torch.minimum(torch.arange(most + 1, device=maps.device), counts[:, None]).double() / counts[:, None]
    left = Curve(taken.to(scores), scores / scores[:, :1]).area()
    same = constant(torch.where(sizes > 0, means, means[:, :1]))
    return undefined(1 - left, same | (scores[:, 0] <= 0))
