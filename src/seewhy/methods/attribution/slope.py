"""The gradient at the image itself."""

from __future__ import annotations

from seewhy.methods.attribution.asking import Image, Map
from seewhy.methods.attribution.filters import filtered
from seewhy.methods.registry import method


@method(
    "saliency",
    needs=("input_gradients",),
    source="arXiv:1312.6034",
    checked=(
        "captum 0.9.0's Saliency(abs=False), summed over channels: the same to 1e-5. The central difference of the "
        "score in float64: the same to 1e-5."
    ),
)
@filtered
def saliency(input_gradients: Image, *, absolute: bool = False) -> Map:
    """The gradient of the score at each pixel, summed over colours (Simonyan et al. 2014, section 3).

    Args:
        absolute: the largest absolute value over colours, as in the paper, instead of the signed sum.
    """
    return input_gradients.abs().amax(1) if absolute else input_gradients.sum(1)


@method(
    "input_x_gradient",
    needs=("inputs", "input_gradients"),
    source="arXiv:1605.01713",
    checked="captum 0.9.0's InputXGradient, and the central difference in float64: the same to 1e-5.",
)
@filtered
def input_x_gradient(inputs: Image, input_gradients: Image) -> Map:
    """Each pixel times the gradient of the score there, summed over colours (Shrikumar et al. 2016)."""
    return (inputs * input_gradients).sum(1)


@method(
    "libra_grad",
    needs=("inputs", "libra_gradients"),
    source="arXiv:2411.16760",
    cost="2 forwards, 1 backward",
    checked=(
        "Each rule by hand in float64: the same to 1e-10. On transformers without biases the parts add up to the "
        "score, to 1e-4 of it. No authors' code was at hand."
    ),
)
@filtered
def libra_grad(inputs: Image, libra_gradients: Image) -> Map:
    """Each pixel times the gradient there by LibraGrad, summed over colours (Mehri et al. 2025).

    Attention weights, what norms divide by, and the gates of GELU and SiLU are constants on the way back, and of a
    product each factor has half. Then pixels and biases account for all of a transformer's score. `gradients="libra"`
    runs any other method of gradients in this way.
    """
    return (inputs * libra_gradients).sum(1)
