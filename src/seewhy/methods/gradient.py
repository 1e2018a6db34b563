"""Class activation maps: a layer's activations, weighted by what the score's gradient says of them.

Everywhere `activations` A and `gradients` g = dS/dA are (B, C, *space); the result is (B, *space), signed, before the
ReLU that the papers end with, except where a paper's ReLU stands inside the sum. `reduce` turns the weighted
activations (B, C, *space) into the map; the papers' choice is the sum over channels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from seewhy.methods.combine import Reduce, channel_sum
from seewhy.methods.registry import method

Layer = Float[Tensor, "B C *space"]
Map = Float[Tensor, "B *space"]


def _spread(weights: Float[Tensor, "B C"], activations: Layer) -> Layer:
    """Each channel of `activations` times its weight."""
    return weights.reshape(*weights.shape, *[1] * (activations.ndim - 2)) * activations


def _over_space(tensor: Layer) -> Float[Tensor, "B C"]:
    """The sum over all positions."""
    return tensor.flatten(2).sum(-1)


def _quotient(above: Tensor, below: Tensor) -> Tensor:
    """The quotient above / below, and 0 where below is 0: there is nothing to share out."""
    return torch.where(below == 0, 0, above / torch.where(below == 0, 1, below))


@method("cam", needs=("activations", "weights"), source="arXiv:1512.04150")
def cam(activations: Layer, weights: Float[Tensor, "B C"], *, reduce: Reduce = channel_sum) -> Map:
    """The classifier's own weights on the channels before its global average (Zhou et al. 2016, eq. 2)."""
    return reduce(_spread(weights, activations))


@method("grad_cam", needs=("activations", "gradients"), source="arXiv:1610.02391")
def grad_cam(activations: Layer, gradients: Layer, *, reduce: Reduce = channel_sum) -> Map:
    """Channels weighted by their mean gradient (Selvaraju et al. 2017, eqs. 1 and 2)."""
    return reduce(_spread(gradients.flatten(2).mean(-1), activations))


@method("hires_cam", needs=("activations", "gradients"), source="arXiv:2011.08891")
def hires_cam(activations: Layer, gradients: Layer, *, reduce: Reduce = channel_sum) -> Map:
    """Every activation times its own gradient: what each place added to the score (Draelos and Carin 2020)."""
    return reduce(gradients * activations)


@method("grad_cam_elementwise", needs=("activations", "gradients"), source="arXiv:2011.08891")
def grad_cam_elementwise(activations: Layer, gradients: Layer, *, reduce: Reduce = channel_sum) -> Map:
    """HiResCAM with the ReLU inside the sum: only what spoke for the score, channel by channel."""
    return reduce((gradients * activations).clamp(min=0))


@method("grad_cam_plus_plus", needs=("activations", "gradients"), source="arXiv:1710.11063")
def grad_cam_plus_plus(activations: Layer, gradients: Layer, *, reduce: Reduce = channel_sum) -> Map:
    """Positive gradients, weighted so that every object counts alike (Chattopadhyay et al. 2018, eqs. 5 and 19).

    The score is taken through an exponential, so its 2nd and 3rd derivatives are g^2 and g^3 times exp(S); the factor
    exp(S) itself, one positive number per image, is left out of the weights. alpha = g^2 / (2 g^2 + sum(A) g^3) is
    computed as 1 / (2 + sum(A) g), in which no small gradient underflows.
    """
    shares = _quotient(gradients.clamp(min=0), 2 + _spread(_over_space(activations), gradients))
    return reduce(_spread(_over_space(shares), activations))


@method("x_grad_cam", needs=("activations", "gradients"), source="arXiv:2008.02312")
def x_grad_cam(activations: Layer, gradients: Layer, *, reduce: Reduce = channel_sum) -> Map:
    """Gradients averaged by how much of the channel lies where they are (Fu et al. 2020)."""
    weights = _quotient(_over_space(gradients * activations), _over_space(activations))
    return reduce(_spread(weights, activations))


@method("layer_cam", needs=("activations", "gradients"), source="doi:10.1109/TIP.2021.3089943")
def layer_cam(activations: Layer, gradients: Layer, *, reduce: Reduce = channel_sum) -> Map:
    """Every activation times its own positive gradient, sharp in early layers too (Jiang et al. 2021)."""
    return reduce(gradients.clamp(min=0) * activations)


@method("random_cam", needs=("activations", "generator"), source="a baseline, without a paper")
def random_cam(activations: Layer, generator: Generator, *, reduce: Reduce = channel_sum) -> Map:
    """Channels weighted at random in [-1, 1]: what a method has to beat. All images share one draw."""
    draw = torch.rand(activations.shape[1], generator=generator, device=generator.device)
    weights = (2 * draw - 1).to(activations).expand(activations.shape[:2])
    return reduce(_spread(weights, activations))
