"""Linear models of the score over which regions of the image are shown."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from seewhy._types import Ask
from seewhy.errors import InputError
from seewhy.images.absent import Absent, absent, grid_cells, superpixels
from seewhy.methods.perturbation.asking import Images, Map, asked
from seewhy.methods.registry import method

Shown = Bool[Tensor, "samples regions"]
Segments = Int[Tensor, "B *size"]


@method(
    "lime",
    needs=("inputs", "score", "generator"),
    source="arXiv:1602.04938",
    cost="1 + samples forwards",
    checked=(
        "The weighted ridge regression in float64 with the same draws: the same to 1e-5. captum 0.9.0's Lime with the "
        "same draws, kernel and sklearn's Ridge: the same to 1e-5."
    ),
)
def lime(
    inputs: Images,
    score: Ask,
    generator: Generator,
    *,
    samples: int = 500,
    regions: int = 50,
    segments: Tensor | None = None,
    baseline: Absent = "mean",
    width: float = 0.25,
    ridge: float = 1.0,
) -> Map:
    """The weights of a linear model of the score over which regions are shown, near the image (Ribeiro et al. 2016).

    Each region is shown with probability 1/2. A sample z of K regions weighs exp(-D^2 / (2 width^2)), where D is the
    cosine distance 1 - sqrt(|z| / K) to all of them. The model is fitted by ridge regression with an intercept.

    Args:
        samples: how many sets of regions are shown.
        regions: about how many there are: superpixels if scikit-image is installed and finds more than a quarter of
            them in the image, else the cells of a grid.
        segments: the number of each pixel's region, (B, *size), instead.
        baseline: what hidden regions are filled with: "zero", "mean", "blur", or images of the inputs' shape.
        width: of the kernel that says how near a sample is.
        ridge: the penalty on squared weights.
    """

    def draw(count: int) -> Shown:
        return torch.rand(samples, count, generator=generator, device=generator.device) < 0.5

    def fit(shown: Float[Tensor, "n K"], scores: Float[Tensor, " n"]) -> Float[Tensor, " K"]:
        distance = 1 - shown.mean(1).sqrt()
        weights = torch.exp(-(distance**2) / (2 * width**2))[:, None]
        rows = shown - (weights * shown).sum(0) / weights.sum()
        rest = scores[:, None] - (weights * scores[:, None]).sum() / weights.sum()
        normal = rows.T @ (weights * rows) + ridge * torch.eye(shown.shape[1]).to(rows)
        solved: Tensor = torch.linalg.solve(normal, rows.T @ (weights * rest))[:, 0]
        return solved

    return _fitted(inputs, score, generator, _segments(inputs, segments, regions), baseline, draw, fit)


@method(
    "kernel_shap",
    needs=("inputs", "score", "generator"),
    source="arXiv:1705.07874",
    cost="1 + 2 + samples forwards",
    checked=(
        "The constrained least squares in float64 with the same draws: the same to 1e-5. All subsets of four regions: "
        "the Shapley values to 1e-5. captum 0.9.0's KernelShap with the same draws: the same to 1e-5 of the score, "
        "where it weighs the two ends by 10^6 instead of holding them."
    ),
)
def kernel_shap(
    inputs: Images,
    score: Ask,
    generator: Generator,
    *,
    samples: int = 500,
    regions: int = 50,
    segments: Tensor | None = None,
    baseline: Absent = "mean",
) -> Map:
    """Shapley values of regions, by a linear model that is exact at both ends (Lundberg and Lee 2017, theorem 2).

    Of K regions k are shown with the probability that the Shapley kernel gives to sets of that size, in proportion to
    1 / (k (K - k)). The values add up to what the score changes by between the baseline and the image.

    Args:
        samples: how many sets of regions are shown.
        regions: about how many there are: superpixels if scikit-image is installed and finds more than a quarter of
            them in the image, else the cells of a grid.
        segments: the number of each pixel's region, (B, *size), instead.
        baseline: what hidden regions are filled with: "zero", "mean", "blur", or images of the inputs' shape.
    """

    def draw(count: int) -> Shown:
        ends = torch.tensor([[True], [False]], device=generator.device).expand(2, count)
        if count == 1:
            return ends
        sizes = torch.arange(1, count, dtype=torch.float64, device=generator.device)
        size = 1 + torch.multinomial(1 / (sizes * (count - sizes)), samples, replacement=True, generator=generator)
        order = torch.rand(samples, count, generator=generator, device=generator.device).argsort(1).argsort(1)
        return torch.cat([ends, order < size[:, None]])

    def fit(shown: Float[Tensor, "n K"], scores: Float[Tensor, " n"]) -> Float[Tensor, " K"]:
        whole, nothing = scores[0], scores[1]
        rows, rest = shown[2:, :-1] - shown[2:, -1:], scores[2:] - nothing - shown[2:, -1] * (whole - nothing)
        others = torch.linalg.pinv(rows) @ rest
        return torch.cat([others, (whole - nothing - others.sum())[None]])

    return _fitted(inputs, score, generator, _segments(inputs, segments, regions), baseline, draw, fit)


def _fitted(
    inputs: Images,
    score: Ask,
    generator: Generator,
    segments: Segments,
    baseline: Absent,
    draw: Callable[[int], Shown],
    fit: Callable[[Tensor, Tensor], Tensor],
) -> Map:
    """The weight of each pixel's region. Images with equally many regions share the draws, whatever the batch."""
    nothing, state = absent(inputs, baseline), generator.get_state()
    counts = (segments.flatten(1).amax(1) + 1).tolist()
    draws = []
    for count in counts:
        generator.set_state(state)
        draws.append(draw(count).to(inputs.device))
    most = max(counts)
    longest = max(map(len, draws))
    shown = torch.stack([F.pad(drawn, (0, most - drawn.shape[1], 0, longest - len(drawn))) for drawn in draws])

    def seen(images: Tensor, numbers: Tensor) -> Tensor:
        kept = shown[images, numbers].gather(1, segments[images].flatten(1)).reshape(-1, 1, *inputs.shape[2:])
        return torch.where(kept, inputs[images], nothing[images])

    which = torch.stack([torch.arange(longest) < len(drawn) for drawn in draws]).to(inputs.device)
    found = asked(score, which, seen, inputs.new_zeros(len(inputs), 1, dtype=torch.float32)).double()
    maps = [
        fit(drawn.double(), scores[: len(drawn)])[numbers]
        for drawn, scores, numbers in zip(draws, found, segments, strict=True)
    ]
    return torch.stack(maps).to(torch.float32)


def _segments(inputs: Images, segments: Tensor | None, regions: int) -> Segments:
    """The regions, numbered from 0 without gaps in each image."""
    if segments is None:
        found, cells = superpixels(inputs, count=regions), grid_cells(inputs, count=regions)
        few = found.flatten(1).amax(1) + 1 <= regions / 4
        segments = torch.where(few.reshape(-1, *[1] * (inputs.ndim - 2)), cells, found)
    if segments.shape != (len(inputs), *inputs.shape[2:]) or segments.is_floating_point():
        raise InputError(
            "the segments do not fit the images.",
            got=f"{segments.dtype} {tuple(segments.shape)}",
            expected=f"integers {(len(inputs), *inputs.shape[2:])}",
        )
    return torch.stack([one.unique(return_inverse=True)[1] for one in segments.to(inputs.device)])
