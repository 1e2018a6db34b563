"""How much of an image a map speaks of. The sign of a value does not count."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.metrics._inputs import Maps, finite


def entropy(maps: Maps) -> Float[Tensor, " maps"]:
    """Entropy of a map's values as shares of their sum: the less, the simpler.

    Bhatt et al. 2020 (arXiv:2005.00631), definition 4, "complexity".

    Args:
        maps: (B, H, W) or (B, D, H, W).

    Returns:
        (B,) in nats, from 0 (one pixel) to log(H W) (a constant map); NaN for a map of zeros, which has no shares.

    Raises:
        InputError: if a map is not finite.
    """
    values = finite(maps).abs().flatten(1).double()
    shares = values / values.sum(1, keepdim=True)
    entropies: Tensor = torch.special.entr(shares).sum(1)
    return entropies.to(torch.promote_types(maps.dtype, torch.float32))


def effective_size(maps: Maps) -> Float[Tensor, " maps"]:
    """How many pixels would carry a map if all of them had as much: exp(`entropy`).

    The Hill number of order 1 (Hill 1973, doi:10.2307/1934352).

    Args:
        maps: (B, H, W) or (B, D, H, W).

    Returns:
        (B,), from 1 (one pixel) to H W (a constant map); NaN for a map of zeros, which has no shares.

    Raises:
        InputError: if a map is not finite.
    """
    return entropy(maps).exp()


def sparseness(maps: Maps) -> Float[Tensor, " maps"]:
    """Gini coefficient of a map's values: 0 if all are equal, near 1 if few have everything.

    Chalasani et al. 2020 (arXiv:1810.06583), section 4.1.

    Args:
        maps: (B, H, W) or (B, D, H, W).

    Returns:
        (B,) in [0, 1); NaN for a map of zeros.

    Raises:
        InputError: if a map is not finite.
    """
    values = finite(maps).abs().flatten(1).sort(dim=1).values.double()
    count = values.shape[1]
    weights = 2 * torch.arange(1, count + 1, device=values.device, dtype=torch.float64) - count - 1
    gini = (weights * values).sum(1) / (count * values.sum(1))
    return gini.to(torch.promote_types(maps.dtype, torch.float32))
