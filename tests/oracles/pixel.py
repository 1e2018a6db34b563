"""The maps on the input, from the papers, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles import arrays


def full_grad(parts, size):
    """Srinivas and Fleuret 2019: each part's size, scaled by its range over one image's channels and places, summed."""
    out = np.zeros((parts[0].shape[0], *size))
    for part in parts:
        for b, image in enumerate(np.abs(np.asarray(part, dtype=np.float64))):
            low, high = image.min(), image.max()
            for channel in image:
                if high > low:
                    out[b] += arrays.resize((channel - low) / (high - low), size)
    return out


def guided_gradient(image, layers):
    """Springenberg et al. 2015, of one image: `layers` are matrices with a ReLU between each two; the last gives S.

    Backwards, R_l = (z_l > 0) (R_{l+1} > 0) R_{l+1} at each ReLU, and W^T R at each matrix.
    """
    values, before = np.asarray(image, dtype=np.float64), []
    for matrix in layers[:-1]:
        before.append(matrix @ values)
        values = np.maximum(before[-1], 0)
    relevance = layers[-1]
    for matrix, z in zip(layers[-2::-1], before[::-1], strict=True):
        relevance = matrix.T @ np.array([r if r > 0 and at > 0 else 0.0 for r, at in zip(relevance, z, strict=True)])
    return relevance
