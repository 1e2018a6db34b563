"""Channels, or groups of them, weighted by what showing or hiding them does to the score."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy._types import Ask
from seewhy.errors import InputError
from seewhy.images import arrays
from seewhy.methods.channels import Reduce, channel_sum, spread
from seewhy.methods.perturbation.asking import Images, Layer, Map, as_masks, asked, asked_of_each, is_constant, through
from seewhy.methods.registry import method


@method(
    "poly_cam",
    needs=("activations", "inputs", "scores", "score"),
    source="arXiv:2204.13359",
    cost="1 forward, and 1 + 2C for each resolution",
    staged=True,
    fuse="local_product",
    checked=(
        "The paper's weights in float64, S(0) taken off: the same to 1e-4; LNorm to 5e-4. The authors' code cuts "
        "masks at percentiles before it enlarges them and leaves S(0) out. On a resnet18 of random weights and "
        "ten classes, 96 x 96 photographs: the two correlate 0.97 at layer4, largest difference 0.19; S(0) is "
        "0.10."
    ),
)
def poly_cam(
    activations: Layer,
    inputs: Images,
    scores: Float[Tensor, " B"],
    score: Ask,
    *,
    variant: Literal["+", "-", "+-"] = "+-",
    reduce: Reduce = channel_sum,
) -> Map:
    """Channels weighted by what showing them gains and hiding them loses, at every resolution (Englebert et al. 2022).

    The resolutions become one map by `fuse.local_product`. The authors' code differs in three things. It explains
    probabilities, as `Probability` does, and leaves S(0) out: about one over the number of classes, not small with ten
    of them. Here S(0) is taken off, and no constant in the score counts. It cuts masks at percentiles, then enlarges
    them; here they are enlarged, then scaled by their range. It shrinks maps by bilinear samples; here by their mean,
    which is the same where each resolution is twice the next.

    Args:
        variant: with a channel's mask M, "+" is S(M X) - S(0), "-" is S(X) - S((1 - M) X) and "+-" their sum, where
            positive: PCAM+, PCAM- and PCAM+-.
        reduce: how the weighted channels become a map.

    Raises:
        InputError: for another variant.
    """
    if variant not in ("+", "-", "+-"):
        raise InputError("unknown variant of Poly-CAM.", got=repr(variant), expected='"+", "-" or "+-"')
    varied, shown, whole = ~is_constant(activations), through(activations, inputs), scores[:, None]

    def hidden(images: Tensor, channels: Tensor) -> Tensor:
        return inputs[images] - shown(images, channels)

    weights = scores.new_zeros(varied.shape)
    if "+" in variant:
        black = asked_of_each(score, inputs, 1, lambda images, _: torch.zeros_like(inputs[images]))
        weights = weights + asked(score, varied, shown, black) - black
    if "-" in variant:
        weights = weights + whole - asked(score, varied, hidden, whole)
    return reduce(spread(weights.clamp(min=0), activations))


@method(
    "group_cam",
    needs=("activations", "gradients", "inputs", "score"),
    source="arXiv:2103.13859",
    cost="2 + groups forwards, 1 backward",
    checked=(
        "The definition in the docstring in float64: the same to 1e-4. The authors' current code differs as the "
        "docstring says. On a resnet18 of random weights and ten classes, 96 x 96 photographs: the two correlate "
        "0.92 to 0.94, largest difference 0.25."
    ),
)
def group_cam(
    activations: Layer,
    gradients: Layer,
    inputs: Images,
    score: Ask,
    *,
    groups: int = 32,
    quantile: float = 0.7,
    sigma: float = 10.0,
) -> Map:
    """Groups of neighbouring channels weighted by the score that they bring back into a blurred image (Zhang 2021).

    A group's mask is the Grad-CAM of its channels, where positive, without what lies under its quantile. The groups'
    maps are added up unscaled, each times the score that its mask gains over the blurred image alone. The authors'
    current code adds up unscaled maps too, but enlarged ones. It has no quantile, takes the gain of the probability and
    only where that is positive, and blurs by 50 pixels, cut at 25.

    Args:
        groups: how many; a layer of fewer channels has one for each.
        quantile: the share of each group's map that is set to 0.
        sigma: of the blur, in pixels. Volumes are blurred slice by slice.
    """
    count = min(groups, activations.shape[1])
    weighted = spread(gradients.flatten(2).mean(-1), activations)
    maps = torch.stack([group.sum(1) for group in weighted.tensor_split(count, 1)], 1).clamp(min=0)
    floor = maps.flatten(2).quantile(quantile, dim=-1)
    maps = maps * (maps > floor.reshape(*floor.shape, *[1] * (maps.ndim - 2)))
    sides = tuple(range(-min(2, inputs.ndim - 2), 0))  # a signal has one
    blurred = arrays.blur(inputs.float(), sigma, sides).to(inputs)

    def shown(images: Tensor, numbers: Tensor) -> Tensor:
        group = (numbers - 1).clamp(min=0)  # number 0 is the blurred image itself
        bare = (numbers == 0).reshape(-1, *[1] * (inputs.ndim - 1))
        masks = torch.where(bare, 0, as_masks(maps[images, group], inputs.shape[2:]))
        return masks * inputs[images] + (1 - masks) * blurred[images]

    found = asked_of_each(score, inputs, 1 + count, shown)
    return channel_sum(spread(found[:, 1:] - found[:, :1], maps))
