"""Masks made of a transformer's tokens: like channels of them are grouped first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from seewhy._types import Ask
from seewhy.images import arrays
from seewhy.methods.registry import method


@method(
    "vit_cx",
    needs=("activations", "inputs", "score", "generator"),
    source="arXiv:2211.03064",
    cost="1 + 2 x clusters forwards",
    checked=(
        "The definition in the docstring in float64: the same to 1e-3 of the map's size. Not compared with the "
        "authors' code."
    ),
)
def vit_cx(
    activations: Float[Tensor, "B C *space"],
    inputs: Float[Tensor, "B c *size"],
    score: Ask,
    generator: Generator,
    *,
    distance: float = 0.1,
    noise: float = 0.1,
) -> Float[Tensor, "B *size"]:
    """What is left of the score of an image seen through groups of like channels of its tokens (Xie et al. 2023).

    Channels become masks M in [0, 1]; those of a cosine distance below `distance` are added up. A mask's weight is
    S(M X + (1 - M) e) - S(X + (1 - M) e), where e is normal, its deviation `noise`. A place has the weights of the
    masks on it by their shares in the sum of all there, over the number of masks. The mean weight is taken off, where
    the paper adds S(X): either is the same at all places, and so what is positive is above the average.
    """
    size = tuple(inputs.shape[2:])
    masks = [_grouped(_scaled(arrays.resize(image, size)), distance) for image in activations]
    images = torch.cat([torch.full((len(found),), image) for image, found in enumerate(masks)]).to(inputs.device)
    numbers = torch.cat([torch.arange(len(found)) for found in masks]).tolist()
    every = torch.cat(masks)[:, None]
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))

    def noisy(rows: Tensor) -> Tensor:
        """The mask's own noise, the same in every batch, where the mask is not."""
        drawn = [
            torch.randn(inputs.shape[1:], generator=Generator().manual_seed(seed + numbers[row]))
            for row in rows.tolist()
        ]
        return (1 - every[rows]) * noise * torch.stack(drawn).to(every)

    masked = score(images, lambda rows: every[rows] * inputs[images[rows]] + noisy(rows))
    weights = masked - score(images, lambda rows: inputs[images[rows]] + noisy(rows))
    maps = []
    for found, weight in zip(masks, torch.split(weights.to(every), [len(found) for found in masks]), strict=True):
        covered = found.sum(0)
        total = torch.einsum("n,n...->...", weight - weight.mean(), found)
        maps.append(torch.where(covered > 0, total / torch.where(covered > 0, covered, 1), 0) / max(len(found), 1))
    return torch.stack(maps)


def _scaled(masks: Float[Tensor, "N *size"]) -> Float[Tensor, "K *size"]:
    """Masks scaled to [0, 1], but for those that are constant."""
    scaled = arrays.rescale(masks, tuple(range(1, masks.ndim)))
    return scaled[scaled.flatten(1).any(1)]


def _grouped(masks: Float[Tensor, "N *size"], distance: float) -> Float[Tensor, "K *size"]:
    """Masks added up by complete linkage: two groups are one while all their masks are within a cosine `distance`."""
    rows = F.normalize(masks.flatten(1), dim=1)
    apart = (1 - rows @ rows.mT).fill_diagonal_(torch.inf)
    group = torch.arange(len(masks), device=masks.device)
    while len(masks) > 1 and float(apart.min()) < distance:
        kept, merged = sorted(divmod(int(apart.argmin()), len(masks)))
        farthest = apart[kept].maximum(apart[merged])
        apart[kept], apart[:, kept] = farthest, farthest
        apart[merged], apart[:, merged] = torch.inf, torch.inf
        apart[kept, kept] = torch.inf
        group[group == merged] = kept
    _, member = torch.unique(group, return_inverse=True)
    sums = masks.new_zeros(int(member.max()) + 1 if len(member) else 0, *masks.shape[1:]).index_add(0, member, masks)
    return _scaled(sums)
