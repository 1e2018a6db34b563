"""What a vision transformer's attention says: probabilities A, and the gradients dS/dA of the score at them.

Everywhere `attentions`, `attention_logits`, `attention_gradients` are lists with a (B, heads, rows, columns) for each
layer, first to last: self-attention over all tokens, and last, where the model has one, an attention that pools them.
`readings` has for each layer the share (B, rows) of each row in what is read of it further on: all of a class token's,
the same for all patches where they are averaged. `places` takes values by column, (n, columns), to the grid of the
patches, (n, *space). Maps are (B, *space), signed, before the ReLU that some papers end with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from seewhy import targets
from seewhy._types import Ask
from seewhy.errors import InputError
from seewhy.images import arrays
from seewhy.methods.registry import method

Layers = list[Float[Tensor, "B _ _ _"]]
Readings = list[Float[Tensor, "B _"]]
Sequences = list[Float[Tensor, "B tokens C"]]
Places = Callable[[Tensor], Tensor]
Map = Float[Tensor, "B *space"]


def _read(reading: Float[Tensor, "B rows"], matrix: Float[Tensor, "B rows columns"]) -> Float[Tensor, "B columns"]:
    """The rows of a matrix by their shares."""
    return torch.einsum("br,brc->bc", reading, matrix)


@method("attention_rollout", needs=("attentions", "readings", "places"), source="arXiv:2005.00928")
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
    joint = torch.eye(attentions[0].shape[-1]).to(attentions[0])
    for attention in attentions:
        weights = fuse(attention, dim=1)
        smallest = int(discard * weights[0].numel()) + 1
        weights = weights * (weights >= weights.flatten(1).kthvalue(smallest).values[:, None, None])
        if weights.shape[1] == weights.shape[2]:
            weights = (1 - residual) * weights + residual * torch.eye(weights.shape[1]).to(weights)
        joint = weights / weights.sum(-1, keepdim=True) @ joint
    return places(_read(readings[-1], joint))


@method(
    "attention_relevance",
    needs=("attentions", "attention_gradients", "readings", "places"),
    source="arXiv:2103.15679",
    cost="1 forward, 1 backward",
)
def attention_relevance(attentions: Layers, attention_gradients: Layers, readings: Readings, places: Places) -> Map:
    """How relevance spreads through attention that spoke for the score (Chefer et al. 2021, eqs. 5 and 6).

    A' = mean_h (dS/dA * A)+ and R = R + A' R, from R = I; an attention that pools gives A' R. The I is left out of
    what is read: of a class token's row it touches no patch, and otherwise it is the same for all.
    """
    columns = attentions[0].shape[-1]
    gained = attentions[0].new_zeros(columns, columns)  # R - I
    for attention, gradient in zip(attentions, attention_gradients, strict=True):
        positive = (gradient * attention).clamp(min=0).mean(1)
        passed = positive + positive @ gained
        gained = gained + passed if passed.shape[1] == passed.shape[2] else passed
    return places(_read(readings[-1], gained))


@method(
    "agcam",
    needs=("attention_logits", "attention_gradients", "readings", "places"),
    source="arXiv:2402.04563",
    cost="1 forward, 1 backward",
)
def agcam(attention_logits: Layers, attention_gradients: Layers, readings: Readings, places: Places) -> Map:
    """Positive gradients at the attention, times the sigmoid of what its softmax was taken of (Leem and Seo 2024).

    sum_l sum_h sigmoid(z) * (dS/dA)+ in the class token's row; its sigmoid does not let one patch outshine the others.
    """
    parts = [
        places(_read(reading, (logits.sigmoid() * gradient.clamp(min=0)).sum(1)))
        for logits, gradient, reading in zip(attention_logits, attention_gradients, readings, strict=True)
    ]
    return torch.stack(parts).sum(0)


@method(
    "le_grad",
    needs=("layer_attention_gradients", "places"),
    source="arXiv:2404.03214",
    cost="2 forwards, L without the blocks, L backwards",
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


@method(
    "clip_surgery",
    needs=("block_inputs", "value_attention", "token_scores", "places"),
    source="arXiv:2304.05653",
    cost="1 forward, 1 with every block twice, and for each token what follows the last block",
    ask=targets.without_redundancy,
)
def clip_surgery(
    block_inputs: Sequences,
    value_attention: Sequences,
    token_scores: Callable[[Tensor], Tensor],
    places: Places,
    *,
    depth: int = 6,
) -> Map:
    """What the head says of each patch, led past the last blocks by attention among values alone (Li et al. 2023).

    x_N = x_d + sum_(i >= d) A_i, where x_d (B, tokens, C) is what the first of the last `depth` blocks is given, and
    A_i what the attention of block i adds to its own input if queries and keys are its values; the other layers are
    left out. `token_scores` tells (B, tokens) what the score is of each token in place of all. Of a prompt against
    others the part that they share is removed first: see `targets.without_redundancy`.
    """
    if depth < 1:
        raise InputError("no block is left to look at.", got=f"depth={depth}", expected="1 or more")
    return places(token_scores(block_inputs[-depth:][0] + torch.stack(value_attention[-depth:]).sum(0)))


@method(
    "vit_cx",
    needs=("activations", "inputs", "score", "generator"),
    source="arXiv:2211.03064",
    cost="1 + 2 x clusters forwards",
)
def vit_cx(
    activations: Float[Tensor, "B C *space"],
    inputs: Float[Tensor, "B c *size"],
    score: Ask,
    generator: Generator,
    *,
    distance: float = 0.1,
    noise: float = 0.1,
) -> Float[Tensor, "B *size"]:
    """What is left of the score of an image seen through groups of like channels of its tokens (Xie et al. 2023).

    Channels become masks M in [0, 1]; those of a cosine distance below `distance` are added up. A mask's weight is
    S(M X + (1 - M) e) - S(X + (1 - M) e), where e is normal, its deviation `noise`. A place has the weights of the
    masks on it by their shares in the sum of all there, over the number of masks. The mean weight is taken off, where
    the paper adds S(X): either is the same at all places, and so what is positive is above the average.
    """
    size = tuple(inputs.shape[2:])
    masks = [_grouped(_scaled(arrays.resize(image, size)), distance) for image in activations]
    images = torch.cat([torch.full((len(found),), image) for image, found in enumerate(masks)]).to(inputs.device)
    numbers = torch.cat([torch.arange(len(found)) for found in masks]).tolist()
    every = torch.cat(masks)[:, None]
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))

    def noisy(rows: Tensor) -> Tensor:
        """The mask's own noise, the same in every batch, where the mask is not."""
        drawn = [
            torch.randn(inputs.shape[1:], generator=Generator().manual_seed(seed + numbers[row]))
            for row in rows.tolist()
        ]
        return (1 - every[rows]) * noise * torch.stack(drawn).to(every)

    masked = score(images, lambda rows: every[rows] * inputs[images[rows]] + noisy(rows))
    weights = masked - score(images, lambda rows: inputs[images[rows]] + noisy(rows))
    maps = []
    for found, weight in zip(masks, torch.split(weights.to(every), [len(found) for found in masks]), strict=True):
        covered = found.sum(0)
        total = torch.einsum("n,n...->...", weight - weight.mean(), found)
        maps.append(torch.where(covered > 0, total / torch.where(covered > 0, covered, 1), 0) / max(len(found), 1))
    return torch.stack(maps)


