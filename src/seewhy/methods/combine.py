"""What works with any base method: how channels become one map, how layers become one heatmap, smoothing by views."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import InputError

Fuse = Literal["mean", "max", "product"]
Reduce = Callable[[Tensor], Tensor]  # (B, C, *space) -> (B, *space)


def channel_sum(weighted: Float[Tensor, "B C *space"]) -> Float[Tensor, "B *space"]:
    """The evidence of all channels together."""
    return weighted.sum(1)


def principal_component(weighted: Float[Tensor, "B C *space"]) -> Float[Tensor, "B *space"]:
    """Positions projected on their first principal component over channels (Muhammad and Yeasin, arXiv:2008.00299).

    A component's sign is arbitrary; here it is the one that agrees with the sum over channels. Computed in float64
    from the smaller of the two Gram matrices, whose first eigenvector is that of the decomposition.
    """
    batch, channels, *space = weighted.shape
    places = weighted.flatten(2).mT.double()  # (B, places, channels)
    centred = places - places.mean(1, keepdim=True)
    if centred.shape[1] <= channels:
        values, vectors = torch.linalg.eigh(centred @ centred.mT)
        projection = vectors[..., -1] * values[:, -1:].clamp(min=0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(centred.mT @ centred)
        projection = (centred @ vectors[..., -1:]).squeeze(-1)
    agreement = (projection * centred.sum(-1)).sum(-1, keepdim=True)
    signed = torch.where(agreement < 0, -projection, projection)
    return signed.to(weighted.dtype).reshape(batch, *space)


def fuse(maps: Sequence[Float[Tensor, "*shape"]], how: Fuse) -> Float[Tensor, "*shape"]:
    """Several layers' maps of one size as one."""
    stacked = torch.stack(list(maps))
    if how == "mean":
        return stacked.mean(0)
    if how == "max":
        return stacked.amax(0)
    if how == "product":
        return stacked.prod(0)
    raise InputError("unknown way to fuse layers.", got=repr(how), expected='"mean", "max" or "product"')


class View(NamedTuple):
    """One way to look at the same image: what is done to it, and what puts a map back in place."""

    apply: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor], Tensor]
    mirrored: bool


def _mirror(tensor: Tensor) -> Tensor:
    return tensor.flip(-1)


def views() -> list[View]:
    """The views of `augment_smooth`: the image and its mirror, each at 0.9, 1.0 and 1.1 times its values."""

    def at(brightness: float, turn: Callable[[Tensor], Tensor]) -> View:
        return View(lambda image: turn(image) * brightness, turn, turn is _mirror)

    return [at(brightness, turn) for turn in (lambda tensor: tensor, _mirror) for brightness in (1.0, 0.9, 1.1)]
