"""Class activation maps: a layer's activations, weighted by what the score's gradient says of them.

Everywhere `activations` A and `gradients` g = dS/dA are (B, C, *space); the result is (B, *space), signed, before the
ReLU that the papers end with, except where a paper's ReLU stands inside the sum. `reduce` turns the weighted
activations (B, C, *space) into the map; the papers' choice is the sum over channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from seewhy.images import arrays
from seewhy.methods.channels import Reduce, channel_sum, over_space, principal_component, spread
from seewhy.methods.registry import method

Layer = Float[Tensor, "B C *space"]
Map = Float[Tensor, "B *space"]
Weights = Float[Tensor, "B C"]


def _quotient(above: Tensor, below: Tensor) -> Tensor:
    """The quotient above / below, and 0 where below is 0: there is nothing to share out."""
    return torch.where(below == 0, 0, above / torch.where(below == 0, 1, below))


@method(
    "cam",
    needs=("activations", "weights"),
    source="arXiv:1512.04150",
    checked="The paper's equations, written out place by place in float64: the same to 1e-10.",
)
def cam(activations: Layer, weights: Float[Tensor, "B C"], *, reduce: Reduce = channel_sum) -> Map:
    """The classifier's own weights on the channels before its global average (Zhou et al. 2016, eq. 2)."""
    return reduce(spread(weights, activations))


@method(
    "grad_cam",
    needs=("activations", "gradients"),
    source="arXiv:1610.02391",
    checked=(
        "The paper's equations, written out place by place in float64: the same to 1e-10. captum 0.9.0: the same "
        "to 1e-5. grad-cam 1.5.7 on resnet18, VGG-11 and MobileNetV2: heatmaps the same to 5e-5. torchcam 0.5.0: "
        "the same to 1e-5."
    ),
)
def grad_cam(activations: Layer, gradients: Layer, *, reduce: Reduce = channel_sum) -> Map:
    """Channels weighted by their mean gradient (Selvaraju et al. 2017, eqs. 1 and 2).

    Made for the last layer. Far before it one weight for all places says little: on mosaics of photographs the map of
    the middle layers is at chance.
    """
    return reduce(spread(grad_cam_weights(gradients), activations))


def grad_cam_weights(gradients: Layer) -> Weights:
    """Each channel's mean gradient."""
    return gradients.flatten(2).mean(-1)


@method(
    "hires_cam",
    needs=("activations", "gradients"),
    source="arXiv:2011.08891",
    checked=(
        "The paper's equations, written out place by place in float64: the same to 1e-10. grad-cam 1.5.7 on "
        "resnet18, VGG-11 and MobileNetV2: heatmaps the same to 5e-5."
    ),
)
def hires_cam(activations: Layer, gradients: Layer, *, reduce: Reduce = channel_sum) -> Map:
    """Every activation times its own gradient: what each place added to the score (Draelos and Carin 2020).

    Below chance in early layers of a ConvNeXt: layer norms behind them make its gradient large on flat background.
    """
    return reduce(gradients * activations)


@method(
    "grad_cam_elementwise",
    needs=("activations", "gradients"),
    source="arXiv:2011.08891",
    checked=(
        "The paper's equations, written out place by place in float64: the same to 1e-10. grad-cam 1.5.7 on "
        "resnet18, VGG-11 and MobileNetV2: heatmaps the same to 5e-5."
    ),
)
def grad_cam_elementwise(activations: Layer, gradients: Layer, *, reduce: Reduce = channel_sum) -> Map:
    """HiResCAM with the ReLU inside the sum: only what spoke for the score, channel by channel."""
    return reduce((gradients * activations).clamp(min=0))


@method(
    "grad_cam_plus_plus",
    needs=("activations", "gradients"),
    source="arXiv:1710.11063",
    checked=(
        "The paper's equations, written out place by place in float64: the same to 1e-10. The authors' code "
        "divides each channel's alphas by their sum, which equation 19 does not: on a resnet18 of random weights "
        "and ten classes, 96 x 96 photographs: correlation 1.0000, largest difference 0.0014 of the heatmap. "
        "grad-cam's differs by up to 1.0 on pooled networks: it adds 1e-6 to a smaller denominator."
    ),
)
def grad_cam_plus_plus(activations: Layer, gradients: Layer, *, reduce: Reduce = channel_sum) -> Map:
    """Positive gradients, weighted so that every object counts alike (Chattopadhyay et al. 2018, eqs. 5 and 19).

    The score is taken through an exponential, so its 2nd and 3rd derivatives are g^2 and g^3 times exp(S); the factor
    exp(S) itself, one positive number per image, is left out of the weights. alpha = g^2 / (2 g^2 + sum(A) g^3) is
    computed as 1 / (2 + sum(A) g), in which no small gradient underflows. The authors' code divides each channel's
    alphas by their sum over the places with a positive gradient. Equation 19 does not, and this method is the equation.

    At chance in the middle layers where `grad_cam` is, for the same reason.
    """
    return reduce(spread(grad_cam_plus_plus_weights(activations, gradients), activations))


