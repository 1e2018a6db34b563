"""A layer's activations are changed, and only what follows the layer runs again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy._types import Ask
from seewhy.images.absent import Absent
from seewhy.methods.channels import Reduce, channel_sum, spread
from seewhy.methods.perturbation.asking import Layer, Map, asked, asked_of_each
from seewhy.methods.registry import Neutral, method


@method(
    "ablation_cam",
    needs=("activations", "scores", "replay"),
    source="doi:10.1109/WACV45572.2020.9093360",
    cost="1 forward, and C of what follows the layer",
    checked=(
        "Equation 3 in float64, over the absolute score: the same to 1e-4. grad-cam 1.5.7, where the score is "
        "positive: the same to 1e-4; where it is negative grad-cam's map is turned around."
    ),
)
def ablation_cam(
    activations: Layer,
    scores: Float[Tensor, " B"],
    replay: Ask,
    *,
    baseline: float = 0.0,
    reduce: Reduce = channel_sum,
) -> Map:
    """Channels weighted by the share of the score that is lost without them (Desai and Ramaswamy 2020, eq. 3).

    The loss is divided by the absolute score, so that a negative score does not turn the map around.
    Near chance in layers with signs, such as ConvNeXt's: 0 is no absence there.

    Args:
        baseline: what a channel is filled with to be without it. The paper's is 0, whatever the layer's range and the
            image's place in the batch.
        reduce: how the weighted channels become a map.
    """
    return reduce(spread(ablation_cam_weights(activations, scores, replay, baseline=baseline), activations))


def ablation_cam_weights(
    activations: Layer, scores: Float[Tensor, " B"], replay: Ask, *, baseline: float = 0.0
) -> Float[Tensor, "B C"]:
    """The share of the score that is lost without each channel."""

    def without(images: Tensor, channels: Tensor) -> Tensor:
        ablated = activations[images]  # a copy
        ablated[torch.arange(len(images), device=images.device), channels] = baseline
        return ablated

    lost = scores[:, None] - asked(replay, (activations != baseline).flatten(2).any(-1), without, scores[:, None])
    return lost / scores.abs()[:, None]


@method(
    "recipro_cam",
    needs=("activations", "replay"),
    source="arXiv:2209.14074",
    cost="1 forward, and H x W of what follows the layer",
    checked=(
        "The paper's definition in float64: the same to 1e-4. The authors' code, gaussian=True, of a probability: "
        "on a resnet18 of random weights and ten classes, 96 x 96 photographs: no difference."
    ),
)
def recipro_cam(activations: Layer, replay: Ask, *, gaussian: bool = False) -> Map:
    """What the score becomes when one place of the layer is all that is left, less the worst of places (Byun 2022).

    Below chance in a transformer with a class token: a patch alone attends to nothing else, which it has never seen.

    Args:
        gaussian: spread the place's own vector over its neighbours, with the weights of a 3 x 3 (x 3) binomial filter:
            the vector left at a distance d from the place p is G(d) A(p), as in the authors' code.
    """
    space = activations.shape[2:]
    grid = torch.stack(torch.meshgrid(*map(torch.arange, space), indexing="ij"), -1).to(activations.device)
    places = grid.reshape(-1, len(space))
    lobe = activations.new_tensor([0.5, 0.25] if gaussian else [1.0])

    def left(images: Tensor, numbers: Tensor) -> Tensor:
        distance = (places[numbers][:, None] - places[None]).abs()  # (n, places, dimensions)
        near = distance < len(lobe)
        share = torch.where(near, lobe[distance.clamp(max=len(lobe) - 1)], 0).prod(-1)
        vectors = activations.flatten(2)[images, :, numbers]  # (n, C), of the places
        return vectors.reshape(*vectors.shape, *[1] * len(space)) * share.reshape(-1, 1, *space)

    count = len(places)
    found = asked_of_each(replay, activations, count, left)
    return (found - found.amin(1, keepdim=True)).reshape(-1, *space)


@method(
    "caap",
    needs=("activations", "neutral_replay"),
    source="arXiv:2603.13652",
    cost="2 forwards, and H x W of what follows the layer",
    checked=(
        "The definition in the docstring in float64, a place at a time: the same to 1e-5. The paper patches a place in "
        "a range of layers; its text and code were not at hand, and here it is patched in one."
    ),
)
def caap(activations: Layer, neutral_replay: Callable[[Absent], Neutral], *, baseline: Absent = "blur") -> Map:
    """What the score of a neutral image gains when one place of the layer is the image's own (Izadi et al. 2026).

    The map at p is S(N with A(p) at p) - S(N), where A is what the layer returned for the image, and N what it did for
    the image made absent. Only what follows the layer runs again; tokens without a place, such as the class token, are
    the neutral image's.

    Args:
        baseline: the neutral image: "blur", "mean", "zero", or images of the inputs' shape.
    """
    neutral = neutral_replay(baseline)
    places = activations[0, 0].numel()

    def patched(images: Tensor, numbers: Tensor) -> Tensor:
        rows = neutral.activations[images].flatten(2)  # a copy
        own = activations.flatten(2)[images, :, numbers]
        rows[torch.arange(len(images), device=images.device), :, numbers] = own
        return rows.reshape(-1, *activations.shape[1:])

    found = asked_of_each(neutral.replay, activations, places, patched)
    return (found - neutral.scores[:, None]).reshape(-1, *activations.shape[2:])
