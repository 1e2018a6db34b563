"""The rest of the gradient family, term by term from the papers, in float64. A method here returns its map."""

from __future__ import annotations

import itertools
import math

import numpy as np


def _places(tensor):
    return list(itertools.product(*[range(size) for size in tensor.shape[2:]]))


def _each(activations, value):
    """out[b][p] = sum over c of value(b, c, p)."""
    out = np.zeros((activations.shape[0], *activations.shape[2:]))
    for b, p in itertools.product(range(activations.shape[0]), _places(activations)):
        out[b][p] = math.fsum(value(b, c, p) for c in range(activations.shape[1]))
    return out


def smooth_grad_cam_plus_plus(activations, noisy):
    """Grad-CAM++ (Chattopadhyay et al. 2018, eqs. 5 and 19), g, g^2 and g^3 each the mean of `noisy` (N, B, C, ...)."""
    weights = np.zeros(activations.shape[:2])
    for b, c in np.ndindex(*weights.shape):
        total = math.fsum(float(activations[b, c][p]) for p in _places(activations))
        for p in _places(activations):
            slopes = [float(sample[b, c][p]) for sample in noisy]
            one, two, three = (math.fsum(slope**n for slope in slopes) / len(slopes) for n in (1, 2, 3))
            below = 2 * two + total * three
            weights[b, c] += (two / below if below != 0 else 0.0) * max(one, 0.0)
    return _each(activations, lambda b, c, p: weights[b, c] * float(activations[b, c][p]))


def shapley_cam(activations, gradients, curvatures):
    """Cai 2025: w_c = mean over p of g_c(p) - (HA)_c(p) / 2."""
    places = _places(activations)

    def weight(b, c):
        return math.fsum(float(gradients[b, c][p]) - float(curvatures[b, c][p]) / 2 for p in places) / len(places)

    weights = [[weight(b, c) for c in range(activations.shape[1])] for b in range(activations.shape[0])]
    return _each(activations, lambda b, c, p: weights[b][c] * float(activations[b, c][p]))


def component(weighted):
    """Up to its sign, for each image: the centred places projected on numpy's first right singular vector."""
    out = np.zeros((weighted.shape[0], *weighted.shape[2:]))
    for b, image in enumerate(np.asarray(weighted, dtype=np.float64)):
        rows = image.reshape(image.shape[0], -1).T
        rows = rows - rows.mean(0)
        out[b] = (rows @ np.linalg.svd(rows)[2][0]).reshape(out.shape[1:])
    return out


def eigen_grad_cam(activations, gradients):
    """The component of g A, its product with the sum of g A over channels positive."""
    weighted = gradients * activations
    out = component(weighted)
    for b in range(len(out)):
        if (out[b] * weighted[b].sum(0)).sum() < 0:
            out[b] = -out[b]
    return out


def seg_eigen_cam(activations, gradients):
    """Chung and Ying 2025, eqs. 10 to 13: the component of |g| A, turned where its minimum is the larger in size."""
    out = component(np.abs(gradients) * activations)
    for b in range(len(out)):
        if abs(out[b].min()) > abs(out[b].max()):
            out[b] = -out[b]
    return out


def zoom_cam(activations, gradients):
    """Shi et al. 2020: sum over c of g_c(p) A_c(p), layer by layer."""
    return _each(activations, lambda b, c, p: float(gradients[b, c][p]) * float(activations[b, c][p]))


def _reflected(index, length):
    while not 0 <= index < length:
        index = -1 - index if index < 0 else 2 * length - 1 - index
    return index


def odam(activations, gradients, sigma=0.0):
    """Zhao and Chan 2023: sum over c of (Gaussian * g_c)(p) A_c(p), the Gaussian cut at 4 sigma, borders reflected."""
    if sigma == 0:
        return zoom_cam(activations, gradients)  # no blur: sum over c of g_c(p) A_c(p)
    radius = math.ceil(4 * sigma)
    size = activations.shape[2:]
    offsets = list(itertools.product(range(-radius, radius + 1), repeat=len(size)))
    share = {o: math.exp(-sum(step * step for step in o) / (2 * sigma * sigma)) for o in offsets}
    whole = math.fsum(share.values())

    def smooth(b, c, p):
        near = (tuple(_reflected(i + d, n) for i, d, n in zip(p, o, size, strict=True)) for o in offsets)
        return math.fsum(share[o] / whole * float(gradients[b, c][q]) for o, q in zip(offsets, near, strict=True))

    return _each(activations, lambda b, c, p: smooth(b, c, p) * float(activations[b, c][p]))


def seg_xres_cam(activations, gradients, window=2, pooling="max"):
    """Hasany et al. 2023, eq. 5: g_c(p) replaced by the maximum, or mean, of g_c over the window that p is in."""

    def pooled(b, c, p):
        inside = [q for q in _places(activations) if all(i // window == j // window for i, j in zip(p, q, strict=True))]
        values = [float(gradients[b, c][q]) for q in inside]
        return max(values) if pooling == "max" else math.fsum(values) / len(values)

    return _each(activations, lambda b, c, p: pooled(b, c, p) * float(activations[b, c][p]))
