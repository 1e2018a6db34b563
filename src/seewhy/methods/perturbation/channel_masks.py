"""Score-CAM and its like: each channel of a layer is a mask on the image, and the score seen through it its weight."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from seewhy._types import Ask
from seewhy.methods.channels import Reduce, channel_sum, spread
from seewhy.methods.perturbation.asking import Images, Layer, Map, asked, is_constant, through
from seewhy.methods.registry import Need, method

_SCORE_CAM: tuple[Need, ...] = ("activations", "inputs", "score")


@method("score_cam", needs=_SCORE_CAM, source="arXiv:1910.01279", cost="1 + C forwards")
def score_cam(activations: Layer, inputs: Images, score: Ask, *, reduce: Reduce = channel_sum) -> Map:
    """Channels weighted by the score of the image seen through them (Wang et al. 2020, eqs. 5 to 8 and algorithm 1).

    The weights are the softmax over channels, in which the score of the paper's baseline image cancels.
    """
    return reduce(spread(score_cam_weights(activations, inputs, score), activations))


def score_cam_weights(activations: Layer, inputs: Images, score: Ask) -> Float[Tensor, "B C"]:
    """The softmax over channels of the score of the image seen through each."""
    return scores_through(activations, inputs, score).softmax(1)


def scores_through(activations: Layer, inputs: Images, score: Ask, share: float = 1.0) -> Float[Tensor, "B C"]:
    """The score of each image masked with each channel. Constant channels mask everything, so one of them will do."""
    constant = is_constant(activations)
    first = constant & (constant.cumsum(1) == 1)
    shown = through(activations, inputs, share)
    found = asked(score, ~constant | first, shown, activations.new_zeros(len(inputs), 1))
    return torch.where(constant, (found * first).sum(1, keepdim=True), found)


@method("ss_cam", needs=(*_SCORE_CAM, "generator"), source="arXiv:2006.14255", cost="1 + samples x C forwards")
def ss_cam(
    activations: Layer,
    inputs: Images,
    score: Ask,
    generator: Generator,
    *,
    samples: int = 10,
    noise: float = 2.0,
    reduce: Reduce = channel_sum,
) -> Map:
    """Score-CAM with weights averaged over activations with noise (Wang et al. 2020, SS-CAM(1)).

    noise: its standard deviation, in units of the activations.
    """
    total = activations.new_zeros(activations.shape[:2])
    for _ in range(samples):
        drawn = torch.randn(activations.shape[1:], generator=generator, device=generator.device)
        total = total + scores_through(activations + noise * drawn.to(activations), inputs, score)
    return reduce(spread((total / samples).softmax(1), activations))


@method("is_cam", needs=_SCORE_CAM, source="arXiv:2010.03023", cost="1 + steps x C forwards")
def is_cam(activations: Layer, inputs: Images, score: Ask, *, steps: int = 10, reduce: Reduce = channel_sum) -> Map:
    """Score-CAM with weights averaged over masks that fade in, from 1/steps to all of them (Naidu et al. 2020)."""
    totals = [scores_through(activations, inputs, score, step / steps) for step in range(1, steps + 1)]
    return reduce(spread(torch.stack(totals).mean(0).softmax(1), activations))


@method(
    "gscore_cam",
    needs=("activations", "gradients", "inputs", "score"),
    source="doi:10.1007/978-3-031-26316-3_35",
    cost="1 + channels forwards, 1 backward",
)
def gscore_cam(
    activations: Layer,
    gradients: Layer,
    inputs: Images,
    score: Ask,
    *,
    channels: int = 300,
    reduce: Reduce = channel_sum,
) -> Map:
    """Score-CAM on the channels with the largest mean gradients only (Chen et al. 2022)."""
    slopes = gradients.flatten(2).mean(-1)
    ranks = slopes.argsort(dim=1, descending=True, stable=True).argsort(1)
    missing = activations.new_full((len(inputs), 1), -math.inf)
    found = asked(score, ranks < channels, through(activations, inputs), missing)
    return reduce(spread(found.softmax(1), activations))
