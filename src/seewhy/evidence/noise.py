"""Gradients for noisy inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy._types import CallLabel
from seewhy.engine.tape import gradients
from seewhy.evidence._forward import Forward
from seewhy.evidence._provider import provides
from seewhy.evidence._request import Request


@provides("noisy_gradients", layered=True)
def noisy_gradients(request: Request) -> Callable[[int, float], Float[Tensor, "N B C *grid"]]:
    """A function (samples, noise) -> the gradients of the score at the layer, for that many noisy inputs.

    The noise is normal. Its standard deviation is `noise` times the range of each image's values; all images of the
    batch share the draw.
    """

    def ask(samples: int, noise: float) -> Tensor:
        runs = request.forward.once(_runs, samples, noise)
        assert request.label is not None
        return torch.stack([request.fold(run[request.number][request.label.call]) for run in runs])

    return ask


def _runs(forward: Forward, samples: int, noise: float) -> list[list[dict[CallLabel, Tensor]]]:
    """For each noisy run, for each target, the gradients by call, in the layers' own layout."""
    generator = forward.settings.generator

    def noisy(image: Tensor) -> Tensor:
        drawn = torch.randn(image.shape[1:], generator=generator, device=generator.device).to(image)
        values = image.flatten(1)
        span = (values.amax(1) - values.amin(1)).reshape(-1, *[1] * (image.ndim - 1))
        return image + noise * span * drawn

    runs = []
    for _ in range(samples):
        again = forward.again(forward.call.seen_as(noisy))
        slopes = gradients(again.columns, again.activations)
        runs.append([dict(slope) for slope in slopes])
    return runs
