"""How much of the score's variation each cell of a grid accounts for, when all cells are changed at random."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.quasirandom import SobolEngine

from seewhy._types import Ask
from seewhy.errors import InputError
from seewhy.images import arrays
from seewhy.images.absent import Absent, absent
from seewhy.methods.perturbation.asking import Images, Make, Map, asked_of_each
from seewhy.methods.registry import method


@method(
    "sobol",
    needs=("inputs", "score", "generator"),
    source="arXiv:2111.04138",
    cost="1 + designs x (cells + 1) forwards, cells those of the whole grid",
    checked=(
        "Jansen's estimator in float64 with the same masks: the same to 1e-4. A sum of cells with known weights: each "
        "index within 0.05 of its share, with 1,024 designs."
    ),
)
def sobol(
    inputs: Images,
    score: Ask,
    generator: Generator,
    *,
    designs: int = 32,
    cells: int = 8,
    baseline: Absent = "zero",
) -> Map:
    """Total Sobol indices: the share of the score's variance that a cell has a part in (Fel et al. 2021, eq. 6).

    Cells are shown by shares in [0, 1], drawn from a scrambled Sobol sequence. A and B are two such draws, and C_i is A
    with its cell i from B: S_i = mean (S(A) - S(C_i))^2 / (2 var S(A)), Jansen's estimator. Indices have no sign.

    Args:
        designs: rows of A; powers of two fill the space most evenly.
        cells: of the grid, along each side.
        baseline: what shows where a cell does not: "zero", "mean", "blur", or images of the inputs' shape.
    """
    grid = (cells,) * (inputs.ndim - 2)
    masks = design(math.prod(grid), designs, generator).to(inputs.device)
    shown = _shown(inputs, masks.reshape(-1, *grid), baseline)
    indices = total_indices(asked_of_each(score, inputs, len(masks), shown), designs)
    return arrays.resize(indices.reshape(-1, *grid).to(torch.float32), tuple(inputs.shape[2:]))


def design(count: int, designs: int, generator: Generator) -> Float[Tensor, "N count"]:
    """The shares at which a score is asked for total Sobol indices of `count` variables, (1 + count) x designs rows.

    Args:
        count: the number of variables.
        designs: rows of the first draw A; powers of two fill the space most evenly. After these rows come, for each
            variable, those of A with this variable of a second draw.
        generator: says which scrambled Sobol sequence the two draws are.

    Raises:
        InputError: for fewer than two designs, and more variables than the sequence has.
    """
    if designs < 2:
        raise InputError("`designs` is too small.", got=designs, expected="at least 2")
    if not 0 < 2 * count <= SobolEngine.MAXDIM:
        raise InputError("the grid has too many cells.", got=f"{count}", expected=f"at most {SobolEngine.MAXDIM // 2}")
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    sequence = SobolEngine(2 * count, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    first, second = sequence.draw(designs).chunk(2, 1)
    exchanged = torch.where(torch.eye(count, dtype=torch.bool)[:, None], second, first)
    return torch.cat([first[None], exchanged]).flatten(0, 1)


def total_indices(scores: Float[Tensor, "B N"], designs: int) -> Float[Tensor, "B count"]:
    """Jansen's estimator from the scores at the rows of `design`; 0 where the score does not vary."""
    found = scores.double().reshape(len(scores), -1, designs)
    variance = found[:, 0].var(1, keepdim=True)
    indices = (found[:, :1] - found[:, 1:]).square().mean(2) / 2
    return torch.where(variance > 0, indices / variance, 0)


@method(
    "hsic",
    needs=("inputs", "score", "generator"),
    source="arXiv:2206.06219",
    cost="1 + samples forwards",
    checked=(
        "tr(K H L H) / (n - 1)^2 in float64 with the same masks: the same to 1e-4. The authors' code takes the median "
        "score as the width of the kernel on scores, 1/n for 1/(n - 1)^2, and is otherwise the same."
    ),
)
def hsic(
    inputs: Images,
    score: Ask,
    generator: Generator,
    *,
    samples: int = 512,
    cells: int = 8,
    baseline: Absent = "zero",
) -> Map:
    """How much the score depends on whether a cell is shown, by a kernel measure of independence (Novello et al. 2022).

    HSIC = tr(K H L H) / (n - 1)^2, H the centring matrix. On masks K(m, m') = 1/2 - (m - m')^2; on scores L is Gaussian
    with the median distance of two scores as its width. Half of the masks show a cell. It has no sign.

    Args:
        samples: n, how many masks are drawn.
        cells: of the grid, along each side.
        baseline: what shows where a cell does not: "zero", "mean", "blur", or images of the inputs' shape.
    """
    if samples < 4:
        raise InputError("`samples` is too small.", got=samples, expected="at least 4")
    grid = (cells,) * (inputs.ndim - 2)
    order = torch.rand(samples, math.prod(grid), generator=generator, device=generator.device).argsort(0)
    masks = (order < samples // 2).to(inputs)
    found = asked_of_each(score, inputs, samples, _shown(inputs, masks.reshape(-1, *grid), baseline)).double()
    centred = masks.double() - masks.double().mean(0)
    # H K H = 2 c c' for the centred column c of a cell
    indices = torch.stack([2 * torch.einsum("nd,nm,md->d", centred, _likeness(row), centred) for row in found])
    indices = indices / (samples - 1) ** 2
    return arrays.resize(indices.reshape(-1, *grid).to(torch.float32), tuple(inputs.shape[2:]))


def _likeness(scores: Float[Tensor, " n"]) -> Float[Tensor, "n n"]:
    """The Gaussian kernel of each pair of scores."""
    distance = (scores[:, None] - scores).abs()
    width = distance[tuple(torch.triu_indices(len(scores), len(scores), 1, device=scores.device))].median()
    return torch.exp(-(distance**2) / (2 * torch.where(width > 0, width, 1) ** 2))


def _shown(inputs: Images, masks: Float[Tensor, "N *grid"], baseline: Absent) -> Make:
    """Images seen through a mask of cells, over what is there instead."""
    size, nothing = tuple(inputs.shape[2:]), absent(inputs, baseline)

    def make(images: Tensor, numbers: Tensor) -> Tensor:
        mask = arrays.resize(masks[numbers].to(inputs), size, "nearest")[:, None]
        return mask * inputs[images] + (1 - mask) * nothing[images]

    return make
