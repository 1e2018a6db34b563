"""Maps against masks, one image and one pixel at a time, in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np


def places(heat):
    return list(itertools.product(*map(range, np.shape(heat))))


def average_precision(heat, mask):
    """Over thresholds, from the highest down: the step in recall times the precision."""
    total, before, area = sum(bool(mask[p]) for p in places(heat)), 0.0, 0.0
    for threshold in sorted({float(heat[p]) for p in places(heat)}, reverse=True):
        taken = [p for p in places(heat) if heat[p] >= threshold]
        true = sum(bool(mask[p]) for p in taken)
        area += (true / total - before) * true / len(taken)
        before = true / total
    return area


def best_iou(heat, mask):
    inside = {p for p in places(heat) if mask[p]}
    best = 0.0
    for threshold in {float(heat[p]) for p in places(heat)}:
        taken = {p for p in places(heat) if heat[p] >= threshold}
        best = max(best, len(taken & inside) / len(taken | inside))
    return best


def pointing_game(heat, mask, tolerance):
    """The mean over the hottest pixels of whether a pixel of the mask is within the tolerance."""
    inside = [p for p in places(heat) if mask[p]]
    top = max(float(heat[p]) for p in places(heat))
    hits = [any(math.dist(p, q) <= tolerance for q in inside) for p in places(heat) if heat[p] == top]
    return sum(hits) / len(hits)


def relevance_mass(heat, mask):
    positive = {p: max(float(heat[p]), 0.0) for p in places(heat)}
    return math.fsum(value for p, value in positive.items() if mask[p]) / math.fsum(positive.values())


def hits(heat, mask, count):
    """How many of the `count` hottest are in the mask: the mean over all orders, the probability of each pixel."""
    total = 0.0
    for p in places(heat):
        hotter = sum(bool(heat[q] > heat[p]) for q in places(heat))
        equal = sum(bool(heat[q] == heat[p]) for q in places(heat))
        total += bool(mask[p]) * min(max((count - hotter) / equal, 0.0), 1.0)
    return total


def relevance_rank(heat, mask):
    size = sum(bool(mask[p]) for p in places(heat))
    return hits(heat, mask, size) / size


def top_k_intersection(heat, mask, k):
    return hits(heat, mask, k) / k
