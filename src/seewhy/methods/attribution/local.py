"""What the neighbourhood of each pixel adds to the score: gradients on the input, summed under a Gaussian window.

A single pixel says little: neighbours share what they say, with opposite signs. Sums over a neighbourhood say what the
map of pixels does, and lie on what the model looked at. benchmarks/results/truth.md has both beside each other.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from seewhy._types import AskSlopes
from seewhy.images.absent import Absent
from seewhy.methods.attribution.asking import Image, Map
from seewhy.methods.attribution.filters import smoothed
from seewhy.methods.attribution.path import integrated_gradients
from seewhy.methods.attribution.slope import libra_grad
from seewhy.methods.registry import method

_WINDOW = 1 / 20  # of each side: AP is the same to 0.03 from a 24th to a 16th


@method(
    "local_libra_grad",
    needs=("inputs", "libra_gradients"),
    source="arXiv:2411.16760",
    cost="2 forwards, 1 backward",
    checked="libra_grad with the window written out in float64: the same to 1e-5. No paper has the window.",
)
def local_libra_grad(inputs: Image, libra_gradients: Image, *, window: float = _WINDOW) -> Map:
    """What the neighbourhood of each pixel adds to the score: `libra_grad` under a Gaussian window (Mehri et al. 2025).

    Args:
        window: the Gaussian's standard deviation, as a share of each of the image's sides. The map's sum stays.
    """
    return smoothed(libra_grad(inputs, libra_gradients), blur=window)


@method(
    "local_integrated_gradients",
    needs=("inputs", "scores", "libra_gradients_at"),
    source="arXiv:1703.01365",
    cost="1 forward, and steps + 1 forwards and backwards for each baseline",
    checked=(
        "integrated_gradients with LibraGrad's gradients and the window written out in float64: the same to 1e-5. No "
        "paper has the window."
    ),
)
def local_integrated_gradients(
    inputs: Image,
    scores: Float[Tensor, " B"],
    libra_gradients_at: AskSlopes,
    *,
    steps: int = 8,
    baseline: Absent | Sequence[Absent] = "zero",
    window: float = _WINDOW,
) -> Map:
    """`integrated_gradients` under a Gaussian window (Sundararajan et al. 2017, eq. 1), of LibraGrad's gradients.

    Few steps are enough: the window averages over what more of them would. The gradients are those of
    `gradients="libra"` (Mehri et al. 2025), which in a network of convolutions, batch norms and ReLUs are the plain
    ones.

    Args:
        steps: points on the line from the baseline to the image.
        baseline: "zero", "mean" (of each colour over the image), "blur", images of the inputs' shape, or several of
            these, over which the map is the mean.
        window: the Gaussian's standard deviation, as a share of each of the image's sides. The map's sum stays.
    """
    found = integrated_gradients(inputs, scores, libra_gradients_at, steps=steps, baseline=baseline)
    return smoothed(found.maps, blur=window)
