"""Regions of the pictures in the order in which they make an answer: enough alone, and missed where they are gone."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy._types import Ask
from seewhy.errors import InputError
from seewhy.images import arrays
from seewhy.methods.perturbation.asking import Images, Map
from seewhy.methods.registry import method
from seewhy.targets.tokens import probable


def _of_probability(target: Any, _: Any) -> Any:
    return probable(target)


@method(
    "eagle",
    needs=("inputs", "score"),
    source="arXiv:2509.22496",
    cost="1 + n (n + 1) forwards, n regions",
    ask=_of_probability,
    checked="Its greedy search over all subsets of each size, by hand on 4 regions: the same order and values.",
)
def eagle(inputs: Images, score: Ask, *, regions: int = 4, baseline: float = 0.0) -> Map:
    """Regions by a greedy search for what suffices and is needed (Chen et al. 2025).

    Of a set S of regions the objective is F(S) = p(S alone) + 1 - p(all but S), with p the probability of the token.
    Regions are added one by one, each the one that F gains most by. The first is worth 0 and each later one less by
    |F(S and it) - F(S)|, and the least is set to 0. Of other targets than tokens p is the score itself.

    Args:
        inputs: the pictures.
        score: what the probability becomes for changed pictures.
        regions: the number of regions along each side.
        baseline: what absent regions are filled with. 0 is the mean colour of a normalised picture.

    Raises:
        InputError: if there is less than one region on a side.
    """
    if regions < 1:
        raise InputError("there are no regions.", got=f"regions={regions}", expected="1 or more on each side")
    size = inputs.shape[2:]
    blocks = torch.arange(regions ** len(size), device=inputs.device).reshape([regions] * len(size))
    region = arrays.resize(blocks[None].float(), size, "nearest")[0].long()
    return torch.stack([_of_image(inputs, image, score, region, baseline) for image in range(len(inputs))])


def _of_image(inputs: Images, image: int, score: Ask, region: Tensor, baseline: float) -> Tensor:
    count = int(region.max()) + 1
    value = inputs.new_zeros(count, dtype=torch.float32)
    present: list[int] = []
    before, worth = 0.0, 0.0
    while len(present) < count:
        others = [one for one in range(count) if one not in present]
        sets = torch.zeros(len(others), count, dtype=torch.bool, device=inputs.device)
        sets[:, present] = True
        sets[torch.arange(len(others)), others] = True
        gained = _objective(inputs, image, score, region, sets, baseline)
        best = int(gained.argmax())
        if present:
            worth -= abs(float(gained[best]) - before)
        before = float(gained[best])
        value[others[best]] = worth
        present.append(others[best])
    return (value - value.min())[region]


def _objective(
    inputs: Images, image: int, score: Ask, region: Tensor, sets: Tensor, baseline: float
) -> Float[Tensor, " n"]:
    """F of each set (n, regions)."""
    shown = torch.cat([sets, ~sets])

    def seen(rows: Tensor) -> Tensor:
        return torch.where(shown[rows][:, region][:, None], inputs[image][None], baseline)

    found = score(torch.full((len(shown),), image, device=inputs.device), seen)
    alone, without = found.float().chunk(2)
    return alone + 1 - without
