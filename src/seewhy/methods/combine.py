"""What works with any base method: how channels become one map, how layers become one heatmap, smoothing by views."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy import arrays
from seewhy.errors import InputError

Fuse = Literal["mean", "max", "product", "local_product"]
Reduce = Callable[[Tensor], Tensor]  # (B, C, *space) -> (B, *space)


def spread(weights: Float[Tensor, "B C"], layer: Float[Tensor, "B C *space"]) -> Float[Tensor, "B C *space"]:
    """Each channel of a layer times its weight."""
    return weights.reshape(*weights.shape, *[1] * (layer.ndim - 2)) * layer


def over_space(layer: Float[Tensor, "B C *space"]) -> Float[Tensor, "B C"]:
    """The sum over all places."""
    return layer.flatten(2).sum(-1)


def channel_sum(weighted: Float[Tensor, "B C *space"]) -> Float[Tensor, "B *space"]:
    """The evidence of all channels together."""
    return weighted.sum(1)


def principal_component(weighted: Float[Tensor, "B C *space"]) -> Float[Tensor, "B *space"]:
    """Positions projected on their first principal component over channels (Muhammad and Yeasin, arXiv:2008.00299).

    A component's sign is arbitrary; here it is the one that agrees with the sum over channels.
    """
    rows = places(weighted)
    return like(weighted, agreeing(projected(rows - rows.mean(1, keepdim=True)), rows.sum(-1)))


def projected(rows: Float[Tensor, "B places C"]) -> Float[Tensor, "B places"]:
    """Each place's coordinate along the first right singular vector, from the smaller of the two Gram matrices."""
    if rows.shape[1] <= rows.shape[2]:
        return leading(rows @ rows.mT)
    _, vectors = torch.linalg.eigh(rows.mT @ rows)
    projection: Tensor = (rows @ vectors[..., -1:]).squeeze(-1)
    return projection


def places(layer: Float[Tensor, "B C *space"]) -> Float[Tensor, "B places C"]:
    """A row of channels for each place, in float64."""
    return layer.flatten(2).mT.double()


def like(layer: Float[Tensor, "B C *space"], flat: Float[Tensor, "B places"]) -> Float[Tensor, "B *space"]:
    """Values by place as a map of the layer's grid and type."""
    return flat.to(layer.dtype).reshape(layer.shape[0], *layer.shape[2:])


def leading(gram: Float[Tensor, "B places places"]) -> Float[Tensor, "B places"]:
    """The first eigenvector of a symmetric matrix times the root of its eigenvalue: the places' first coordinate."""
    values, vectors = torch.linalg.eigh(gram)
    first: Tensor = vectors[..., -1] * values[:, -1:].clamp(min=0).sqrt()
    return first


def agreeing(projection: Float[Tensor, "B places"], with_: Float[Tensor, "B places"]) -> Float[Tensor, "B places"]:
    """`projection` with the sign that makes its product with another map positive."""
    return torch.where((projection * with_).sum(-1, keepdim=True) < 0, -projection, projection)


def fuse(maps: Sequence[Float[Tensor, "*shape"]], how: Fuse) -> Float[Tensor, "*shape"]:
    """Several layers' maps of one size as one."""
    stacked = torch.stack(list(maps))
    if how == "mean":
        return stacked.mean(0)
    if how == "max":
        return stacked.amax(0)
    if how == "product":
        return stacked.prod(0)
    raise unknown_fuse(how)


def unknown_fuse(how: object) -> InputError:
    """The refusal of what is no `Fuse`."""
    return InputError("unknown way to fuse layers.", got=repr(how), expected=", ".join(map(repr, get_args(Fuse))))


def local_product(maps: Sequence[Float[Tensor, "..."]], dimensions: int) -> Float[Tensor, "..."]:
    """Maps of several resolutions as one of the finest, which outlines what the coarser ones point at.

    From the coarsest on, what there is so far is enlarged and multiplied by the next map's positive part over its local
    average: the mean in each place of the coarser map, enlarged alike (LNorm of Poly-CAM, Englebert et al. 2022,
    arXiv:2204.13359; of resolutions of any ratio). The grid is in the last `dimensions`.
    """
    coarse, *finer = sorted(maps, key=lambda grid: math.prod(grid.shape[-dimensions:]))
    for grid in finer:
        size, positive = tuple(grid.shape[-dimensions:]), grid.clamp(min=0)
        average = arrays.resize(arrays.resize(positive, tuple(coarse.shape[-dimensions:]), "area"), size)
        outline = torch.where(average > 0, positive / torch.where(average > 0, average, 1), 0)
        coarse = arrays.resize(coarse, size) * outline
    return coarse


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
