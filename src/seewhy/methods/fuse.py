"""How the maps of several layers become one heatmap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import InputError
from seewhy.images import arrays

Fuse = Literal["mean", "max", "product", "local_product", "sum"]


def fuse_maps(maps: Sequence[Float[Tensor, "*shape"]], how: Fuse) -> Float[Tensor, "*shape"]:
    """Several layers' maps of one size as one.

    Args:
        maps: scaled alike; for "sum" as they are, each with a part of what speaks for the score.
        how: "local_product" has a function of its own.
    """
    stacked = torch.stack(list(maps))
    if how == "mean":
        return stacked.mean(0)
    if how == "sum":
        return stacked.sum(0)
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
