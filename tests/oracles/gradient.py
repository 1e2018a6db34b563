"""The class activation maps of `seewhy.methods.gradient`, term by term from their papers, in float64.

A method here returns the terms (B, C, *space) whose sum over channels is the map. Every index of every formula is a
loop: b image, c channel, p a place (i, j) or (d, i, j).
"""

from __future__ import annotations

import itertools
import math

import numpy as np


def _places(tensor):
    return list(itertools.product(*[range(size) for size in tensor.shape[2:]]))


def _spread(weights, activations):
    """terms[b, c, p] = w[b][c] * A[b, c, p]."""
    terms = np.zeros(activations.shape)
    for b in range(activations.shape[0]):
        for c in range(activations.shape[1]):
            for p in _places(activations):
                terms[b, c][p] = weights[b][c] * float(activations[b, c][p])
    return terms


def _weighted(activations, gradients, weight):
    """The same, where w = weight(A, g, places) of one image's channel."""
    places = _places(activations)
    weights = [
        [weight(activations[b, c], gradients[b, c], places) for c in range(activations.shape[1])]
        for b in range(activations.shape[0])
    ]
    return _spread(weights, activations)


def _elementwise(activations, gradients, term):
    """terms[b, c, p] = term(A[b, c, p], g[b, c, p])."""
    terms = np.zeros(activations.shape)
    for b in range(activations.shape[0]):
        for c in range(activations.shape[1]):
            for p in _places(activations):
                terms[b, c][p] = term(float(activations[b, c][p]), float(gradients[b, c][p]))
    return terms


def cam(activations, weights):
    """Zhou et al. 2016, eq. 2: w_c A_c(p), w of the linear layer."""
    return _spread(weights, activations)


def random_cam(activations, draw):
    """`draw` (C,), uniform in [0, 1), stretched to [-1, 1): the same weights for every image."""
    return _spread([[2 * float(u) - 1 for u in draw]] * activations.shape[0], activations)


def grad_cam(activations, gradients):
    """Selvaraju et al. 2017, eqs. 1 and 2: w_c = 1/Z sum_p g_c(p)."""

    def weight(A, g, places):
        return math.fsum(float(g[p]) for p in places) / len(places)

    return _weighted(activations, gradients, weight)


def grad_cam_plus_plus(activations, gradients):
    """Chattopadhyay et al. 2018, eqs. 5 and 19; alpha is 0 where its denominator is."""

    def weight(A, g, places):
        total = math.fsum(float(A[p]) for p in places)
        weight = 0.0
        for p in places:
            slope = float(g[p])
            below = 2 * slope**2 + total * slope**3
            alpha = slope**2 / below if below != 0 else 0.0
            weight += alpha * max(slope, 0.0)
        return weight

    return _weighted(activations, gradients, weight)


def x_grad_cam(activations, gradients):
    """Fu et al. 2020, eqs. 7 and 8: w_c = sum_p A_c(p) / sum(A_c) g_c(p); a channel that sums to 0 has none."""

    def weight(A, g, places):
        total = math.fsum(float(A[p]) for p in places)
        return math.fsum(float(A[p]) * float(g[p]) for p in places) / total if total != 0 else 0.0

    return _weighted(activations, gradients, weight)


def hires_cam(activations, gradients):
    """Draelos and Carin 2020, eq. 3: g_c(p) A_c(p)."""
    return _elementwise(activations, gradients, lambda A, g: g * A)


def grad_cam_elementwise(activations, gradients):
    """The positive part of each g_c(p) A_c(p)."""
    return _elementwise(activations, gradients, lambda A, g: max(g * A, 0.0))


def layer_cam(activations, gradients):
    """Jiang et al. 2021, eqs. 3 and 4: relu(g_c(p)) A_c(p)."""
    return _elementwise(activations, gradients, lambda A, g: max(g, 0.0) * A)
