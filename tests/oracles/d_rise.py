"""D-RISE's similarity, written slowly from the paper (Petsiuk et al. 2021, arXiv:2006.03204), in float64."""

from __future__ import annotations

import math


def overlap(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def cosine(one, other):
    return math.fsum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))


def similarity(target, proposals):
    """target, each of proposals: (box, class probabilities); there is any object as likely as the likeliest class."""
    alike = (overlap(target[0], box) * cosine(target[1], likely) * max(likely) for box, likely in proposals)
    return max(alike, default=0.0)