def grad_cam_plus_plus_weights(activations: Layer, gradients: Layer) -> Weights:
    """Each channel's sum of alpha times the positive gradient."""
    return over_space(_quotient(gradients.clamp(min=0), 2 + spread(over_space(activations), gradients)))


@method(
    "x_grad_cam",
    needs=("activations", "gradients"),
    source="arXiv:2008.02312",
    checked=(
        "The paper's equations, written out place by place in float64: the same to 1e-10. grad-cam 1.5.7 on "
        "resnet18, VGG-11 and MobileNetV2: heatmaps the same to 5e-5, to 1e-3 where terms cancel. torchcam 0.5.0: "
        "the same to 1e-5."
    ),
)
def x_grad_cam(activations: Layer, gradients: Layer, *, reduce: Reduce = channel_sum) -> Map:
    """Gradients averaged by how much of the channel lies where they are (Fu et al. 2020).

    At chance far before the last layer, as `grad_cam`, and behind a skip: of a segmenter's deepest layer most of the
    score is elsewhere.
    """
    return reduce(spread(x_grad_cam_weights(activations, gradients), activations))


def x_grad_cam_weights(activations: Layer, gradients: Layer) -> Weights:
    """Each channel's mean gradient, places counting by their share of the channel."""
    return _quotient(over_space(gradients * activations), over_space(activations))


@method(
    "layer_cam",
    needs=("activations", "gradients"),
    source="doi:10.1109/TIP.2021.3089943",
    checked=(
        "The paper's equations, written out place by place in float64: the same to 1e-10. grad-cam 1.5.7 on "
        "resnet18, VGG-11 and MobileNetV2: heatmaps the same to 5e-5. torchcam 0.5.0: the same to 1e-5."
    ),
)
def layer_cam(activations: Layer, gradients: Layer, *, reduce: Reduce = channel_sum) -> Map:
    """Every activation times its own positive gradient, sharp in early layers too (Jiang et al. 2021).

    Below chance in early layers of a ConvNeXt, as `hires_cam`.
    """
    return reduce(gradients.clamp(min=0) * activations)


@method(
    "smooth_grad_cam_plus_plus",
    needs=("activations", "noisy_gradients"),
    source="arXiv:1908.01224",
    cost="1 + n forwards, n backwards, n = 4",
    checked=(
        "The paper's formula in float64, with g^2 in the numerator of alpha: the same to 1e-10. Without noise it "
        "is grad_cam_plus_plus. torchcam 0.5.0 uses the last draw only and never divides: more than 0.02 of the "
        "heatmap apart."
    ),
)
def smooth_grad_cam_plus_plus(
    activations: Layer,
    noisy_gradients: Callable[[int, float], Float[Tensor, "N B C *space"]],
    *,
    samples: int = 4,
    noise: float = 0.1,
    reduce: Reduce = channel_sum,
) -> Map:
    """Grad-CAM++ with the mean of g, g^2 and g^3 over noisy inputs (Omeiza et al. 2019).

    `noise` is a share of the range of the image's values. The paper prints the mean of g in the numerator of alpha;
    here it is that of g^2, as in Grad-CAM++, which this is without noise.
    """
    gradients = noisy_gradients(samples, noise)
    largest = gradients.abs().amax((0, *range(3, gradients.ndim)))  # (B, C): neither square nor cube underflows
    scaled = _quotient(gradients, spread(largest, torch.ones_like(activations)))
    first, squared, cubed = scaled.mean(0), (scaled**2).mean(0), (scaled**3).mean(0)
    alpha = _quotient(squared, 2 * squared + spread(over_space(activations) * largest, cubed))
    return reduce(spread(over_space(alpha * first.clamp(min=0)) * largest, activations))


@method(
    "shapley_cam",
    needs=("activations", "gradients", "curvatures"),
    source="arXiv:2501.06261",
    cost="1 forward, 2 backwards",
    checked=(
        "The paper's equations, written out place by place in float64: the same to 1e-10. grad-cam 1.5.7: "
        "heatmaps the same to 1e-4."
    ),
)
def shapley_cam(activations: Layer, gradients: Layer, curvatures: Layer, *, reduce: Reduce = channel_sum) -> Map:
    """Channels weighted by the mean of g - HA / 2, to second order their Shapley value (Cai 2025).

    H is the Hessian of the score at the layer, `curvatures` its product HA with the activations. Where the score is
    linear in the layer this is Grad-CAM. The paper explains the logit plus its log-softmax; here the target decides.
    """
    return reduce(spread(shapley_cam_weights(gradients, curvatures), activations))


def shapley_cam_weights(gradients: Layer, curvatures: Layer) -> Weights:
    """Each channel's mean of g - HA / 2."""
    return grad_cam_weights(gradients - curvatures / 2)


