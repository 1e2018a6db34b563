"""Gradients at noisy copies of the image: their mean, their mean square, their variance."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from seewhy._types import AskSlopes
from seewhy.methods.attribution.asking import Image, Map, at_least, column, summed
from seewhy.methods.attribution.filters import filtered
from seewhy.methods.registry import method

_COST = "1 forward, and samples forwards and backwards"


@method(
    "smooth_grad",
    needs=("inputs", "gradients_at", "generator"),
    source="arXiv:1706.03825",
    cost=_COST,
    checked=(
        "The paper's mean in float64, with the same draws: the same to 1e-5. captum 0.9.0's NoiseTunnel "
        '(nt_type="smoothgrad") of Saliency(abs=False), with the same draws: the same to 1e-5.'
    ),
)
@filtered
def smooth_grad(
    inputs: Image,
    gradients_at: AskSlopes,
    generator: Generator,
    *,
    samples: int = 25,
    noise: float = 0.15,
) -> Map:
    """The mean gradient over noisy copies of the image (Smilkov et al. 2017, section 2).

    Args:
        samples: how many copies.
        noise: the deviation of the noise, as a share of the range of the image's values.
    """
    mean = _mean(inputs, gradients_at, generator, samples, noise, lambda slopes: slopes)
    return mean.sum(1).to(inputs)


@method(
    "smooth_grad_squared",
    needs=("inputs", "gradients_at", "generator"),
    source="arXiv:1806.10758",
    cost=_COST,
    checked=(
        "The mean of squares in float64, with the same draws: the same to 1e-5. captum 0.9.0's NoiseTunnel "
        '(nt_type="smoothgrad_sq"), with the same draws: the same to 1e-5.'
    ),
)
@filtered
def smooth_grad_squared(
    inputs: Image,
    gradients_at: AskSlopes,
    generator: Generator,
    *,
    samples: int = 25,
    noise: float = 0.15,
) -> Map:
    """The mean squared gradient over noisy copies of the image (Hooker et al. 2019, section 3.2).

    Below chance behind layer norms that divide by a place's own contrast: flat background has the largest gradients.

    Args:
        samples: how many copies.
        noise: the deviation of the noise, as a share of the range of the image's values.
    """
    mean = _mean(inputs, gradients_at, generator, samples, noise, torch.square)
    return mean.sum(1).to(inputs)


@method(
    "var_grad",
    needs=("inputs", "gradients_at", "generator"),
    source="arXiv:1810.03307",
    cost=_COST,
    checked=(
        "The variance in float64, with the same draws: the same to 1e-5. captum 0.9.0's NoiseTunnel "
        '(nt_type="vargrad"), with the same draws: the same to 1e-5.'
    ),
)
@filtered
def var_grad(
    inputs: Image,
    gradients_at: AskSlopes,
    generator: Generator,
    *,
    samples: int = 25,
    noise: float = 0.15,
) -> Map:
    """The variance of the gradient over noisy copies of the image (Adebayo et al. 2018).

    Below chance behind layer norms, for the same reason as `smooth_grad_squared`.

    Args:
        samples: how many copies.
        noise: the deviation of the noise, as a share of the range of the image's values.
    """
    moments = _mean(inputs, gradients_at, generator, samples, noise, lambda slopes: torch.cat([slopes, slopes**2], 1))
    mean, square = moments.chunk(2, 1)
    return (square - mean**2).sum(1).to(inputs)


def _mean(
    inputs: Image,
    gradients_at: AskSlopes,
    generator: Generator,
    samples: int,
    noise: float,
    of: Callable[[Tensor], Tensor],
) -> Float[Tensor, "B C2 *size"]:
    """The mean over noisy copies of what `of` makes of the gradients there; all images share the draws."""
    at_least(1, samples=samples)
    shape = samples, *inputs.shape[1:]
    drawn = torch.randn(shape, generator=generator, device=generator.device).to(inputs)
    values = inputs.flatten(1)
    deviation = noise * (values.amax(1) - values.amin(1))

    def noisy(images: Tensor, numbers: Tensor) -> Tensor:
        return inputs[images] + column(deviation[images], inputs) * drawn[numbers]

    total, _ = summed(gradients_at, inputs, samples, noisy, lambda slopes, _, __: of(slopes))
    return total / samples
