"""What an image is where a part of it is taken away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from seewhy.errors import InputError
from seewhy.images.absent import Absent, absent
from seewhy.metrics._inputs import Images
from seewhy.metrics.faithfulness._imputation import interpolate, interpolate_line

Baseline: TypeAlias = Absent | Literal["road"]
Fill: TypeAlias = Callable[[Tensor], Tensor]


def fill(images: Images, baseline: Baseline, generator: Generator, noise: float = 0.01) -> Fill:
    """A function of masks (k, B, H, W), True for what is kept: the images (k, B, C, H, W) with the rest made absent.

    baseline "road" interpolates from what is kept and adds noise of deviation `noise`, one draw for all images.
    """
    if isinstance(baseline, Tensor) or baseline != "road":
        nothing = absent(images, baseline)
        return lambda kept: torch.where(kept[:, :, None], images, nothing)
    if images.ndim > 4:
        raise InputError(
            "ROAD's imputation is of images and signals.",
            got=tuple(images.shape),
            do='another baseline, such as "mean"',
        )
    drawn = noise * torch.randn(images.shape[1:], generator=generator, device=generator.device).to(images)

    solve = interpolate if images.ndim == 4 else interpolate_line

    def interpolated(kept: Bool[Tensor, "k B *space"]) -> Float[Tensor, "k B C *space"]:
        rows = images.expand(len(kept), *images.shape).flatten(0, 1)
        known = kept.expand(len(kept), *images.shape[:1], *images.shape[2:])
        solved = solve(rows, known.flatten(0, 1)).reshape(len(kept), *images.shape)
        return torch.where(known[:, :, None], solved, solved + drawn)

    return interpolated
