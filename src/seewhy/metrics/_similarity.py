"""How like two rows of numbers are; NaN where one of them is constant, as it is like everything and nothing."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.metrics._inputs import Maps, constant, undefined


def pearson(a: Float[Tensor, "B S"], b: Float[Tensor, "B S"]) -> Float[Tensor, " B"]:
    """Pearson's correlation of each row of `a` with that of `b`."""
    x, y = (values - values.mean(1, keepdim=True) for values in (a, b))
    found = (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))
    return undefined(found.clamp(-1, 1), constant(a) | constant(b))


def correlation(maps: Maps, others: Maps) -> Float[Tensor, " maps"]:
    """Pearson's correlation of two maps of each image.

    Args:
        maps: (B, H, W) or (B, D, H, W).
        others: of the same shape.

    Returns:
        (B,) in [-1, 1]; NaN where one of the maps is constant.
    """
    return pearson(maps.flatten(1), others.flatten(1))


def rank_correlation(maps: Maps, others: Maps) -> Float[Tensor, " maps"]:
    """Spearman's correlation of two maps of each image: that of the ranks, equal values sharing the mean of theirs.

    Args:
        maps: (B, H, W) or (B, D, H, W).
        others: of the same shape.

    Returns:
        (B,) in [-1, 1]; NaN where one of the maps is constant.
    """
    return pearson(_mean_ranks(maps.flatten(1)), _mean_ranks(others.flatten(1)))


def _mean_ranks(values: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
    ascending, values = values.sort(dim=1).values, values.contiguous()
    below = torch.searchsorted(ascending, values, right=False)
    return (below + torch.searchsorted(ascending, values, right=True) - 1).double() / 2
