"""Does the model use what a map shows: what is left of an image without it, and what a good map is like.

Everywhere `maps` are (B, H, W) and `images` (B, C, H, W) of the same size; results are (B,) or of the images' shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from seewhy.errors import InputError

_ACCURACY = 1e-7  # of the residual's norm, below what float32 images can show

# ROAD's weights of a pixel's eight neighbours: direct ones count twice as much as diagonal ones
NEIGHBOURS = ((1 / 12, 1 / 6, 1 / 12), (1 / 6, 0.0, 1 / 6), (1 / 12, 1 / 6, 1 / 12))


def lowest(maps: Float[Tensor, "B H W"], percentile: float, *, generator: Generator) -> Bool[Tensor, "B H W"]:
    """Where each map is below its own percentile: the ceil(percentile / 100 * (H W - 1)) pixels of least value.

    That many whatever the map: which of equal pixels are among them is drawn, by one draw for all maps. A comparison
    with the percentile instead takes none of them, or all: nothing of a map with more zeros than `percentile`.
    """
    if not 0 <= percentile <= 100:
        raise InputError("the percentile is out of range.", got=percentile, expected="a number in [0, 100]")
    flat = maps.flatten(1)
    drawn = torch.randperm(flat.shape[1], generator=generator, device=generator.device).to(maps.device)
    count = math.ceil(round(percentile / 100 * (flat.shape[1] - 1), 6))
    chosen = drawn[flat[:, drawn].argsort(dim=1, stable=True)[:, :count]]
    below = torch.zeros_like(flat, dtype=torch.bool).scatter(1, chosen, True)
    return below.reshape(maps.shape)


def impute(
    images: Float[Tensor, "B C H W"],
    known: Bool[Tensor, "B H W"],
    *,
    generator: Generator,
    noise: float = 0.01,
    neighbours: tuple[tuple[float, ...], ...] = NEIGHBOURS,
) -> Float[Tensor, "B C H W"]:
    """ROAD's noisy linear imputation: a pixel that is not `known` becomes the weighted mean of its neighbours.

    Neighbours that are unknown as well are solved for with it, and those outside of the image do not count; then
    Gaussian noise of deviation `noise` is added (Rong et al., arXiv:2202.00449). The system is symmetric
    and definite; conjugate gradients solve it in float64. neighbours: their weights by place, the same seen from
    either side. An image without a known pixel becomes 0 and noise.
    """
    weights = torch.tensor(neighbours)
    if weights.shape != (3, 3) or not torch.equal(weights, weights.flip(0, 1)) or (weights < 0).any():
        raise InputError(
            "these are no weights of neighbours.",
            got=neighbours,
            expected="3 x 3 of them, none negative, equal when turned by 180 degrees",
        )
    asked = (~known[:, None]).double()  # a product with it is several times faster than torch.where
    present = _around(torch.ones_like(asked), neighbours)  # less at the image's borders

    def system(values: Tensor) -> Tensor:
        return asked * (present * values - _around(values, neighbours))

    def guess(residual: Tensor) -> Tensor:
        return asked * _at_all_scales(residual)

    solved = _conjugate_gradients(system, asked * _around(images * (1 - asked), neighbours), guess)
    drawn = torch.randn(images.shape[1:], generator=generator, device=generator.device).to(images)
    return torch.where(known[:, None], images, solved.to(images.dtype) + noise * drawn)


def _around(images: Float[Tensor, "B C H W"], neighbours: tuple[tuple[float, ...], ...]) -> Float[Tensor, "B C H W"]:
    """For each pixel the weighted sum of those around it; outside of the image is 0. (A convolution is slower.)"""
    height, width = images.shape[2:]
    padded = F.pad(images, (1, 1, 1, 1))
    total = torch.zeros_like(images)
    for down, row in enumerate(neighbours):
        for right, weight in enumerate(row):
            total.add_(padded[..., down : down + height, right : right + width], alpha=weight)
    return total


def _at_all_scales(residual: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """What roughly undoes the system: blocks' sums spread over them, each divided by its side, over which it borders.

    It saves three steps of four for holes of a hundred pixels (Bramble, Pasciak and Xu 1990).
    """
    height, width = residual.shape[2:]
    if max(height, width) == 1:
        return residual
    blocks = F.avg_pool2d(residual, 2, ceil_mode=True, divisor_override=1)
    spread = F.interpolate(_at_all_scales(blocks) / 2, scale_factor=2.0, mode="nearest")
    return residual + spread[..., :height, :width]


def _conjugate_gradients(
    system: Callable[[Tensor], Tensor], right: Float[Tensor, "B C H W"], guess: Callable[[Tensor], Tensor]
) -> Float[Tensor, "B C H W"]:
    """The solution of system(x) = right for each (H, W), by the method of Hestenes and Stiefel (1952).

    guess: what is close to the system's inverse, symmetric and definite as well.
    """

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum((-2, -1), keepdim=True)

    def share(part: Tensor, whole: Tensor) -> Tensor:
        return torch.where(whole > 0, part / whole, 0)  # 0 where it is solved

    solved, residual = torch.zeros_like(right), right
    direction = guess(residual)
    left, limit = dot(residual, direction), _ACCURACY**2 * dot(right, right)
    for _ in range(right[0, 0].numel()):  # in exact arithmetic that many suffice
        if bool((dot(residual, residual) <= limit).all()):
            break
        moved = system(direction)
        step = share(left, dot(direction, moved))
        solved, residual = solved + step * direction, residual - step * moved
        guessed = guess(residual)
        before, left = left, dot(residual, guessed)
        direction = guessed + share(left, before) * direction
    return solved


def complexity(maps: Float[Tensor, "B H W"]) -> Float[Tensor, " B"]:
    """The mean of a map's values in size: 0 for a map of nothing, 1 for one of everything (arXiv:2104.10252)."""
    return maps.abs().flatten(1).mean(1)


def correlation(maps: Float[Tensor, "B H W"], others: Float[Tensor, "B H W"]) -> Float[Tensor, " B"]:
    """Pearson's correlation of two maps of each image; NaN where one of them is constant."""
    a, b = (one.flatten(1) - one.flatten(1).mean(1, keepdim=True) for one in (maps, others))
    correlations: Tensor = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    return correlations


def harmonic_mean(*parts: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """What ARCC makes of its parts in [0, 1] (arXiv:2104.10252): 0 where one of them is 0."""
    return len(parts) / torch.stack([1 / part for part in parts]).sum(0)
