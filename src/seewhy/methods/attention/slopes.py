"""Gradients of the score at the attention, layer by layer, and at what the last one hands on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from seewhy.images import arrays
from seewhy.methods.attention.given import Layers, Map, Places, Readings, read
from seewhy.methods.registry import method


@method(
    "agcam",
    needs=("attention_logits", "attention_gradients", "readings", "places"),
    source="arXiv:2402.04563",
    cost="1 forward, 1 backward",
    checked="The paper's sum entry by entry in float64: the same to 1e-12.",
)
def agcam(attention_logits: Layers, attention_gradients: Layers, readings: Readings, places: Places) -> Map:
    """Positive gradients at the attention, times the sigmoid of what its softmax was taken of (Leem and Seo 2024).

    sum_l sum_h sigmoid(z) * (dS/dA)+ in the class token's row; its sigmoid does not let one patch outshine the others.
    """
    parts = [
        places(read(reading, (logits.sigmoid() * gradient.clamp(min=0)).sum(1)))
        for logits, gradient, reading in zip(attention_logits, attention_gradients, readings, strict=True)
    ]
    return torch.stack(parts).sum(0)


@method(
    "le_grad",
    needs=("layer_attention_gradients", "places"),
    source="arXiv:2404.03214",
    cost="2 forwards, L without the blocks, L backwards",
    checked=(
        "The paper's mean entry by entry in float64: the same to 1e-12; through a model that pools by attention: "
        "to 1e-4."
    ),
)
def le_grad(layer_attention_gradients: Layers, places: Places) -> Map:
    """Positive gradients at the attention of each layer, of the score by that layer's tokens (Bousselham et al. 2024).

    `layer_attention_gradients` are dS_l/dA_l, where S_l is what the head makes of the mean of layer l's tokens; where
    an attention pools, of those tokens, at the attention that pools. Averaged over heads, rows and layers.
    """
    parts = [places(gradient.clamp(min=0).mean((1, 2))) for gradient in layer_attention_gradients]
    return torch.stack(parts).mean(0)


@method(
    "grad_eclip",
    needs=("queries", "keys", "values", "attended_gradients", "places"),
    source="arXiv:2502.18816",
    cost="1 forward, 1 backward",
    checked="The paper's product entry by entry in float64: the same to 1e-12.",
)
def grad_eclip(
    queries: Float[Tensor, "B heads rows d"],
    keys: Float[Tensor, "B heads columns d"],
    values: Float[Tensor, "B heads columns e"],
    attended_gradients: Float[Tensor, "B heads rows e"],
    places: Places,
) -> Map:
    """Values weighted by the gradient at the last attention's output, and by loosened attention (Zhao et al. 2024).

    sum_c dS/do_c v_c times the cosine of query and key, scaled to [0, 1] over the patches instead of by a softmax;
    heads are concatenated. Summed over the rows that the score depends on, which is one where there is a class token.
    """
    q, k, v, slopes = (tensor.transpose(1, 2).flatten(2) for tensor in (queries, keys, values, attended_gradients))
    cosines = places((F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT).flatten(0, 1))
    loosened = arrays.rescale(cosines, tuple(range(1, cosines.ndim)))
    parts = loosened * places((slopes @ v.mT).flatten(0, 1))
    return parts.reshape(*q.shape[:2], *parts.shape[1:]).sum(1)
