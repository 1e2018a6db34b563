"""Synthetic scenes for the examples: coloured shapes of known outline on noise, as many as are wanted, from a seed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

SHAPES = ("background", "disc", "square", "triangle")
COLOURS = torch.tensor([[0.5, 0.5, 0.5], [0.85, 0.2, 0.2], [0.2, 0.7, 0.25], [0.2, 0.3, 0.85]])


class Scenes(NamedTuple):
    """images: (B, 3, S, S) in [0, 1]. kinds: (B, N) index into SHAPES. masks: (B, N, S, S). boxes: (B, N, 4)."""

    images: Tensor
    kinds: Tensor
    masks: Tensor
    boxes: Tensor


def scenes(count: int, *, shapes: int = 2, size: int = 64, seed: int = 0) -> Scenes:
    """`count` images with `shapes` shapes each, side by side in random order, none over another."""
    generator = Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    kinds = torch.stack([1 + torch.randperm(3, generator=generator)[:shapes] for _ in range(count)])
    lane = size / shapes
    radius = uniform(0.14, 0.2, count, shapes) * min(size, 1.5 * lane)
    x = (torch.arange(shapes) + 0.5) * lane + uniform(-1, 1, count, shapes) * (lane / 2 - radius)
    y = radius + uniform(0, 1, count, shapes) * (size - 2 * radius)

    rows, columns = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    across = (columns - x[..., None, None]) / radius[..., None, None]
    down = (rows - y[..., None, None]) / radius[..., None, None]
    disc = across**2 + down**2 <= 1
    square = (across.abs() <= 1) & (down.abs() <= 1)
    triangle = (down.abs() <= 1) & (across.abs() <= (down + 1) / 2)
    masks = torch.stack([disc, square, triangle])[kinds - 1, torch.arange(count)[:, None], torch.arange(shapes)]

    images = uniform(0.3, 0.6, count, 3, 1, 1) + uniform(-0.15, 0.15, count, 3, size, size)
    for number in range(shapes):
        colours = COLOURS[kinds[:, number], :, None, None] + uniform(-0.1, 0.1, count, 3, 1, 1)
        images = torch.where(masks[:, None, number], colours, images)
    boxes = torch.stack([x - radius, y - radius, x + radius, y + radius], -1)
    return Scenes(images, kinds, masks, boxes)


def share_inside(heatmap: Tensor, mask: Tensor) -> float:
    """The share of the heat that lies inside `mask`; that of a map which knows nothing is the mask's share of area."""
    return float(heatmap[mask].sum() / heatmap.sum())
