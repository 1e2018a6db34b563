"""Whether maps say anything: those that are rounding, the same everywhere, or of an image of nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Generator, Tensor

from seewhy.evidence._forward import Forward
from seewhy.hooks.nested import tensors
from seewhy.methods.registry import Method
from seewhy.methods.rounding import is_even, is_noise

Maps = Mapping[str, Tensor]  # by layer (B, [T,] *grid)

_SCALE = 1 / 3  # of the score: its products are rounded otherwise
_OWN = 0.25  # of its size a map of rounding changes by more, if all is rounded otherwise; others by far less


class Doubt(NamedTuple):
    """Which images have a map that says nothing, why, and what to try.

    Attributes:
        images: of the batch and the targets.
        problem: in words.
        advice: in words.
        level: whether these maps are the same everywhere: their mean is all that is in them.
    """

    images: Bool[Tensor, "B *T"]
    problem: str
    advice: str
    level: bool = False


def doubts(method: Method, maps: Maps, forward: Forward, again: Callable[[Forward], Maps]) -> dict[str, Doubt]:
    """By layer the maps of a method that say nothing, the first reason for each layer.

    A map that is small beside the rounding of what it was made of is made once more, of images that are changed by
    their rounding and a score of another size: what means something shows the same.

    Args:
        method: whose maps they are.
        maps: signed.
        forward: that they were made of.
        again: makes the method's maps of another forward.
    """
    call = forward.call
    if call.canvas is not None or not maps:
        return {}
    black = (call.image.flatten(1) == 0).all(1)
    found: dict[str, Doubt] = {}
    redrawn: Maps = {}
    sizes = _outputs(forward)
    for label, grid in maps.items():
        flat = _flat(grid, call.batch, len(call.space))
        of_nothing = black[:, None].expand(flat.shape[:-1]) & flat.any(-1)
        even = is_even(flat) & (flat.shape[-1] > 1)
        noise = torch.zeros_like(even)
        kept = next((kept for known, kept in forward.activations.items() if str(known) == label), None)
        if kept is not None and kept.is_floating_point():
            size = sizes if method.scored else _mean_activation(forward, label)
            channels = _channels(forward, label)
            suspected = is_noise(method, flat, size[:, None].expand(flat.shape[:-1]), channels, kept.dtype) & flat.any(
                -1
            )
            if bool(suspected.any()) and call.image.is_floating_point():
                redrawn = redrawn or again(_otherwise(forward))
                other = _flat(redrawn[label], call.batch, len(call.space))
                noise = suspected & (_change(flat, other) > _OWN)
        for images, problem, advice in (
            (of_nothing, "is of an image that is zero everywhere", "look at how the image was read and preprocessed"),
            (noise, "is rounding: its gradient is zero", "try a later or earlier layer, or another target"),
            (even, "is the same everywhere up to rounding", "try an earlier layer, or another target"),
        ):
            if bool(images.any()) and label not in found:
                which = images.reshape(grid.shape[: grid.ndim - len(call.space)])
                found[label] = Doubt(which, problem, advice, level=images is even)
    return found


def _flat(grid: Tensor, batch: int, dimensions: int) -> Tensor:
    return grid.reshape(batch, -1, math.prod(grid.shape[grid.ndim - dimensions :]))


def _outputs(forward: Forward) -> Tensor:
    """The largest output of each image in absolute value."""
    batch = forward.call.batch
    rows = [found.detach() for found in tensors(forward.outputs) if found.ndim and len(found) == batch]
    sizes = [
        found.reshape(batch, -1).abs().amax(1).float() for found in rows if found.is_floating_point() and found.numel()
    ]
    return torch.stack(sizes).amax(0) if sizes else forward.columns.detach().abs().amax(1).float()


def _folded(forward: Forward, label: str) -> Tensor:
    known = next(known for known in forward.activations if str(known) == label)
    return forward.fold(known)(forward.activations[known].detach())


def _channels(forward: Forward, label: str) -> int:
    return _folded(forward, label).shape[1]


def _mean_activation(forward: Forward, label: str) -> Tensor:
    return _folded(forward, label).abs().mean(1).flatten(1).amax(1)


def _jittered(image: Tensor) -> Tensor:
    """An image whose values are changed in their last places."""
    most = 1 if torch.finfo(image.dtype).bits < 32 else 4  # in half precision four last places are three hundredths
    signs = torch.randint(-most, most + 1, image.shape, generator=Generator().manual_seed(1)).to(image)
    return image * (1 + signs * torch.finfo(image.dtype).eps)


def _otherwise(forward: Forward) -> Forward:
    """The same forward, rounded otherwise."""
    again = forward.again(forward.call.seen_as(_jittered))
    return replace(again, scores=again.scores * _SCALE)


def _change(one: Tensor, other: Tensor) -> Tensor:
    """By how much maps differ, whatever their sizes."""
    shown = [F.normalize(maps.double(), dim=-1, eps=0) for maps in (one, other)]
    apart: Tensor = torch.linalg.vector_norm((shown[0] - shown[1]).nan_to_num(1.0), dim=-1)
    return apart
