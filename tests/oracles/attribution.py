"""The methods of `seewhy.methods.attribution`, from the papers, in float64: one image and one point at a time.

`model(image)` takes a numpy image (C, *size) to a score, `slope(image)` to the score's gradient there, of that shape.
"""

from __future__ import annotations

import math

import numpy as np


def central_difference(model, image, step=1e-5):
    """The slope at every value by itself."""
    found = np.zeros_like(image)
    for place in np.ndindex(image.shape):
        ahead, behind = image.copy(), image.copy()
        ahead[place] += step
        behind[place] -= step
        found[place] = (model(ahead) - model(behind)) / (2 * step)
    return found


def integrated_gradients(slope, image, start, steps):
    """Sundararajan et al. 2017, eq. 1, by Gauss and Legendre's points on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = np.zeros_like(image)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        total += weight * slope(start + node * (image - start))
    return (image - start) * total


def expected_gradients(slope, image, starts, shares):
    """Erion et al. 2021: sample by sample, from the baseline and by the share that were drawn for it."""
    parts = [
        (image - start) * slope(start + share * (image - start)) for start, share in zip(starts, shares, strict=True)
    ]
    return sum(parts) / len(parts)


def noisy_gradients(slope, image, noise, drawn):
    """The gradients at image + noise * (max - min) * drawn, for each draw."""
    span = image.max() - image.min()
    return np.stack([slope(image + noise * span * one) for one in drawn])


def guided_integrated_gradients(slope, image, start, steps, fraction, max_distance):
    """Kapishnikov et al. 2021, algorithm 1, as its authors wrote it down: value by value."""
    size, x = image.size, start.copy().ravel()
    end, begin = image.ravel(), start.ravel()
    whole = math.fsum(abs(end[i] - begin[i]) for i in range(size))
    total = np.zeros(size)
    for step in range(steps):
        g = slope(x.reshape(image.shape)).ravel()
        key = [abs(value) for value in g]
        share = (step + 1) / steps
        low, high = max(share - max_distance, 0.0), min(share + max_distance, 1.0)
        least = [begin[i] + low * (end[i] - begin[i]) for i in range(size)]
        most = [begin[i] + high * (end[i] - begin[i]) for i in range(size)]
        aim = whole * (1 - share)
        for i in range(size):
            if end[i] != begin[i] and (x[i] - begin[i]) / (end[i] - begin[i]) < low:
                total[i] += (least[i] - x[i]) * g[i]
                x[i] = least[i]
        while True:
            left = math.fsum(abs(end[i] - x[i]) for i in range(size))
            if left - aim < 1e-9:
                break
            for i in range(size):
                if x[i] == most[i]:
                    key[i] = math.inf
            threshold = sorted(key)[int(fraction * (size - 1))]
            moved = [i for i in range(size) if key[i] <= threshold and key[i] < math.inf]
            reach = math.fsum(abs(most[i] - x[i]) for i in moved)
            if reach == 0:
                break
            gamma = min(1.0, (left - aim) / reach)
            for i in moved:
                after = most[i] if gamma == 1 else x[i] + gamma * (most[i] - x[i])
                total[i] += (after - x[i]) * g[i]
                x[i] = after
    return total.reshape(image.shape)


def low_pass(values, cutoff):
    """The discrete Fourier transform written out: frequencies up to `cutoff`, two for a cycle of the shortest side."""
    found = values.astype(complex)
    for axis, side in enumerate(values.shape):
        places = np.arange(side)
        transform = np.exp(-2j * np.pi * np.outer(places, places) / side)
        cycles = np.minimum(places, side - places) / side * min(values.shape)
        kept = np.diag((2 * cycles <= cutoff + 1e-9).astype(float))
        filtering = transform.conj() @ kept @ transform / side
        found = np.moveaxis(np.tensordot(filtering, found, (1, axis)), 0, axis)
    return found.real


def blurred(values, share):
    """Each place the mean of all around it under a Gaussian that is cut at four deviations; edges are mirrors.

    The deviation is a share of each side.
    """
    found = values
    for axis, side in enumerate(values.shape):
        sigma = share * side
        reach = math.ceil(4 * sigma)
        weights = np.zeros((side, side))
        for place in range(side):
            for step in range(-reach, reach + 1):
                seen = (place + step) % (2 * side)
                weights[place, min(seen, 2 * side - 1 - seen)] += math.exp(-(step**2) / (2 * sigma**2))
        weights /= weights.sum(1, keepdims=True)
        found = np.moveaxis(np.tensordot(weights, found, (1, axis)), 0, axis)
    return found
