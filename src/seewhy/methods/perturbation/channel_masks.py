"""Score-CAM and its like: each channel of a layer is a mask on the image, and the score seen through it its weight."""

from __future__ import annotations

import math
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from seewhy._types import Ask
from seewhy.methods.channels import Reduce, channel_sum, spread
from seewhy.methods.perturbation.asking import Images, Layer, Map, asked, is_constant, through
from seewhy.methods.registry import Need, method

_SCORE_CAM: tuple[Need, ...] = ("activations", "inputs", "score")


@method(
    "score_cam",
    needs=_SCORE_CAM,
    source="arXiv:1910.01279",
    cost="1 + C forwards",
    checked=(
        "Algorithm 1 in float64: the same to 1e-4. grad-cam 1.5.7 with half-pixel resizing: the same to 1e-4. The "
        "authors' code takes probabilities as weights and no softmax over channels. On a resnet18 of random "
        "weights and ten classes, 96 x 96 photographs: that correlates 0.995 to 0.998 with score_cam of "
        "`Probability` and 1.000 with that of the logit, the largest differences 0.08 and below 0.01. Where "
        "probabilities differ little a softmax over them levels the channels."
    ),
)
def score_cam(activations: Layer, inputs: Images, score: Ask, *, reduce: Reduce = channel_sum) -> Map:
    """Channels weighted by the score of the image seen through them (Wang et al. 2020, eqs. 5 to 8 and algorithm 1).

    The weights are the softmax over channels. The score of the paper's baseline image cancels in it.

    Args:
        reduce: how the weighted channels become a map.
    """
    return reduce(spread(score_cam_weights(activations, inputs, score), activations))


def score_cam_weights(activations: Layer, inputs: Images, score: Ask) -> Float[Tensor, "B C"]:
    """The softmax over channels of the score of the image seen through each."""
    return scores_through(activations, inputs, score).softmax(1)


def scores_through(activations: Layer, inputs: Images, score: Ask, share: float = 1.0) -> Float[Tensor, "B C"]:
    """The score of each image masked with each channel, the mask times `share`.

    Constant channels mask everything, so one of them is asked for in the name of all.
    """
    constant = is_constant(activations)
    first = constant & (constant.cumsum(1) == 1)
    shown = through(activations, inputs, share)
    found = asked(score, ~constant | first, shown, activations.new_zeros(len(inputs), 1))
    return torch.where(constant, (found * first).sum(1, keepdim=True), found)


@method(
    "ss_cam",
    needs=(*_SCORE_CAM, "generator"),
    source="arXiv:2006.14255",
    cost="1 + samples x C forwards",
    checked=(
        "The paper's SS-CAM(1) in float64 with the same noise: the same to 1e-4. torchcam 0.5.0 draws its noise "
        "at the size of the input, so there is no value to compare."
    ),
)
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

    Args:
        samples: how often noise is drawn.
        noise: its standard deviation, in units of the activations.
        reduce: how the weighted channels become a map.
    """
    total = activations.new_zeros(activations.shape[:2])
    for _ in range(samples):
        drawn = torch.randn(activations.shape[1:], generator=generator, device=generator.device)
        total = total + scores_through(activations + noise * drawn.to(activations), inputs, score)
    return reduce(spread((total / samples).softmax(1), activations))


@method(
    "is_cam",
    needs=_SCORE_CAM,
    source="arXiv:2010.03023",
    cost="1 + steps x C forwards",
    checked=(
        "The paper's masks M_i = sum over j < i of (j / N) A in float64: the same to 1e-4. torchcam 0.5.0's code "
        "is a step ahead of its own formula: factors 0.25, 0.75, 1.5, 2.5 for N = 4, where the formula has 0, "
        "0.25, 0.75, 1.5. On a resnet18 of random weights and ten classes, 96 x 96 photographs: "
        "accumulated=False, which is not published, correlates 0.998 with it, largest difference 0.06."
    ),
)
def is_cam(
    activations: Layer,
    inputs: Images,
    score: Ask,
    *,
    steps: int = 10,
    accumulated: bool = True,
    reduce: Reduce = channel_sum,
) -> Map:
    """Score-CAM with weights averaged over masks that fade in (Naidu et al. 2020).

    The paper accumulates masks: M_i = sum over j < i of (j / N) A, i = 1 to N. Their factors are 0, 0.25, 0.75, 1.5 for
    N = 4, and (N - 1) / 2 at last: the image grows far brighter than it is. `accumulated=False` takes factors i / N
    instead, a straight path from nothing to the mask. That is this library's own formula and not published; it keeps
    the images in the range that the model was trained on.

    Args:
        steps: N, how many masks of each channel are tried. The first of the paper's is 0 for all channels, and cancels.
        accumulated: whether masks accumulate, as in the paper, or go straight to the channel's own.
        reduce: how the weighted channels become a map.
    """
    shares = accumulate(range(steps)) if accumulated else iter(range(1, steps + 1))
    totals = [scores_through(activations, inputs, score, share / steps) for share in shares if share]
    if not totals:
        totals = [activations.new_zeros(activations.shape[:2])]
    return reduce(spread((torch.stack(totals).sum(0) / steps).softmax(1), activations))


@method(
    "gscore_cam",
    needs=("activations", "gradients", "inputs", "score"),
    source="doi:10.1007/978-3-031-26316-3_35",
    cost="1 + channels forwards, 1 backward",
    checked=(
        "Score-CAM in float64 over the selected channels: the same to 1e-4. The authors' code leaves the others "
        "in the softmax with a score of 0: unselected=0.0. On a resnet18 of random weights and ten classes, 96 x "
        "96 photographs: with 100 of 512 channels the two correlate 0.93, largest difference 0.20."
    ),
)
def gscore_cam(
    activations: Layer,
    gradients: Layer,
    inputs: Images,
    score: Ask,
    *,
    channels: int = 300,
    unselected: float = -math.inf,
    reduce: Reduce = channel_sum,
) -> Map:
    """Score-CAM on the channels with the largest mean gradients only (Chen et al. 2022).

    Args:
        channels: how many of them are tried.
        unselected: the score of the others in the softmax over channels. By default they have no weight. The
            authors' code gives them 0, which outweighs the selected ones where scores are near 0: with
            cosines, and 300 of 2,048 channels, the others have some 82% of the weight.
        reduce: how the weighted channels become a map.
    """
    slopes = gradients.flatten(2).mean(-1)
    ranks = slopes.argsort(dim=1, descending=True, stable=True).argsort(1)
    missing = activations.new_full((len(inputs), 1), unselected)
    found = asked(score, ranks < channels, through(activations, inputs), missing)
    return reduce(spread(found.softmax(1), activations))
