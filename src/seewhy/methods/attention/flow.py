"""How attention flows through all layers: their matrices multiplied."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import InputError
from seewhy.methods.attention.given import Layers, Map, Places, Readings, read
from seewhy.methods.registry import method


@method(
    "attention_rollout",
    needs=("attentions", "readings", "places"),
    source="arXiv:2005.00928",
    checked=(
        "The paper's recursion entry by entry in float64: the same to 1e-12; of attention that transformers "
        "reports itself: to 1e-4."
    ),
)
def attention_rollout(
    attentions: Layers,
    readings: Readings,
    places: Places,
    *,
    residual: float = 0.5,
    fusion: Literal["mean", "max", "min"] = "mean",
    discard: float = 0.0,
) -> Map:
    """The attention of all layers multiplied, each mixed with the identity for its residual (Abnar and Zuidema 2020).

    A = 0.5 W + 0.5 I, rows scaled to 1, and R_l = A_l R_{l-1}; `residual` is the share of I. It is the same for every
    class. fusion: how heads become one. discard: the share of each layer's smallest weights to leave out, which the
    paper does not.
    """
    if fusion not in ("mean", "max", "min"):
        raise InputError("unknown way to fuse heads.", got=repr(fusion), expected='"mean", "max" or "min"')
    if not 0 <= discard < 1:
        raise InputError("no share of the weights.", got=f"discard={discard}", expected="0 <= discard < 1")
    fuse = getattr(torch, fusion if fusion == "mean" else f"a{fusion}")
    joint = None
    for attention in attentions:
        weights = fuse(attention, dim=1)
        smallest = int(discard * weights[0].numel()) + 1
        weights = weights * (weights >= weights.flatten(1).kthvalue(smallest).values[:, None, None])
        if weights.shape[1] == weights.shape[2]:
            weights = (1 - residual) * weights + residual * torch.eye(weights.shape[1]).to(weights)
        weights = weights / weights.sum(-1, keepdim=True)
        joint = weights if joint is None else weights @ joint
    assert joint is not None
    return places(read(readings[-1], joint))


@method(
    "attention_relevance",
    needs=("attentions", "attention_gradients", "readings", "places"),
    source="arXiv:2103.15679",
    cost="1 forward, 1 backward",
    checked=(
        "Equations 5 and 6 entry by entry in float64: the same to 1e-12; of attention that transformers reports "
        "itself: to 1e-4."
    ),
)
def attention_relevance(attentions: Layers, attention_gradients: Layers, readings: Readings, places: Places) -> Map:
    """How relevance spreads through attention that spoke for the score (Chefer et al. 2021, eqs. 5 and 6).

    A' = mean_h (dS/dA * A)+ and R = R + A' R, from R = I; an attention that pools gives A' R. The I is left out of
    what is read: of a class token's row it touches no patch, and otherwise it is the same for all.
    """
    gained = None  # R - I
    for positive in map(_gain, attentions, attention_gradients):  # one layer's attention in memory at a time
        passed = positive if gained is None else positive + positive @ gained
        squares = passed.shape[1] == passed.shape[2]
        gained = passed if gained is None or not squares else gained + passed
    assert gained is not None
    return places(read(readings[-1], gained))


def _gain(attention: Float[Tensor, "B heads n m"], gradient: Float[Tensor, "B heads n m"]) -> Float[Tensor, "B n m"]:
    return (gradient * attention).clamp_(min=0).mean(1)
