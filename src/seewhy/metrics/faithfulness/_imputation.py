"""ROAD's imputation: pixels that are absent, made of those around them (Rong et al. 2022, arXiv:2202.00449)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from seewhy.errors import InputError

# Of the residual's norm. A pixel is then exact to some 1e-4 in float32, a hundredth of ROAD's noise, else to 1e-6.
_ACCURACY = {torch.float32: 1e-5, torch.float64: 1e-7}

# ROAD's weights of a pixel's eight neighbours: direct ones count twice as much as diagonal ones
NEIGHBOURS = ((1 / 12, 1 / 6, 1 / 12), (1 / 6, 0.0, 1 / 6), (1 / 12, 1 / 6, 1 / 12))


def impute(
    images: Float[Tensor, "B C H W"],
    known: Bool[Tensor, "B H W"],
    *,
    generator: Generator,
    noise: float = 0.01,
    neighbours: tuple[tuple[float, ...], ...] = NEIGHBOURS,
) -> Float[Tensor, "B C H W"]:
    """ROAD's noisy linear imputation: `interpolate` in float64, and Gaussian noise of deviation `noise` on the rest."""
    solved = interpolate(images.double(), known, neighbours=neighbours).to(images.dtype)
    drawn = torch.randn(images.shape[1:], generator=generator, device=generator.device).to(images)
    return torch.where(known[:, None], images, solved + noise * drawn)


def interpolate(
    images: Float[Tensor, "B C H W"],
    known: Bool[Tensor, "B H W"],
    *,
    neighbours: tuple[tuple[float, ...], ...] = NEIGHBOURS,
) -> Float[Tensor, "B C H W"]:
    """A pixel that is not `known` becomes the weighted mean of its neighbours.

    Neighbours that are unknown as well are solved for with it, and those outside of the image do not count. The system
    is symmetric and definite; conjugate gradients solve it, in float64 for such images and else in float32. An image
    without a known pixel becomes 0. neighbours: their weights by place, the same seen from either side.
    """
    weights = torch.tensor(neighbours)
    if weights.shape != (3, 3) or not torch.equal(weights, weights.flip(0, 1)) or (weights < 0).any():
        raise InputError(
            "these are no weights of neighbours.",
            got=neighbours,
            expected="3 x 3 of them, none negative, equal when turned by 180 degrees",
        )
    values = images if images.dtype == torch.float64 else images.float()
    asked = (~known[:, None]).to(values.dtype)  # a product with it is several times faster than torch.where
    present = _around(torch.ones_like(asked), neighbours)  # less at the image's borders

    def system(values: Tensor) -> Tensor:
        return (present * values).sub_(_around(values, neighbours)).mul_(asked)

    def guess(residual: Tensor) -> Tensor:
        return _at_all_scales(residual) * asked

    solved = _conjugate_gradients(system, asked * _around(values * (1 - asked), neighbours), guess)
    return torch.where(known[:, None], images, solved.to(images.dtype))


def interpolate_line(signals: Float[Tensor, "B C L"], known: Bool[Tensor, "B L"]) -> Float[Tensor, "B C L"]:
    """The same of signals, whose samples have two neighbours: straight lines between what is known, level at the ends.

    A signal without a known sample becomes 0.
    """
    length = known.shape[-1]
    places = torch.arange(length, device=known.device).expand_as(known)
    before = torch.where(known, places, -1).cummax(-1).values
    after = torch.where(known, places, length).flip(-1).cummin(-1).values.flip(-1)
    left, right = torch.where(before < 0, after, before), torch.where(after == length, before, after)
    share = ((places - left) / (right - left).clamp(min=1))[:, None].to(signals.dtype)
    lower, upper = (signals.gather(2, side.clamp(0, length - 1)[:, None].expand_as(signals)) for side in (left, right))
    return torch.where(known.any(-1)[:, None, None], lower + (upper - lower) * share, 0)


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

    solved, residual = torch.zeros_like(right), right.clone()
    direction = guess(residual)
    left, limit = dot(residual, direction), _ACCURACY[right.dtype] ** 2 * dot(right, right)
    for _ in range(right[0, 0].numel()):  # in exact arithmetic that many suffice
        if bool((dot(residual, residual) <= limit).all()):
            break
        moved = system(direction)
        step = share(left, dot(direction, moved))
        solved.addcmul_(step, direction)
        residual.addcmul_(step, moved, value=-1)
        guessed = guess(residual)
        before, left = left, dot(residual, guessed)
        direction = guessed.addcmul_(share(left, before), direction)
    return solved
