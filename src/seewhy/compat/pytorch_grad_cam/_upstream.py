"""What grad-cam 1.5.7 computes where the engine's method of that name computes something else.

Where that is no mistake it is what its class gives, otherwise on request, by `upstream_exact`. Each function takes what
its method takes, and of one with a weight for each channel gives the weights. docs/migration.md says why they differ,
and by how much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from seewhy._types import Ask
from seewhy.images import arrays
from seewhy.methods.cam import decomposition
from seewhy.methods.channels import Reduce, channel_sum, over_space, spread
from seewhy.methods.perturbation import channel_masks

Layer = Float[Tensor, "B C *space"]
Map = Float[Tensor, "B *space"]
Weights = Float[Tensor, "B C"]


def grad_cam_plus_plus(activations: Layer, gradients: Layer) -> Weights:
    """With 1e-6 added to the denominator of alpha, which is larger than it where gradients are below 1e-3."""
    below = 2 * gradients**2 + spread(over_space(activations), gradients**3) + 1e-6
    return over_space(torch.where(gradients != 0, gradients.clamp(min=0) * gradients**2 / below, 0))


def x_grad_cam(activations: Layer, gradients: Layer) -> Weights:
    """With 1e-7 added to each channel's sum."""
    return over_space(gradients * activations / spread(over_space(activations) + 1e-7, torch.ones_like(activations)))


def principal_component(weighted: Layer) -> Map:
    """The first component of centred positions; its sign is the one that LAPACK's singular vector happens to have."""
    maps = []
    for image in weighted.detach().cpu():
        rows = image.flatten(1).mT.nan_to_num(0.0)
        rows = (rows - rows.mean(0)).numpy()
        maps.append(torch.from_numpy(rows @ np.linalg.svd(rows, full_matrices=True)[2][0]).reshape(image.shape[1:]))
    return torch.stack(maps).to(weighted)


def eigen_cam(activations: Layer) -> Map:
    """The first component of the centred activations; its sign is left to chance."""
    return principal_component(activations)


def eigen_grad_cam(activations: Layer, gradients: Layer) -> Map:
    """The same, with the sign left to chance."""
    return principal_component(gradients * activations)


def kpca_cam(activations: Layer, *, kernel: decomposition.Kernel = "sigmoid", gamma: float | None = None) -> Map:
    """The kernel component with scikit-learn's sign: the value that is largest in size is positive."""
    found = decomposition.kpca_cam(activations, kernel=kernel, gamma=gamma)
    space = tuple(range(1, found.ndim))
    turned = -found.amin(space, keepdim=True) > found.amax(space, keepdim=True)
    return torch.where(turned, -found, found)


def fem(activations: Layer, *, k: float = 2.0) -> Map:
    """The activations weighted by the share of places above mean + k deviations."""
    places = activations.flatten(2)
    threshold = places.mean(-1, keepdim=True) + k * places.std(-1, keepdim=True, correction=0)
    return spread((places > threshold).to(places).mean(-1), activations).sum(1)


def score_cam(activations: Layer, inputs: Float[Tensor, "B c *size"], score: Ask) -> Weights:
    """Masks are enlarged by corner-aligned interpolation. Volumes, which grad-cam does not take, are the engine's."""
    if inputs.ndim != 4:
        return channel_masks.score_cam_weights(activations, inputs, score)
    images, channels = torch.ones(activations.shape[:2]).nonzero().to(inputs.device).unbind(1)

    def masked(rows: Tensor) -> Tensor:
        maps = activations[images[rows], channels[rows], None]
        masks = F.interpolate(maps, tuple(inputs.shape[2:]), mode="bilinear", align_corners=True)
        low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
        return (masks - low) / (high - low + 1e-8) * inputs[images[rows]]

    return score(images, masked).reshape(activations.shape[:2]).softmax(1).to(activations)


def ablation_cam(
    activations: Layer, scores: Float[Tensor, " B"], replay: Ask, *, channels: Sequence[Any] | None = None
) -> Weights:
    """The loss divided by the score itself, of a channel put 1e7 below the layer's minimum unless that is 0.

    The minimum is taken again after each channel of a batch, so that a channel's value depends on its place in it.
    Channels that are not among those given for an image lose nothing.
    """
    every = torch.arange(activations.shape[1])
    chosen = [every if channels is None else torch.as_tensor(channels[image]) for image in range(len(activations))]
    images = torch.cat([torch.full((len(some),), image) for image, some in enumerate(chosen)]).to(activations.device)
    taken = torch.cat(chosen).long().to(activations.device)

    def without(rows: Tensor) -> Tensor:
        ablated = activations[images[rows]]  # a copy
        places = torch.arange(len(rows), device=rows.device)
        low = ablated.amin()
        value = torch.where(low == 0, low, low - 1e7 * (places + 1))
        ablated[places, taken[rows]] = value.reshape(-1, *[1] * (ablated.ndim - 2)).to(ablated)
        return ablated

    whole = scores[:, None].expand(activations.shape[:2])
    found = whole.index_put((images, taken), replay(images, without))
    return ((whole - found) / whole).to(activations)


def full_grad(
    inputs: Float[Tensor, "B c *size"],
    input_gradients: Float[Tensor, "B c *size"],
    bias_gradients: list[Tensor],
    *,
    reduce: Reduce = channel_sum,
) -> Float[Tensor, "B *space"]:
    """The sum with every channel of every part scaled to [0, 1] by itself.

    What reduces otherwise than by the sum gets them at an eighth of the size, and its result is not cut at zero.
    """
    size = tuple(inputs.shape[2:])
    parts = [scaled((inputs * input_gradients).abs(), 2)]
    parts += [arrays.resize(scaled(part.abs(), 2).sum(1, keepdim=True), size) for part in bias_gradients]
    maps = torch.cat(parts, 1)
    if reduce is channel_sum:
        return maps.sum(1)
    found = reduce(arrays.resize(scaled(maps, 2), tuple(side // 8 for side in size)))
    return found - found.amin(tuple(range(1, found.ndim)), keepdim=True)


def scaled(maps: Tensor, first: int) -> Tensor:
    """Each map, of the dimensions from the `first` on, shifted and divided by its range plus 1e-7: to [0, 1].

    So grad-cam does it; of several layers one whose map is no more than rounding counts for little.
    """
    space = tuple(range(first, maps.ndim))
    maps = maps - maps.amin(space, keepdim=True)
    return maps / (maps.amax(space, keepdim=True) + 1e-7)


def _map(weights: Callable[..., Weights]) -> Callable[..., Map]:
    """The map of what gives each channel a weight."""

    def function(activations: Layer, *, reduce: Reduce = channel_sum, **values: Any) -> Map:
        return reduce(spread(weights(activations=activations, **values), activations))

    return function


WEIGHTS: dict[str, Callable[..., Tensor]] = {
    "grad_cam_plus_plus": grad_cam_plus_plus,
    "x_grad_cam": x_grad_cam,
    "ablation_cam": ablation_cam,
}
# in any case
ALWAYS: dict[str, Callable[..., Tensor]] = {
    "eigen_cam": partial(decomposition.eigen_cam, centred=True),
    "fem": fem,
    "score_cam": _map(score_cam),
}
FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    **ALWAYS,
    **{name: _map(weights) for name, weights in WEIGHTS.items()},
    "eigen_cam": eigen_cam,
    "eigen_grad_cam": eigen_grad_cam,
    "kpca_cam": kpca_cam,
    "full_grad": full_grad,
}
