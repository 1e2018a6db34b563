"""Whether what a map shows is more than rounding.

A heatmap is scaled to its own range, so differences of 1e-9 are drawn at full contrast like any other. What they have
to be compared with is the rounding of what was summed: a sum of n numbers of floating point is off by some sqrt(n)
units in the last place of their size (Higham and Mary 2019, doi:10.1137/18M1226312).

Maps come flattened: (*N, places), N being images, or images and targets.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seewhy.methods.registry import Method

_SAFETY = 4.0  # times the expected rounding: what was measured stays below 0.6 of it
_SUMMED = {"grad_cam_plus_plus", "smooth_grad_cam_plus_plus"}  # weights are sums over places; others are means


def rounding(size: Float[Tensor, "*N"], terms: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "*N"]:
    """How far a sum can be off. In half precision sums are kept in more digits, and the numbers themselves are not.

    Args:
        size: of what was summed, in absolute value.
        terms: how many numbers were summed.
        dtype: what they were computed in.
    """
    half = torch.finfo(dtype).bits < 32
    return _SAFETY * (1 if half else math.sqrt(terms)) * torch.finfo(dtype).eps * size


def is_noise(
    method: Method,
    maps: Float[Tensor, "*N places"],
    size: Float[Tensor, "*N"],
    channels: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Bool[Tensor, "*N"]:
    """Whether a map is no larger than the rounding of what it was made of.

    A map of gradients adds up to some part of the score, and its rounding is that of the sum over channels and places.
    A map of changed inputs or activations is made of differences of scores. One that uses no score is a sum over
    channels. Methods that scale what they add up (full_grad, score_cam and its like), or multiply two maps
    (guided_grad_cam), are never told to be noise here.

    Args:
        method: whose maps they are.
        maps: signed, unscaled, a row for each.
        size: of what was summed: the largest output of the image in absolute value, which is at least its score; for a
            method that uses no score the mean absolute activation, at the place where that is largest.
        channels: how many the layer has.
        dtype: what the model computed in.
    """
    places, needs = maps.shape[-1], {*method.needs}
    if not method.scored:
        return maps.abs().amax(-1) <= rounding(size, 1, dtype)
    adds_up = "activations" in needs and needs & {"gradients", "noisy_gradients"}
    if adds_up and not needs & {"score", "guided_gradients"}:
        total = maps.abs().sum(-1) / (places if method.name in _SUMMED else 1)
        return total <= rounding(size, channels * places, dtype)
    if method.name in ("rise", "occlusion", "d_rise", "recipro_cam", "vit_cx"):
        return maps.amax(-1) - maps.amin(-1) <= rounding(size, 1, dtype)
    return torch.zeros(maps.shape[:-1], dtype=torch.bool, device=maps.device)


def is_even(maps: Float[Tensor, "*N places"]) -> Bool[Tensor, "*N"]:
    """Whether a map is the same everywhere, to a few units in the last place of its largest value.

    A map of zeros is not called even: it is told by itself.
    """
    largest = maps.abs().amax(-1)
    same = maps.amax(-1) - maps.amin(-1) <= rounding(largest, 1, maps.dtype)
    return same & (largest > 0)
