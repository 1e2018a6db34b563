"""Masks on the image itself, of no layer: they explain any model that can be run."""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from seewhy._types import Ask
from seewhy.errors import InputError
from seewhy.images import arrays
from seewhy.methods.perturbation.asking import Images, Map, asked_of_each
from seewhy.methods.registry import method


@method(
    "rise",
    needs=("inputs", "score", "generator"),
    source="arXiv:1806.07421",
    cost="1 + masks forwards",
    checked="Equation 6 in float64 with the same masks, scores less their mean: the same to 1e-4.",
)
def rise(
    inputs: Images,
    score: Ask,
    generator: Generator,
    *,
    masks: int = 2000,
    cells: int = 7,
    keep: float = 0.5,
) -> Map:
    """Random masks weighted by the score of the image seen through them (Petsiuk et al. 2018, eq. 6).

    Masks are coarse grids, enlarged and shifted at random. The mean score is taken off first: the map says which places
    score more than the others.

    Args:
        masks: how many are drawn.
        cells: of the grid, along each side.
        keep: the probability that a cell is open.
    """
    size = inputs.shape[2:]
    cell = [math.ceil(side / cells) for side in size]
    larger = tuple((cells + 1) * side for side in cell)
    shape = (masks, *[cells] * len(size))
    grids = (torch.rand(shape, generator=generator, device=generator.device) < keep).to(inputs)
    shifts = [torch.randint(side, (masks,), generator=generator, device=generator.device).tolist() for side in cell]

    def drawn(numbers: Int[Tensor, " n"]) -> Float[Tensor, "n *size"]:
        cut = []
        for number, grid in zip(numbers.tolist(), arrays.resize(grids[numbers].float(), larger), strict=True):
            starts = [shift[number] for shift in shifts]
            cut.append(grid[tuple(slice(start, start + side) for start, side in zip(starts, size, strict=True))])
        return torch.stack(cut)

    def seen(images: Tensor, numbers: Tensor) -> Tensor:
        return drawn(numbers)[:, None] * inputs[images]

    found = asked_of_each(score, inputs, masks, seen)
    found = found - found.mean(1, keepdim=True)
    total = found.new_zeros(len(inputs), *size)
    for start in range(0, masks, 32):
        numbers = torch.arange(start, min(start + 32, masks), device=inputs.device)
        total = total + torch.einsum("bn,n...->b...", found[:, numbers], drawn(numbers))
    return total / (masks * keep)


@method(
    "occlusion",
    needs=("inputs", "scores", "score"),
    source="arXiv:1311.2901",
    cost="1 + windows forwards",
    checked="The mean over the windows on a pixel in float64: the same to 1e-4. captum 0.9.0: the same to 1e-4.",
)
def occlusion(
    inputs: Images,
    scores: Float[Tensor, " B"],
    score: Ask,
    *,
    window: int | None = None,
    stride: int | None = None,
    baseline: float = 0.0,
) -> Map:
    """The score lost behind a window that slides over the image, averaged over the windows on a pixel (Zeiler 2014).

    The last windows may stand out over the edge.

    Args:
        window: its side in pixels; an eighth of the image's shortest side unless given.
        stride: from one window to the next, in pixels; half of the window unless given.
        baseline: what windows are filled with. 0 is the mean colour of a normalised image.

    Raises:
        InputError: if the windows leave gaps.
    """
    size = inputs.shape[2:]
    window = window or math.ceil(min(size) / 8)
    stride = stride or math.ceil(window / 2)
    if not 0 < stride <= window:
        raise InputError("the windows leave gaps.", got=f"stride {stride}, window {window}", do="a smaller stride")
    starts = [range(0, max(side - window, 0) + stride, stride) for side in size]
    corners = list(itertools.product(*starts))

    def hidden(numbers: Int[Tensor, " n"]) -> Bool[Tensor, "n *size"]:
        masks = torch.zeros(len(numbers), *size, dtype=torch.bool, device=inputs.device)
        for mask, number in zip(masks, numbers.tolist(), strict=True):
            mask[tuple(slice(start, start + window) for start in corners[number])] = True
        return masks

    def occluded(images: Tensor, numbers: Tensor) -> Tensor:
        return torch.where(hidden(numbers)[:, None], baseline, inputs[images])

    found = asked_of_each(score, inputs, len(corners), occluded)
    total, covered = found.new_zeros(len(inputs), *size), found.new_zeros(size)
    for start in range(0, len(corners), 32):
        numbers = torch.arange(start, min(start + 32, len(corners)), device=inputs.device)
        masks = hidden(numbers).to(found)
        total = total + torch.einsum("bn,n...->b...", scores[:, None] - found[:, numbers], masks)
        covered = covered + masks.sum(0)
    return total / covered
