"""The order of a map's pixels."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from seewhy.errors import InputError
from seewhy.metrics._inputs import Maps


def ranks(maps: Maps, generator: Generator) -> Int[Tensor, "maps *size"]:
    """The rank of each pixel, 0 for the hottest. Equal values are put in an order that is drawn once for all maps."""
    flat = maps.flatten(1)
    drawn = torch.randperm(flat.shape[1], generator=generator, device=generator.device).to(maps.device)
    order = drawn[flat[:, drawn].argsort(dim=1, descending=True, stable=True)]
    numbers = torch.arange(flat.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, numbers).reshape(maps.shape)


def lowest(maps: Maps, percentile: float, *, generator: Generator) -> Bool[Tensor, "maps *size"]:
    """Where each map is below its own percentile: the ceil(percentile / 100 * (H W - 1)) pixels of least value.

    That many whatever the map: which of equal pixels are among them is drawn, by one draw for all maps. A comparison
    with the percentile instead takes none of them, or all: nothing of a map with more zeros than `percentile`.
    """
    if not 0 <= percentile <= 100:
        raise InputError("the percentile is out of range.", got=percentile, expected="a number in [0, 100]")
    count = math.ceil(round(percentile / 100 * (maps[0].numel() - 1), 6))
    return ranks(-maps, generator) < count


def cuts(maps: Maps, steps: int) -> tuple[Float[Tensor, "maps S"], Float[Tensor, "maps S"]]:
    """Where to cut each map so that the shares 0, 1 / steps, ... 1 of its pixels lie at or above the cut.

    Pixels of the same value are never parted: the cut goes to the nearer side of them.

    Returns:
        The values to compare with (infinite for none of the pixels), and the share that is at or above each.
    """
    flat = maps.flatten(1)
    ascending = flat.sort(dim=1).values
    pixels = flat.shape[1]
    wanted = (torch.arange(steps + 1, device=maps.device) * pixels / steps).round().long()
    values = ascending[:, (pixels - wanted).clamp(max=pixels - 1)].contiguous()
    above = pixels - torch.searchsorted(ascending, values, right=True)
    with_them = pixels - torch.searchsorted(ascending, values, right=False)
    taken = torch.where(with_them - wanted <= wanted - above, with_them, above)
    lowest_taken = ascending.gather(1, (pixels - taken).clamp(max=pixels - 1))
    return lowest_taken.masked_fill(taken == 0, math.inf), (taken.double() / pixels).to(maps.dtype)
