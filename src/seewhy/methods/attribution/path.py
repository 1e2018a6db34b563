"""Gradients along a path from a baseline to the image: their integral is what the score changed by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from seewhy._types import AskSlopes
from seewhy.errors import InputError
from seewhy.images.absent import Absent, absent, several
from seewhy.methods.attribution.asking import Image, Map, at_least, column, summed
from seewhy.methods.attribution.filters import filtered
from seewhy.methods.registry import Accounted, method


@method(
    "integrated_gradients",
    needs=("inputs", "scores", "gradients_at"),
    source="arXiv:1703.01365",
    cost="1 forward, and steps + 1 forwards and backwards for each baseline",
    checked=(
        "Gauss-Legendre's sum in float64: the same to 1e-5. captum 0.9.0 with 50 steps: the same to 1e-5. A quadratic "
        "score by hand: the parts are exact with two steps."
    ),
)
@filtered
def integrated_gradients(
    inputs: Image,
    scores: Float[Tensor, " B"],
    gradients_at: AskSlopes,
    *,
    steps: int = 50,
    baseline: Absent | Sequence[Absent] = "zero",
) -> Accounted:
    """(x - x0) times the mean gradient on the line from a baseline x0 to the image x (Sundararajan et al. 2017, eq. 1).

    The integral is taken by Gauss and Legendre's rule. The parts of all pixels add up to S(x) - S(x0), up to a gap that
    the explanation tells as `gap`; above 5% it warns.

    Args:
        steps: points on the line.
        baseline: "zero", "mean" (of each colour over the image), "blur", images of the inputs' shape, or several of
            these, over which the map is the mean.
    """
    at_least(1, steps=steps)
    nodes, weights = gauss_legendre(steps)
    places = torch.cat([nodes, nodes.new_zeros(1)]).to(inputs)  # the last one is the baseline, for its score
    weights = torch.cat([weights, weights.new_zeros(1)]).to(inputs.device)
    starts = several(inputs, baseline)

    def line(numbers: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        start = starts[numbers // (steps + 1), images]
        return start, inputs[images] - start, numbers % (steps + 1)

    def point(images: Tensor, numbers: Tensor) -> Tensor:
        start, way, step = line(numbers, images)
        return start + column(places[step], way) * way

    def part(slopes: Tensor, images: Tensor, numbers: Tensor) -> Tensor:
        _, way, step = line(numbers, images)
        return column(weights[step], way) * way * slopes

    count = len(starts) * (steps + 1)
    total, found = summed(gradients_at, inputs, count, point, part)
    return _accounted(total.sum(1) / len(starts), scores, found[:, steps :: steps + 1].mean(1))


@method(
    "expected_gradients",
    needs=("inputs", "gradients_at", "generator"),
    source="arXiv:1906.10670",
    cost="1 forward, and samples forwards and backwards",
    checked=(
        "The paper's mean in float64, with the same draws: the same to 1e-5. captum 0.9.0's GradientShap without "
        "noise, with the same draws: the same to 1e-5."
    ),
)
@filtered
def expected_gradients(
    inputs: Image,
    gradients_at: AskSlopes,
    generator: Generator,
    *,
    samples: int = 50,
    baseline: Tensor | Absent | Sequence[Absent] = ("zero", "mean", "blur"),
) -> Map:
    """The mean of (x - x0) times the gradient at a random point between x0 and x, over baselines x0 (Erion 2021).

    Each sample draws a baseline and a point on its line; all images share the draws. With a single baseline it is
    `integrated_gradients` by random points.

    Args:
        samples: how many points.
        baseline: what x0 is drawn from: reference images (K, C, *size), of the training set say; or the words of
            `integrated_gradients`, one or several.
    """
    at_least(1, samples=samples)
    starts = _references(inputs, baseline)
    number = torch.randint(len(starts), (samples,), generator=generator, device=generator.device).to(inputs.device)
    share = torch.rand(samples, generator=generator, device=generator.device).to(inputs)

    def point(images: Tensor, numbers: Tensor) -> Tensor:
        start = starts[number[numbers], images]
        return start + column(share[numbers], start) * (inputs[images] - start)

    def part(slopes: Tensor, images: Tensor, numbers: Tensor) -> Tensor:
        return (inputs[images] - starts[number[numbers], images]) * slopes

    total, _ = summed(gradients_at, inputs, samples, point, part)
    return (total.sum(1) / samples).to(inputs)


@method(
    "guided_integrated_gradients",
    needs=("inputs", "scores", "gradients_at"),
    source="arXiv:2106.09788",
    cost="1 forward, and steps forwards and backwards, one after another",
    checked=(
        "The authors' algorithm in float64, an image and a pixel at a time: the same to 1e-5. With max_distance=0 it "
        "is the left Riemann sum of integrated_gradients: the same to 1e-5."
    ),
)
@filtered
def guided_integrated_gradients(
    inputs: Image,
    scores: Float[Tensor, " B"],
    gradients_at: AskSlopes,
    *,
    steps: int = 100,
    baseline: Absent = "zero",
    fraction: float = 0.25,
    max_distance: float = 0.02,
) -> Accounted:
    """Gradients along a path that first changes the pixels whose gradient is smallest (Kapishnikov et al. 2021).

    The path goes through where the score is flat, and gathers less noise on its way. Its gap is told as that of
    `integrated_gradients`.

    Args:
        steps: how many gradients are taken; each waits for the one before.
        baseline: "zero", "mean", "blur", or images of the inputs' shape.
        fraction: the share of the values, those with the smallest gradients, that are changed at once.
        max_distance: how far a value may be from the straight line, as a share of its way; 0 is the straight line, 1
            any path.
    """
    at_least(1, steps=steps)
    if not 0 < fraction <= 1:
        raise InputError("the fraction is out of range.", got=fraction, expected="a number in (0, 1]")
    start, end = absent(inputs, baseline).flatten(1).double(), inputs.flatten(1).double()
    values, total, first = start.clone(), torch.zeros_like(start), torch.zeros_like(scores, dtype=torch.float64)
    images = torch.arange(len(inputs), device=inputs.device)
    for step in range(steps):
        at = values.reshape(inputs.shape).to(inputs)
        slopes = torch.zeros_like(values)
        for rows, found, gradients in gradients_at(images, lambda rows, at=at: at[rows]):  # type: ignore[misc]
            slopes[rows] = gradients.flatten(1).double()
            if step == 0:
                first[rows] = found.double()
        ahead = (step + 1) / steps
        least = start + (end - start) * max(ahead - max_distance, 0.0)
        most = start + (end - start) * min(ahead + max_distance, 1.0)
        left = (end - start).abs().sum(1) * (1 - ahead)
        moved = _advance(values, end, least, most, slopes.abs(), left, fraction)
        total += (moved - values) * slopes
        values = moved
    return _accounted(total.reshape(inputs.shape).sum(1), scores, first)


def _advance(
    values: Float[Tensor, "B n"],
    end: Float[Tensor, "B n"],
    least: Float[Tensor, "B n"],
    most: Float[Tensor, "B n"],
    sizes: Float[Tensor, "B n"],
    left: Float[Tensor, " B"],
    fraction: float,
) -> Float[Tensor, "B n"]:
    """Values moved on their way to `end` until only the distance `left` is to go, the smallest gradients first.

    Those behind `least` are brought up to it; none goes beyond `most`.
    """
    values = torch.where((end - values).abs() > (end - least).abs(), least, values)
    rank = int(fraction * (values.shape[1] - 1))
    while True:
        too_far = (end - values).abs().sum(1) - left  # what is still to be covered
        sizes = torch.where(values == most, torch.inf, sizes)
        threshold = sizes.kthvalue(rank + 1, dim=1, keepdim=True).values
        chosen = (sizes <= threshold) & sizes.isfinite()
        reach = ((most - values).abs() * chosen).sum(1)
        open_ = (too_far > 1e-9) & (reach > 0)
        if not bool(open_.any()):
            return values
        share = torch.where(open_, (too_far / reach.clamp(min=1e-300)).clamp(max=1), 0)[:, None]
        values = torch.where(chosen, torch.where(share == 1, most, values + share * (most - values)), values)


def _accounted(maps: Float[Tensor, "B *size"], scores: Float[Tensor, " B"], before: Float[Tensor, " B"]) -> Accounted:
    """Maps with their gap: the share of what the score changed by that they miss, beyond the rounding of the scores."""
    change = scores.double() - before
    rounding = 32 * torch.finfo(scores.dtype).eps * (scores.abs() + before.abs())
    missing = ((maps.flatten(1).sum(1) - change).abs() - rounding).clamp(min=0)
    gap = torch.where(missing > 0, missing / change.abs(), 0)
    return Accounted(maps.to(scores), gap.to(scores))


class _Rule(NamedTuple):
    """Where a function is taken on [0, 1], and what each value weighs in its integral."""

    nodes: Float[Tensor, " n"]
    weights: Float[Tensor, " n"]


def gauss_legendre(steps: int) -> _Rule:
    """Gauss and Legendre's rule: exact for polynomials up to degree 2 n - 1 (Golub and Welsch 1969)."""
    numbers = torch.arange(1, steps, dtype=torch.float64)
    beside = numbers / (4 * numbers**2 - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return _Rule((nodes + 1) / 2, vectors[0] ** 2)


def _references(inputs: Image, baseline: Tensor | Absent | Sequence[Absent]) -> Float[Tensor, "K B C *size"]:
    """For each reference what it is for each image."""
    if not isinstance(baseline, Tensor):
        return several(inputs, baseline)
    if baseline.shape[1:] != inputs.shape[1:] or not len(baseline):
        raise InputError(
            "the references do not fit the images.",
            got=tuple(baseline.shape),
            expected=f"(K, {', '.join(map(str, inputs.shape[1:]))})",
        )
    return baseline.to(inputs)[:, None].expand(-1, len(inputs), *inputs.shape[1:])
