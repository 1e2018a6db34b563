"""What an image is where a part of it is taken away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from seewhy.errors import InputError
from seewhy.images import arrays
from seewhy.metrics._inputs import Images
from seewhy.metrics.faithfulness._imputation import interpolate, interpolate_line

Baseline: TypeAlias = Literal["blur", "mean", "zero", "road"] | Tensor
Fill: TypeAlias = Callable[[Tensor], Tensor]

BLURRED = 20  # the deviation of the blur is the image's side divided by it: 11 pixels of 224


def baseline_images(images: Images, baseline: Baseline) -> Images:
    """Images that show nothing of what counts.

    Args:
        images: (B, C, H, W) or (B, C, D, H, W).
        baseline: "blur", Gaussian, of a deviation of 1/20 of each side; "mean", each channel's over the image; "zero";
            or images of the same shape.
    """
    if isinstance(baseline, Tensor):
        if baseline.shape != images.shape:
            raise InputError(
                "the baseline is of another shape than the images.",
                got=tuple(baseline.shape),
                expected=tuple(images.shape),
                do="baseline.expand_as(images)",
            )
        return baseline.to(images)
    if baseline == "zero":
        return torch.zeros_like(images)
    if baseline == "mean":
        return images.mean(tuple(range(2, images.ndim)), keepdim=True).expand_as(images)
    if baseline == "blur":
        for dim in range(2, images.ndim):
            images = arrays.blur(images, images.shape[dim] / BLURRED, (dim,))
        return images
    raise InputError("there is no such baseline.", got=baseline, expected='"blur", "mean", "zero", "road", or images')


def fill(images: Images, baseline: Baseline, generator: Generator, noise: float = 0.01) -> Fill:
    """A function of masks (k, B, H, W), True for what is kept: the images (k, B, C, H, W) with the rest made absent.

    baseline "road" interpolates from what is kept and adds noise of deviation `noise`, one draw for all images.
    """
    if isinstance(baseline, Tensor) or baseline != "road":
        absent = baseline_images(images, baseline)
        return lambda kept: torch.where(kept[:, :, None], images, absent)
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
