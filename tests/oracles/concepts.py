"""Concepts with their importance, from the paper (Fel et al. 2023), in float64: a number at a time."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import nnls


def coefficients(activations, vectors):
    """How much of each concept is at each place: min |a - u W| over u >= 0, by scipy."""
    images, channels, *space = activations.shape
    places = np.asarray(activations, dtype=np.float64).reshape(images, channels, -1)
    found = np.zeros((images, len(vectors), places.shape[2]))
    for image in range(images):
        for place in range(places.shape[2]):
            found[image, :, place] = nnls(np.asarray(vectors, dtype=np.float64).T, places[image, :, place])[0]
    return found.reshape(images, len(vectors), *space)


def importance(score, maps, vectors, masks, designs):
    """Jansen's total index of each concept's share, meaned over images. `score` takes activations (C, *space)."""
    count = len(vectors)
    total = np.zeros(count)
    for image in maps:

        def of(mask, image=image):
            changed = np.zeros((vectors.shape[1], *image.shape[1:]))
            for k in range(count):
                changed += mask[k] * vectors[k].reshape(-1, *[1] * (image.ndim - 1)) * image[k]
            return score(changed)

        whole = [of(mask) for mask in masks[:designs]]
        mean = math.fsum(whole) / designs
        variance = math.fsum((value - mean) ** 2 for value in whole) / (designs - 1)
        for k in range(count):
            exchanged = [of(mask) for mask in masks[designs * (1 + k) : designs * (2 + k)]]
            squares = math.fsum((one - other) ** 2 for one, other in zip(whole, exchanged, strict=True))
            total[k] += squares / designs / 2 / variance
    return total / len(maps)
