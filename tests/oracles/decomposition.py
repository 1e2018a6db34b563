"""The methods of `seewhy.methods.decomposition`, from the papers, in float64."""

from __future__ import annotations

import math

import numpy as np


def _rows(image):
    return np.asarray(image, dtype=np.float64).reshape(image.shape[0], -1).T


def _signed(projection, rows):
    lengths = [math.sqrt(math.fsum(value * value for value in row)) for row in rows]
    return -projection if (projection * lengths).sum() < 0 else projection


def eigen_cam(activations):
    """Muhammad and Yeasin 2020: O = U S V^T of places by channels, the map is O v_1, positive where O is long."""
    out = []
    for image in activations:
        rows = _rows(image)
        projection = rows @ np.linalg.svd(rows, full_matrices=False)[2][0]
        out.append(_signed(projection, rows).reshape(image.shape[1:]))
    return np.stack(out)


def kpca_cam(activations):
    """Karmani et al. 2024: kernel PCA, entry by entry; a projection is sqrt(eigenvalue) times the eigenvector."""
    out = []
    for image in activations:
        places = _rows(image)
        rows = places - places.mean(0)
        n, channels = rows.shape
        kernel = np.array([[math.tanh(math.fsum(x * y) / channels + 1) for y in rows] for x in rows])
        centred = np.zeros((n, n))
        for i in range(n):
            for j in range(n):
                centred[i, j] = kernel[i, j] - kernel[i].mean() - kernel[:, j].mean() + kernel.mean()
        values, vectors = np.linalg.eig(centred)  # of a matrix that is not known to be symmetric
        first = np.argmax(values.real)
        projection = math.sqrt(values[first].real) * vectors[:, first].real
        out.append(_signed(projection, places).reshape(image.shape[1:]))
    return np.stack(out)


def fem(activations, k=2.0):
    """Fuad et al. 2020: sum over c of mean_c where A_c >= mean_c + k sigma_c."""
    out = np.zeros((activations.shape[0], *activations.shape[2:]))
    for b, image in enumerate(activations):
        for channel in image:
            values = [float(value) for value in channel.flatten()]
            mean = math.fsum(values) / len(values)
            sigma = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
            for p in np.ndindex(*channel.shape):
                if float(channel[p]) >= mean + k * sigma:
                    out[b][p] += mean
    return out


def lafam(activations):
    """Karjauv and Albayrak 2024: 1/K sum over k of A_k(p)."""
    out = np.zeros((activations.shape[0], *activations.shape[2:]))
    for b, image in enumerate(activations):
        for p in np.ndindex(*image.shape[1:]):
            out[b][p] = math.fsum(float(channel[p]) for channel in image) / len(image)
    return out
