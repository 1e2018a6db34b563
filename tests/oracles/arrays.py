"""Resizing, blurring and boxes, a pixel at a time."""

from __future__ import annotations

import itertools
import math

import numpy as np


def resize(grid, size):
    """Linear in every dimension, half-pixel centres: output pixel k lies at (k + 1/2) / scale - 1/2, kept inside."""
    grid = np.asarray(grid, dtype=np.float64)
    out = np.zeros(size)
    for place in itertools.product(*map(range, size)):
        corners = []
        for k, before, after in zip(place, grid.shape, size, strict=True):
            at = min(max((k + 0.5) * before / after - 0.5, 0.0), before - 1.0)
            low = math.floor(at)
            corners.append([(low, 1 - (at - low)), (min(low + 1, before - 1), at - low)])
        for corner in itertools.product(*corners):
            out[place] += grid[tuple(index for index, _ in corner)] * math.prod(share for _, share in corner)
    return out


def _reflected(index, length):
    """The index inside that `index` stands for when the line is continued as cba|abc|cba."""
    while not 0 <= index < length:
        index = -1 - index if index < 0 else 2 * length - 1 - index
    return index


def blur(image, sigma):
    """The full two-dimensional Gaussian sum, cut at ceil(4 sigma) and normalised, for every pixel."""
    image = np.asarray(image, dtype=np.float64)
    radius = math.ceil(4 * sigma)
    offsets = list(itertools.product(range(-radius, radius + 1), repeat=2))
    share = {(y, x): math.exp(-(y * y + x * x) / (2 * sigma * sigma)) for y, x in offsets}
    total = math.fsum(share.values())
    height, width = image.shape
    out = np.zeros(image.shape)
    for i, j in itertools.product(range(height), range(width)):
        out[i, j] = math.fsum(
            share[y, x] / total * image[_reflected(i + y, height), _reflected(j + x, width)] for y, x in offsets
        )
    return out


def boxes(heat, threshold):
    """Flood fill over all neighbours, diagonal ones too: [(heat inside, [low sides, high sides])], hottest first."""
    heat = np.asarray(heat, dtype=np.float64)
    steps = [step for step in itertools.product((-1, 0, 1), repeat=heat.ndim) if any(step)]
    left = {place for place in itertools.product(*map(range, heat.shape)) if heat[place] >= threshold}
    found = []
    while left:
        region, front = set(), [left.pop()]
        while front:
            place = front.pop()
            region.add(place)
            for step in steps:
                near = tuple(a + b for a, b in zip(place, step, strict=True))
                if near in left:
                    left.remove(near)
                    front.append(near)
        sides = list(zip(*region, strict=True))[::-1]  # x first
        box = [min(side) for side in sides] + [max(side) + 1 for side in sides]
        found.append((math.fsum(heat[place] for place in region), box))
    return sorted(found, reverse=True)
