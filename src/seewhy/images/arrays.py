"""Pure tensor functions on maps: resize, scale, blur, and the boxes around what is hot."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.errors import InputError

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resize(
    maps: Float[Tensor, "*batch_and_grid"],
    size: tuple[int, ...],
    mode: str = "bilinear",
    extents: Sequence[tuple[float, float]] | None = None,
) -> Float[Tensor, "*batch_and_size"]:
    """Maps of another size. Pixel centres are kept (half-pixel rule, no aligned corners).

    Args:
        maps: (..., *grid); the last `len(size)` dimensions are resized.
        size: (H, W), (D, H, W) or (L,).
        mode: "nearest", "bilinear" (linear in each dimension, so trilinear for volumes), "bicubic" (images only), or
            "area", the mean over what falls into each cell.
        extents: for each map of the first dimension the share (height, width) of it, from the upper left, to show.

    Returns:
        (..., *size).

    Raises:
        InputError: for bicubic resizing of anything but images.
    """
    if extents is not None and any(extent != (1, 1) for extent in extents):
        return _cut(maps, size, mode, torch.tensor(extents, device=maps.device, dtype=maps.dtype))
    grid = maps.shape[-len(size) :]
    if tuple(grid) == tuple(size):
        return maps
    if mode == "bicubic" and len(size) != 2:
        raise InputError(
            "bicubic resizing is for images.", got=f"a map with {len(size)} spatial dimensions", do='mode="bilinear"'
        )
    method = _LINEAR[len(size)] if mode == "bilinear" else mode
    corners = None if mode in ("nearest", "area") else False
    flat = maps.reshape(-1, 1, *grid)
    return F.interpolate(flat, size=size, mode=method, align_corners=corners).reshape(*maps.shape[: -len(size)], *size)


def _cut(
    maps: Float[Tensor, "B *targets h w"], size: tuple[int, ...], mode: str, extents: Float[Tensor, "B 2"]
) -> Float[Tensor, "B *targets H W"]:
    """The upper left part of each map, resized; output pixel i lies at (i + 1/2) / H of the part's height."""
    vertical, horizontal = extents.unbind(1)
    zero = torch.zeros_like(vertical)
    across = torch.stack([horizontal, zero, horizontal - 1], 1)
    down = torch.stack([zero, vertical, vertical - 1], 1)
    flat = maps.reshape(len(maps), -1, *maps.shape[-2:])
    places = F.affine_grid(torch.stack([across, down], 1), [len(maps), 1, *size], align_corners=False)
    drawn = F.grid_sample(flat, places, mode, padding_mode="border", align_corners=False)
    return drawn.reshape(*maps.shape[:-2], *size)


def rescale(maps: Float[Tensor, "*shape"], dims: tuple[int, ...]) -> Float[Tensor, "*shape"]:
    """Maps scaled to [0, 1] by their own range; all zero where they are constant, or not finite.

    Args:
        maps: of any shape.
        dims: the dimensions that one range is taken over.
    """
    low, high = maps.amin(dims, keepdim=True), maps.amax(dims, keepdim=True)
    span = high - low
    scaled = (span > 0) & span.isfinite()
    return torch.where(scaled, (maps - low) / torch.where(scaled, span, 1), 0)


