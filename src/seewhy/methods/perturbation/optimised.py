"""The mask is found by optimisation: the mixture of channels through which the image scores best."""

from __future__ import annotations

import math

import torch

from seewhy._types import Ask
from seewhy.methods.channels import channel_sum, spread
from seewhy.methods.perturbation.asking import Images, Layer, Map, as_masks, is_constant
from seewhy.methods.registry import method


@method(
    "opti_cam",
    needs=("activations", "inputs", "score"),
    source="arXiv:2301.07002",
    cost="1 + steps forwards, steps backwards",
    checked=(
        "Adam's formulas in float64 for four steps: the same to 1e-4. In float32 the result follows rounding: an "
        "image alone and in a batch of four differed by 0.4% to 7.5% of the map's range after 100 steps, on a "
        "resnet18 of random weights at 64 x 64. In float64, which is what model.double() with double inputs "
        "takes, there was no difference. The authors' code stops early where the loss rises, and its default rate "
        "is 0.01."
    ),
)
def opti_cam(activations: Layer, inputs: Images, score: Ask, *, steps: int = 100, rate: float = 0.1) -> Map:
    """The convex combination of channels through which the image scores best (Zhang et al. 2023, eqs. 7 to 10).

    Found by Adam from equal weights. Constant channels take no part: the mask, scaled to [0, 1], does not depend on
    them, and Adam would follow the rounding of their zero gradients. Rounding decides all the same: Adam takes a step
    of one size wherever a gradient points, and small differences grow from step to step. In float32 an image in a batch
    has another map than it has alone: after 100 steps they differ by some percent of their range. In float64 they do
    not.

    Args:
        steps: how many Adam takes.
        rate: its learning rate.
    """
    logits = activations.new_zeros(activations.shape[:2]).requires_grad_()
    out = is_constant(activations) & ~is_constant(activations).all(1, keepdim=True)
    optimiser = torch.optim.Adam([logits], lr=rate)
    images = torch.arange(len(inputs), device=inputs.device)

    def combined() -> Map:
        return channel_sum(spread(logits.masked_fill(out, -math.inf).softmax(1), activations))

    for _ in range(steps):
        masked = as_masks(combined(), inputs.shape[2:]) * inputs
        gain = score(images, lambda rows, masked=masked: masked[rows])  # type: ignore[misc]
        (logits.grad,) = torch.autograd.grad(-gain.sum(), logits)
        optimiser.step()
    return combined().detach()
