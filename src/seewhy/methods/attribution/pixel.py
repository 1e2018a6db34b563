"""Maps on the input itself, at its own resolution."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.images import arrays
from seewhy.methods.attribution.filters import filtered
from seewhy.methods.cam.gradient import grad_cam
from seewhy.methods.channels import Reduce, channel_sum
from seewhy.methods.registry import method

Image = Float[Tensor, "B C *size"]
Layer = Float[Tensor, "B C2 *space"]
Map = Float[Tensor, "B *size"]


@method(
    "full_grad",
    needs=("inputs", "input_gradients", "bias_gradients"),
    source="arXiv:1905.00780",
    cost="1 forward, 1 backward",
    checked=(
        "The paper's sum in float64: the same to 1e-5; the parts add up to the score to 1e-4. Each part is scaled "
        "to [0, 1] by an image's range and then enlarged. grad-cam 1.5.7 scales every channel by itself: more "
        "than 0.05 of the heatmap apart."
    ),
)
def full_grad(
    inputs: Image, input_gradients: Image, bias_gradients: list[Tensor], *, reduce: Reduce = channel_sum
) -> Map:
    """The sizes of the input's and of every bias's part in the score, summed (Srinivas and Fleuret 2019).

    f(x) = x . df/dx + sum_b b . df/db for a network of linear layers and ReLUs. Each part is scaled to [0, 1] by its
    own range over all channels and places of an image, then resized; grad-cam scales every channel by itself.
    The biases are those of convolutions and, with their running statistics, of batch normalisations. `reduce` is given
    the parts as channels.
    """
    size = tuple(inputs.shape[2:])
    parts = (part.abs() for part in (inputs * input_gradients, *bias_gradients))
    scaled = [arrays.rescale(part, tuple(range(1, part.ndim))).sum(1) for part in parts]
    return reduce(torch.stack([arrays.resize(part, size) for part in scaled], 1))


@method(
    "guided_backprop",
    needs=("guided_gradients",),
    source="arXiv:1412.6806",
    cost="1 forward, 1 backward",
    checked=(
        "The rule layer by layer in float64: the same to 1e-4. grad-cam 1.5.7, for ReLU modules and one image: "
        "the same to 1e-4; for functional ReLUs it gives the plain gradient."
    ),
)
@filtered
def guided_backprop(guided_gradients: Image) -> Map:
    """The gradient at the input, cut at 0 before every activation function on its way back, summed over colours.

    R_l = f'(z) max(R_{l+1}, 0), where f' is 1 or 0 for a ReLU (Springenberg et al. 2015). GELU, SiLU and
    the like are treated alike: what arrives is cut at 0, then multiplied by their own derivative.
    """
    return guided_gradients.sum(1)


@method(
    "guided_grad_cam",
    needs=("activations", "gradients", "guided_gradients"),
    source="arXiv:1610.02391",
    cost="1 forward, 2 backwards",
    checked="The product of guided_backprop and grad_cam by hand: the same to 1e-6.",
)
def guided_grad_cam(activations: Layer, gradients: Layer, guided_gradients: Image) -> Map:
    """Guided backpropagation times the positive part of Grad-CAM, resized (Selvaraju et al. 2017)."""
    size = tuple(guided_gradients.shape[2:])
    return guided_backprop(guided_gradients) * arrays.resize(grad_cam(activations, gradients).clamp(min=0), size)