def blur(
    maps: Float[Tensor, "*batch_and_grid"], sigma: float, dims: tuple[int, ...] = (-2, -1)
) -> Float[Tensor, "*batch_and_grid"]:
    """Gaussian blur, with reflected borders.

    Args:
        maps: of any shape.
        sigma: the standard deviation, in pixels. The kernel is cut at four of them. 0 leaves the maps as they are.
        dims: the dimensions to blur along.
    """
    if sigma <= 0:
        return maps
    radius = math.ceil(4 * sigma)
    offsets = torch.arange(-radius, radius + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    for dim in dims:
        line = maps.movedim(dim, -1)
        length = line.shape[-1]
        places = torch.arange(-radius, length + radius, device=maps.device) % (2 * length)  # abc|cba|abc|...
        mirrored = line[..., torch.where(places < length, places, 2 * length - 1 - places)]
        blurred = F.conv1d(mirrored.reshape(-1, 1, mirrored.shape[-1]), kernel[None, None])
        maps = blurred.reshape(line.shape).movedim(-1, dim)
    return maps


def low_pass(
    maps: Float[Tensor, "*batch_and_grid"], cutoff: float, dimensions: int
) -> Float[Tensor, "*batch_and_grid"]:
    """Maps without their high frequencies, by an ideal filter: phi_s = F^-1(F(phi) w_s). Their sum stays.

    FORGrad (Muzellec et al. 2024, arXiv:2307.09591).

    Args:
        maps: (..., *grid).
        cutoff: how many frequencies are kept along the shortest side, of 2 for each cycle: all of them at its length.
        dimensions: of the grid.
    """
    dims = tuple(range(-dimensions, 0))
    sides = maps.shape[-dimensions:]
    spectrum = torch.fft.fftn(maps, dim=dims)
    for dim, side in zip(dims, sides, strict=True):
        low = torch.fft.fftfreq(side, device=maps.device).abs() * min(sides) * 2 <= cutoff + 1e-4
        spectrum = spectrum * low.reshape(-1, *[1] * (-1 - dim))
    kept: Tensor = torch.fft.ifftn(spectrum, dim=dims).real
    return kept


def boxes(heatmap: Float[Tensor, "*space"], threshold: float = 0.5) -> Int[Tensor, "N sides"]:
    """Boxes around the connected hot regions of one map, the one with most heat in it first: see `boxes_of_each`."""
    return boxes_of_each(heatmap[None], threshold)[0]


def boxes_of_each(heatmaps: Float[Tensor, "B *space"], threshold: float = 0.5) -> list[Int[Tensor, "_ sides"]]:
    """Boxes around the connected hot regions of each map, the one with most heat in it first.

    Args:
        heatmaps: (B, H, W) or (B, D, H, W).
        threshold: a place is hot where the map is at least this. Hot places are connected by side or corner.

    Returns:
        For each map (N, 4) of an image, rows (x0, y0, x1, y1) in pixels; (N, 6) of a volume, rows (x0, y0, z0, x1, y1,
        z1). The upper ends are exclusive, so x1 - x0 is the width.
    """
    hot = heatmaps >= threshold
    regions, number = torch.unique(_connected(hot)[hot], return_inverse=True)
    places = hot.nonzero()
    image, place = places[:, 0], places[:, 1:].flip(1)
    rows = number[:, None].expand_as(place)
    empty = place.new_zeros(len(regions), place.shape[1])
    low = empty.scatter_reduce(0, rows, place, "amin", include_self=False)
    high = empty.scatter_reduce(0, rows, place, "amax", include_self=False) + 1
    heat = heatmaps.new_zeros(len(regions)).index_add(0, number, heatmaps[hot])
    owner = place.new_zeros(len(regions)).scatter(0, number, image)
    order = heat.argsort(descending=True, stable=True)
    order = order[owner[order].argsort(stable=True)]
    counts = owner.bincount(minlength=len(heatmaps)).tolist()
    return list(torch.split(torch.cat([low, high], 1)[order], counts))


def _connected(masks: Tensor) -> Tensor:
    """A number for each connected region of boolean maps: the highest index in it; 0 outside.

    Each place takes the highest number around it, then that number's own number, until nothing changes.
    """
    labels = torch.where(masks, torch.arange(1, masks.numel() + 1, device=masks.device).reshape(masks.shape), 0)
    while True:
        spread = labels
        for dim in range(1, masks.ndim):
            spread = _highest_of_three(spread, dim)
        spread = torch.where(masks, spread, 0)
        chained = torch.where(masks, spread.flatten()[(spread - 1).clamp(min=0)], 0)
        if torch.equal(chained, labels):
            return labels
        labels = chained


def _highest_of_three(values: Tensor, dim: int) -> Tensor:
    """For each place along `dim` the highest value of it and its two neighbours: much faster than a pooling layer."""
    found, length = values.clone(), values.shape[dim] - 1
    for here, there in ((found.narrow(dim, 1, length), 0), (found.narrow(dim, 0, length), 1)):
        torch.maximum(here, values.narrow(dim, there, length), out=here)
    return found
