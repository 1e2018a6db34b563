"""Token activation maps: what a token's logit at the pictures' places owes to them, and not to the text before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import InputError
from seewhy.methods.registry import method


@method(
    "tam",
    needs=("readouts",),
    source="arXiv:2506.23270",
    cost="1 forward",
    checked="Its three steps place by place in float64, the least squares by a search: the same to 1e-6.",
)
def tam(readouts: Sequence[Sequence[Any]], *, window: int = 3) -> Float[Tensor, "B *space"]:
    """The token's logit at the pictures, less what earlier tokens explain of it, denoised (Li et al. 2025).

    Activations are logits at the pictures' places, positive part. The interference is the mean of the earlier tokens'
    activations, weighted by how strongly the token itself is said at each of them; what least squares explain by it is
    taken off, and the positive part is filtered by ranks. Of a target of several tokens it is the mean.

    Args:
        readouts: for each image, for each of the target's tokens: see `seewhy.evidence.words.Readout`.
        window: the side of the rank filter, in cells; 1 leaves it out.

    Raises:
        InputError: for a window that is even.
    """
    if window < 1 or window % 2 == 0:
        raise InputError("the window has no middle.", got=window, expected="an odd number of cells")
    maps = [torch.stack([_without(*readout) for readout in tokens]) for tokens in readouts]
    return torch.stack([_filtered(found, window).mean(0) for found in maps])


def _without(
    own: Float[Tensor, "*space"], earlier: Float[Tensor, "K *space"], likeness: Float[Tensor, " K"]
) -> Float[Tensor, "*space"]:
    """The token's activation without the share of the interference that fits it best (equations 3 to 5)."""
    own, likeness = own.clamp(min=0), likeness.clamp(min=0)
    weights = likeness / (likeness.sum() + 1e-8)
    interference = torch.einsum("k,k...->...", weights, earlier.clamp(min=0))
    power = interference.square().sum()
    share = torch.where(power > 0, (own * interference).sum() / power.clamp(min=torch.finfo(power.dtype).tiny), 0)
    return (own - share * interference).clamp(min=0)


def _filtered(maps: Float[Tensor, "n *space"], window: int) -> Float[Tensor, "n *space"]:
    """The mean of the values around each place, weighted by a Gaussian over their ranks (equation 6).

    Its deviation, in ranks, is that of the values over their mean: the more they scatter, the less the median counts.
    """
    if window == 1:
        return maps
    rows, columns = maps.shape[-2:]
    flat = maps.reshape(-1, 1, rows, columns)
    half = window // 2
    padded = F.pad(flat, (half,) * 4, mode="reflect" if min(rows, columns) > half else "replicate")
    values = F.unfold(padded, window).sort(1).values  # (n, window * window, places)
    mean = values.mean(1, keepdim=True)
    spread = values.std(1, keepdim=True, correction=0) / mean
    ranks = (torch.arange(window**2, device=maps.device) - window**2 // 2).to(maps)[:, None]
    weights = torch.exp(-ranks.square() / (2 * spread.square()).clamp(min=1e-12))
    found = (values * weights).sum(1) / weights.sum(1)
    return torch.where(mean[:, 0] > 0, found, 0).reshape(maps.shape)
