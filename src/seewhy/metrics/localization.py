"""Does a map's heat lie where the evidence is known to be: maps against masks or boxes.

Where equal values leave open which pixels are the hottest, a result is what it is on average over their orders. So a
constant map gets what a map by chance gets, and never a hit for sure. An empty mask gives NaN: nothing can be hit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from seewhy.errors import InputError
from seewhy.metrics._inputs import Maps, at_least_one, finite, undefined

# Of any type, so that ours is the error about one that is not boolean.
Masks: TypeAlias = Shaped[Tensor, "masks *area"]


def average_precision(maps: Maps, masks: Masks) -> Float[Tensor, " maps"]:
    """Area under precision over recall, with the map's values as scores of the pixels.

    The sum over thresholds of (R_n - R_(n - 1)) P_n, as scikit-learn's `average_precision_score`. 1 is perfect; chance
    and a constant map give the share of the mask in the image.

    Args:
        maps: (B, H, W) or (B, D, H, W); only the order of the values counts.
        masks: of the same shape, True where the evidence is.

    Returns:
        (B,) in (0, 1]; NaN for an empty mask.

    Raises:
        InputError: if maps and masks differ in shape, a map is not finite, or the masks are not boolean.
    """
    found, taken, last = _by_value(*_checked(maps, masks))
    at_last = torch.where(last, found, 0)
    before = F.pad(at_last.cummax(1).values[:, :-1], (1, 0))
    parts = torch.where(last, (found - before) * found / taken, 0)
    return (parts.sum(1) / found[:, -1]).to(_real(maps))


def best_iou(maps: Maps, masks: Masks) -> Float[Tensor, " maps"]:
    """The largest intersection over union of a mask with the pixels above a threshold, over all thresholds.

    The threshold is chosen with hindsight, so this is what the map could give at best.

    Args:
        maps: (B, H, W) or (B, D, H, W); only the order of the values counts.
        masks: of the same shape, True where the evidence is.

    Returns:
        (B,) in (0, 1]: at least the mask's share in the image, which a constant map gets. NaN for an empty mask.

    Raises:
        InputError: if maps and masks differ in shape, a map is not finite, or the masks are not boolean.
    """
    found, taken, last = _by_value(*_checked(maps, masks))
    size = found[:, -1:]
    overlap = torch.where(last, found / (taken + size - found), 0).amax(1)
    return undefined(overlap, size[:, 0] == 0).to(_real(maps))


def pointing_game(maps: Maps, masks: Masks, *, tolerance: float = 0) -> Float[Tensor, " maps"]:
    """Whether the hottest pixel lies in the mask.

    Zhang et al. 2018 (arXiv:1608.00507), section 4.1; their tolerance is 15 pixels. If several pixels are the hottest,
    the share of them that hit.

    Args:
        maps: (B, H, W) or (B, D, H, W).
        masks: of the same shape, True where the evidence is.
        tolerance: how many pixels beside the mask still hit, as the distance of centres.

    Returns:
        (B,) 1 for a hit and 0 for a miss; NaN for an empty mask.

    Raises:
        InputError: if maps and masks differ in shape, a map is not finite, the masks are not boolean, or the tolerance
            is negative.
    """
    maps, masks = _checked(maps, masks)
    if tolerance < 0:
        raise InputError("the tolerance is negative.", got=tolerance, expected="0 or more pixels")
    flat, near = maps.flatten(1), _near(masks, tolerance).flatten(1)
    hottest = flat == flat.amax(1, keepdim=True)
    share = (hottest & near).sum(1).to(maps.dtype) / hottest.sum(1)
    return undefined(share, ~masks.flatten(1).any(1))


def relevance_mass(maps: Maps, masks: Masks) -> Float[Tensor, " maps"]:
    """The share of a map's positive values that lies in the mask.

    Relevance mass accuracy of Arras et al. 2022 (arXiv:2003.07258), section 3.2; negative values speak against the
    score and are not counted.

    Args:
        maps: (B, H, W) or (B, D, H, W).
        masks: of the same shape, True where the evidence is.

    Returns:
        (B,) in [0, 1]; NaN for an empty mask, and for a map without a positive value.

    Raises:
        InputError: if maps and masks differ in shape, a map is not finite, or the masks are not boolean.
    """
    maps, masks = _checked(maps, masks)
    heat = maps.clamp(min=0).flatten(1)
    inside = masks.flatten(1)
    return undefined((heat * inside).sum(1) / heat.sum(1), ~inside.any(1))


def energy_pointing(maps: Maps, boxes: Sequence[Shaped[Tensor, "_ _"]]) -> Float[Tensor, " maps"]:
    """The share of a map's positive values that lies in the boxes: the energy-based pointing game.

    Wang et al. 2020 (arXiv:1910.01279), section 4.3. It is `relevance_mass` with boxes for masks.

    Args:
        maps: (B, H, W) or (B, D, H, W).
        boxes: the boxes of each image, as those of `box_masks`.

    Returns:
        (B,) in [0, 1]; NaN without a box, and for a map without a positive value.

    Raises:
        InputError: if maps and boxes differ in number or dimensions, or a map is not finite.
    """
    return relevance_mass(maps, box_masks(boxes, tuple(maps.shape[1:])).to(maps.device))


def relevance_rank(maps: Maps, masks: Masks) -> Float[Tensor, " maps"]:
    """The share of the mask that is covered by as many of the hottest pixels as it has.

    Relevance rank accuracy of Arras et al. 2022 (arXiv:2003.07258), section 3.2.

    Args:
        maps: (B, H, W) or (B, D, H, W); only the order of the values counts.
        masks: of the same shape, True where the evidence is.

    Returns:
        (B,) in [0, 1]; NaN for an empty mask.

    Raises:
        InputError: if maps and masks differ in shape, a map is not finite, or the masks are not boolean.
    """
    maps, masks = _checked(maps, masks)
    sizes = masks.flatten(1).sum(1)
    return undefined(_hits(maps, masks, sizes.clamp(min=1)) / sizes, sizes == 0)


def top_k_intersection(maps: Maps, masks: Masks, *, k: int = 1000) -> Float[Tensor, " maps"]:
    """The share of the `k` hottest pixels that lies in the mask.

    Theiner et al. 2022 (arXiv:2104.14995).

    Args:
        maps: (B, H, W) or (B, D, H, W); only the order of the values counts.
        masks: of the same shape, True where the evidence is.
        k: how many pixels, at most as many as the map has.

    Returns:
        (B,) in [0, 1]; NaN for an empty mask.

    Raises:
        InputError: if maps and masks differ in shape, a map is not finite, the masks are not boolean, or `k` is out of
            range.
    """
    maps, masks = _checked(maps, masks)
    at_least_one(k=k)
    if k > maps[0].numel():
        raise InputError("there are fewer pixels than `k`.", got=k, expected=f"at most {maps[0].numel()}")
    hits = _hits(maps, masks, torch.full((len(maps),), k, device=maps.device))
    return undefined(hits / k, ~masks.flatten(1).any(1))


def box_masks(boxes: Sequence[Shaped[Tensor, "_ _"]], size: tuple[int, ...]) -> Masks:
    """A mask for each image, True in its boxes.

    Args:
        boxes: for each image (N, 4): x0, y0, x1, y1 in pixels from the upper left corner, as `Explanation.boxes` and
            torchvision give them; for volumes (N, 6): x0, y0, z0, x1, y1, z1. A pixel is inside if its centre is.
        size: (H, W) or (D, H, W) of the masks.

    Returns:
        (B, *size).

    Raises:
        InputError: if boxes are of another shape.
    """
    sides = 2 * len(size)
    masks = []
    for number, image_boxes in enumerate(boxes):
        if image_boxes.ndim != 2 or image_boxes.shape[1] != sides:
            raise InputError(
                f"these are no boxes in {len(size)} dimensions.",
                got=f"{tuple(image_boxes.shape)} for image {number}",
                expected=f"(N, {sides}), one tensor for each image",
            )
        low, high = image_boxes[:, : len(size)].flip(1), image_boxes[:, len(size) :].flip(1)  # the last dimension is x
        inside = torch.ones(len(image_boxes), *size, dtype=torch.bool, device=image_boxes.device)
        for dim, length in enumerate(size):
            centres = torch.arange(length, device=image_boxes.device) + 0.5
            along = (centres >= low[:, dim, None]) & (centres < high[:, dim, None])
            inside &= along.reshape(len(image_boxes), *(length if d == dim else 1 for d in range(len(size))))
        masks.append(inside.any(0))
    return torch.stack(masks)


def mosaics(images: Float[Tensor, "B C H W"], *, grid: int = 2) -> Float[Tensor, "mosaics C height width"]:
    """Images put together into squares of `grid` x `grid`, row by row, for the grid pointing game.

    Args:
        images: (B, C, H, W); B is a multiple of grid². The images of a mosaic should be of different classes.
        grid: how many images there are in a row and in a column.

    Returns:
        (B / grid², C, grid * H, grid * W).

    Raises:
        InputError: if the images do not fill the mosaics.
    """
    at_least_one(grid=grid)
    count = grid * grid
    if len(images) % count or not len(images):
        raise InputError("the images do not fill the mosaics.", got=len(images), expected=f"a multiple of {count}")
    _, channels, height, width = images.shape
    rows = images.reshape(-1, grid, grid, channels, height, width).permute(0, 3, 1, 4, 2, 5)  # C, row, H, column, W
    return rows.flatten(4, 5).flatten(2, 3)


def grid_pointing(
    maps: Float[Tensor, "maps height width"], cells: Int[Tensor, " cells"], *, grid: int = 2
) -> Float[Tensor, " maps"]:
    """The share of a map's positive values that lies in the cell of a mosaic that shows the explained class.

    The grid pointing game of Böhle et al. 2021 (arXiv:2104.00032), section 5.1. 1 / grid² is chance.

    Args:
        maps: (N, H, W) of mosaics, each for the class of one of its images. H and W are multiples of `grid`.
        cells: (N,) the number of that image in the mosaic, row by row, from 0.
        grid: how many images there are in a row and in a column.

    Returns:
        (N,) in [0, 1]; NaN for a map without a positive value.

    Raises:
        InputError: if maps and cells differ in number, a side is no multiple of `grid`, there is no such cell, or a map
            is not finite.
    """
    maps = finite(maps)
    at_least_one(grid=grid)
    if maps.ndim != 3 or maps.shape[1] % grid or maps.shape[2] % grid or cells.shape != maps.shape[:1]:
        raise InputError(
            "maps and mosaics do not fit.",
            got=f"maps {tuple(maps.shape)} and cells {tuple(cells.shape)}",
            expected=f"(N, H, W) with sides that are multiples of {grid}, and (N,)",
        )
    if bool(((cells < 0) | (cells >= grid * grid)).any()):
        raise InputError("there is no such cell.", got=cells.tolist(), expected=f"0 to {grid * grid - 1}")
    count, height, width = maps.shape
    parts = maps.clamp(min=0).reshape(count, grid, height // grid, grid, width // grid)
    heat = parts.sum((2, 4)).flatten(1)
    inside = heat.gather(1, cells.to(heat.device)[:, None])[:, 0]
    return inside / heat.sum(1)


def _checked(maps: Maps, masks: Masks) -> tuple[Maps, Masks]:
    maps = finite(maps)
    if masks.shape != maps.shape:
        raise InputError(
            "maps and masks differ in shape.",
            got=f"maps {tuple(maps.shape)}, masks {tuple(masks.shape)}",
            do="resize the maps to the masks: a mask loses its edges if it is resized",
        )
    if masks.dtype != torch.bool:
        raise InputError("masks are boolean.", got=masks.dtype, do="masks > 0, or box_masks(boxes, size)")
    return maps, masks.to(maps.device)


def _real(maps: Maps) -> torch.dtype:
    return torch.promote_types(maps.dtype, torch.float32)


def _by_value(maps: Maps, masks: Masks) -> tuple[Tensor, Tensor, Tensor]:
    """By how many of the hottest pixels are taken (B, P): those in the mask, all, and if the next one is colder."""
    values, order = maps.flatten(1).sort(dim=1, descending=True)
    found = masks.flatten(1).gather(1, order).cumsum(1).double()
    taken = torch.arange(1, values.shape[1] + 1, device=maps.device, dtype=torch.float64)
    last = F.pad(values[:, 1:] != values[:, :-1], (0, 1), value=True)
    return found, taken, last


def _hits(maps: Maps, masks: Masks, count: Int[Tensor, " maps"]) -> Float[Tensor, " maps"]:
    """How many of the `count` hottest pixels lie in the mask, on average over the orders of equal values."""
    flat, inside = maps.flatten(1), masks.flatten(1)
    least = flat.sort(dim=1, descending=True).values.gather(1, count[:, None] - 1)
    above, equal = flat > least, flat == least
    left = (count - above.sum(1)).to(flat.dtype)
    return (above & inside).sum(1) + left * (equal & inside).sum(1) / equal.sum(1)


def _near(masks: Masks, tolerance: float) -> Masks:
    """Where a mask is at most `tolerance` pixels away."""
    reach = math.floor(tolerance)
    if not reach:
        return masks
    dims = masks.ndim - 1
    places = torch.arange(-reach, reach + 1, device=masks.device, dtype=torch.float32)
    distance = torch.stack(torch.meshgrid(*[places] * dims, indexing="ij")).square().sum(0)
    ball = (distance <= tolerance**2).float()[None, None]
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[dims]
    return convolve(masks[:, None].float(), ball, padding=reach)[:, 0] > 0.5