@method(
    "eigen_grad_cam",
    needs=("activations", "gradients"),
    source="grad-cam, without a paper",
    checked="grad-cam 1.5.7: the same to 1e-3, up to a sign that grad-cam leaves to chance.",
)
def eigen_grad_cam(activations: Layer, gradients: Layer) -> Map:
    """The first principal component of the activations times their gradients, an invention of grad-cam's.

    Its sign is the one that agrees with their sum over channels, HiResCAM's map.
    """
    return principal_component(gradients * activations)


@method(
    "seg_eigen_cam",
    needs=("activations", "gradients"),
    source="doi:10.3390/app15137562",
    checked=(
        "The paper's equations, written out place by place in float64: the same to 1e-10. grad-cam 1.5.7: "
        "heatmaps the same to 1e-4."
    ),
)
def seg_eigen_cam(activations: Layer, gradients: Layer) -> Map:
    """The first principal component of |g| A, its largest value in size positive (Chung and Ying 2025, eqs. 10 to 13).

    That rule for the sign is the paper's; it turns around what covers more than half of the picture.
    """
    projection = principal_component(gradients.abs() * activations)
    space = tuple(range(1, projection.ndim))
    low, high = projection.amin(space, keepdim=True), projection.amax(space, keepdim=True)
    return torch.where(-low > high, -projection, projection)


@method(
    "zoom_cam",
    needs=("activations", "gradients"),
    source="arXiv:2010.08644",
    staged=True,
    fuse="max",
    checked=(
        "The paper's equations, written out place by place in float64: the same to 1e-10. The authors' code "
        "scales each map to [0, 1] and then enlarges it; here it is enlarged, then scaled: on a resnet18 of "
        "random weights and ten classes, 96 x 96 photographs: correlation 0.998, largest difference 0.30. The "
        "authors take thirteen layers of VGG-16, here it is one for each resolution: correlation 0.20 with random "
        "weights. Pass layers= for theirs."
    ),
)
def zoom_cam(activations: Layer, gradients: Layer, *, reduce: Reduce = channel_sum) -> Map:
    """Every activation times its own gradient, at every resolution, fused by the maximum (Shi et al. 2020)."""
    return hires_cam(activations, gradients, reduce=reduce)


@method(
    "odam",
    needs=("activations", "gradients"),
    source="arXiv:2304.06354",
    checked=(
        "The paper's equations, written out place by place in float64: the same to 1e-10. The authors' code has "
        "no blur, and neither has the default. On a resnet18 of random weights and ten classes, 96 x 96 "
        "photographs: sigma=1.0, an earlier default, correlates 0.58 with it at layer2."
    ),
)
def odam(activations: Layer, gradients: Layer, *, sigma: float = 0.0, reduce: Reduce = channel_sum) -> Map:
    """Activations times their gradients: one map per detected box (Zhao and Chan 2023).

    The target is the score of one box, or one of its coordinates.

    Args:
        sigma: standard deviation of a Gaussian, in cells of the grid, that the gradients are blurred with. The paper
            smooths them, by the size of the box; the authors' code does not, and neither does the default.
        reduce: how the weighted channels become a map.
    """
    return reduce(arrays.blur(gradients, sigma, tuple(range(2, gradients.ndim))) * activations)


@method(
    "seg_xres_cam",
    needs=("activations", "gradients"),
    source="CVPR Workshops 2023, pp. 3733-3738",
    checked="The paper's equations, written out place by place in float64: the same to 1e-10.",
)
def seg_xres_cam(
    activations: Layer,
    gradients: Layer,
    *,
    window: int = 2,
    pooling: Literal["max", "mean"] = "max",
    reduce: Reduce = channel_sum,
) -> Map:
    """Activations times their gradients, these pooled over windows and spread out again (Hasany et al. 2023, eq. 5).

    A window of 1 is HiResCAM; one of the whole grid, with "mean", is Grad-CAM. At the border windows are cut off.
    """
    max_pools, mean_pools = (F.max_pool1d, F.max_pool2d, F.max_pool3d), (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
    pool: Any = {"max": max_pools, "mean": mean_pools}[pooling][gradients.ndim - 3]
    spread = pool(gradients, window, ceil_mode=True)
    for dim in range(2, gradients.ndim):
        spread = spread.repeat_interleave(window, dim).narrow(dim, 0, gradients.shape[dim])
    return reduce(spread * activations)


@method(
    "random_cam",
    needs=("activations", "generator"),
    source="a baseline, without a paper",
    checked="No paper. Weights are drawn evenly from [-1, 1], as grad-cam draws them.",
)
def random_cam(activations: Layer, generator: Generator, *, reduce: Reduce = channel_sum) -> Map:
    """Channels weighted at random in [-1, 1]: what a method has to beat. All images share one draw."""
    return reduce(spread(random_cam_weights(activations, generator), activations))


def random_cam_weights(activations: Layer, generator: Generator) -> Weights:
    """Each channel's draw."""
    draw = torch.rand(activations.shape[1], generator=generator, device=generator.device)
    return (2 * draw - 1).to(activations).expand(activations.shape[:2])