def _scaled(masks: Float[Tensor, "N *size"]) -> Float[Tensor, "K *size"]:
    """Masks scaled to [0, 1], but for those that are constant."""
    scaled = arrays.rescale(masks, tuple(range(1, masks.ndim)))
    return scaled[scaled.flatten(1).any(1)]


def _grouped(masks: Float[Tensor, "N *size"], distance: float) -> Float[Tensor, "K *size"]:
    """Masks added up by complete linkage: two groups are one while all their masks are within a cosine `distance`."""
    rows = F.normalize(masks.flatten(1), dim=1)
    apart = (1 - rows @ rows.mT).fill_diagonal_(torch.inf)
    group = torch.arange(len(masks), device=masks.device)
    while len(masks) > 1 and float(apart.min()) < distance:
        kept, merged = sorted(divmod(int(apart.argmin()), len(masks)))
        farthest = apart[kept].maximum(apart[merged])
        apart[kept], apart[:, kept] = farthest, farthest
        apart[merged], apart[:, merged] = torch.inf, torch.inf
        apart[kept, kept] = torch.inf
        group[group == merged] = kept
    _, member = torch.unique(group, return_inverse=True)
    sums = masks.new_zeros(int(member.max()) + 1 if len(member) else 0, *masks.shape[1:]).index_add(0, member, masks)
    return _scaled(sums)
