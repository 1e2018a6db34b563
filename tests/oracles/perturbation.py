"""The methods of `seewhy.methods.perturbation`, a change at a time: the whole model in float64 for one image each time.

`model(image, layer=None)` takes a numpy image (c, *size) to a score; `layer`, a function of the layer's activations
(C, *space), changes what the layer returns. `A` (C, *space) is what it returned.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from tests.oracles import arrays


def _weighted(weights, A):
    total = np.zeros(A.shape[1:])
    for weight, channel in zip(weights, A, strict=True):
        total += weight * channel
    return total


def _softmax(values):
    shifted = [math.exp(value - max(values)) for value in values]
    return [value / math.fsum(shifted) for value in shifted]


def _mask(channel, size):
    """Enlarged first, then scaled to [0, 1]; nothing passes where there is nothing to scale."""
    large = arrays.resize(channel, size)
    low, high = large.min(), large.max()
    return (large - low) / (high - low) if high > low else np.zeros(size)


def ablation_cam(model, image, A, baseline=0.0):
    """Desai and Ramaswamy 2020, eq. 3, over |S|."""
    score = model(image)
    weights = []
    for k in range(len(A)):

        def without(activations, k=k):
            changed = activations.copy()
            changed[k] = baseline
            return changed

        weights.append((score - model(image, without)) / abs(score))
    return _weighted(weights, A)


def score_cam(model, image, A):
    """Wang et al. 2020, algorithm 1; the score of the black image is taken off before the softmax."""
    black = model(np.zeros_like(image))
    return _weighted(_softmax([model(image * _mask(channel, image.shape[1:])) - black for channel in A]), A)


def ss_cam(model, image, A, noises):
    """`noises` (samples, C, *space), added to the activations that become masks."""
    scores = [
        math.fsum(model(image * _mask(A[k] + noise[k], image.shape[1:])) for noise in noises) / len(noises)
        for k in range(len(A))
    ]
    return _weighted(_softmax(scores), A)


def is_cam(model, image, A, steps, accumulated=True):
    """Naidu et al. 2020: M_i = sum_{j=0}^{i-1} (j / N) A; w: the softmax of the mean over i = 1..N of S(M_i X) - S(0).

    Not accumulated: factors 1/N, 2/N, ..., 1.
    """
    black = model(np.zeros_like(image))
    scores = []
    for channel in A:
        mask = _mask(channel, image.shape[1:])
        gains = []
        for i in range(1, steps + 1):
            M = np.zeros_like(mask)
            if accumulated:
                for j in range(i):
                    M = M + j / steps * mask
            else:
                M = i / steps * mask
            gains.append(model(M * image) - black)
        scores.append(math.fsum(gains) / steps)
    return _weighted(_softmax(scores), A)


def gscore_cam(model, image, A, g, channels, unselected=None):
    """Score-CAM among the channels with the largest mean gradient; the others left out, or with the score given."""
    order = sorted(range(len(A)), key=lambda k: -g[k].mean())[:channels]
    scores = [model(image * _mask(A[k], image.shape[1:])) for k in order]
    if unselected is None:
        return _weighted(_softmax(scores), A[order])
    rest = [k for k in range(len(A)) if k not in order]
    return _weighted(_softmax(scores + [unselected] * len(rest)), A[order + rest])


def poly_cam(model, image, A, variant):
    """Englebert et al. 2022, one layer. S(0), which their probabilities leave out, is taken off."""
    weights = []
    for channel in A:
        mask = _mask(channel, image.shape[1:])
        gained = model(image * mask) - model(np.zeros_like(image))
        lost = model(image) - model(image * (1 - mask))
        weights.append(max(0.0, {"+": gained, "-": lost, "+-": gained + lost}[variant]))
    return _weighted(weights, A)


def local_product(maps):
    """Its recursion, from the coarsest layer to the finest: LNorm shrinks and enlarges a map linearly, and divides."""
    total = np.maximum(maps[0], 0)
    for finer in maps[1:]:
        positive = np.maximum(finer, 0)
        average = arrays.resize(arrays.resize(positive, total.shape), positive.shape)
        share = np.divide(positive, average, out=np.zeros(positive.shape), where=average > 0)
        total = share * arrays.resize(total, positive.shape)
    return total


def group_cam(model, image, A, g, groups, quantile, sigma):
    """Masks of groups of channels bring the image back into a blurred one."""
    blurred = np.stack([arrays.blur(plane, sigma) for plane in image])
    total = np.zeros(A.shape[1:])
    size = len(A) // groups
    for start in range(0, len(A), size):
        part = _weighted([g[k].mean() for k in range(start, start + size)], A[start : start + size])
        part = np.maximum(part, 0)
        part = np.where(part > np.quantile(part, quantile), part, 0)
        mask = _mask(part, image.shape[1:])
        total += (model(image * mask + blurred * (1 - mask)) - model(blurred)) * part
    return total


def recipro_cam(model, image, A, kernel):
    """Byun and Lee 2022. `kernel`: offset -> share of the place's own vector that is put there; all else is 0."""
    scores = np.zeros(A.shape[1:])
    for place in itertools.product(*map(range, A.shape[1:])):

        def left(activations, place=place):
            changed = np.zeros_like(activations)
            for offset, share in kernel.items():
                near = tuple(np.add(place, offset))
                if all(0 <= at < side for at, side in zip(near, activations.shape[1:], strict=True)):
                    changed[(slice(None), *near)] = share * activations[(slice(None), *place)]
            return changed

        scores[place] = model(image, left)
    return scores - scores.min()


def rise(model, image, masks, keep):
    """Petsiuk et al. 2018, eq. 6, of scores less their mean."""
    scores = [model(image * mask) for mask in masks]
    mean = math.fsum(scores) / len(scores)
    total = np.zeros(image.shape[1:])
    for score, mask in zip(scores, masks, strict=True):
        total += (score - mean) * mask
    return total / (len(masks) * keep)


def occlusion(model, image, window, stride, baseline):
    """Every pixel: the mean of S - S(hidden) over the windows on it."""
    score = model(image)
    sides = image.shape[1:]
    lost, count = np.zeros(sides), np.zeros(sides)
    corners = [range(0, max(side - window, 0) + stride, stride) for side in sides]
    for corner in itertools.product(*corners):
        inside = tuple(slice(start, start + window) for start in corner)
        changed = image.copy()
        changed[(slice(None), *inside)] = baseline
        lost[inside] += score - model(changed)
        count[inside] += 1
    return lost / count


def _mixed(image, mask, nothing):
    """The image where the mask is 1, what is there instead where it is 0; the mask's cells stretched to the image."""
    large = mask
    for axis, side in enumerate(image.shape[1:]):
        large = np.take(large, np.arange(side) * mask.shape[axis] // side, axis)
    return large * image + (1 - large) * nothing


def sobol(model, image, nothing, A, B):
    """Jansen's estimator of total indices, Fel et al. 2021, eq. 6. `A`, `B`: (designs, *grid) shares."""
    scores = [model(_mixed(image, a, nothing)) for a in A]
    mean = math.fsum(scores) / len(scores)
    variance = math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1)
    indices = np.zeros(A.shape[1:])
    for cell in np.ndindex(indices.shape):
        for a, b, score in zip(A, B, scores, strict=True):
            c = a.copy()
            c[cell] = b[cell]
            indices[cell] += (score - model(_mixed(image, c, nothing))) ** 2
    return indices / (2 * len(scores) * variance)


def hsic(model, image, nothing, masks):
    """Novello et al. 2022: tr(K H L H) / (n - 1)^2, the matrices written out."""
    n = len(masks)
    scores = [model(_mixed(image, mask, nothing)) for mask in masks]
    width = sorted(abs(a - b) for a, b in itertools.combinations(scores, 2))[(n * (n - 1) // 2 - 1) // 2]
    L = np.array([[math.exp(-((a - b) ** 2) / (2 * width**2)) for b in scores] for a in scores])
    H = np.eye(n) - 1 / n
    indices = np.zeros(masks.shape[1:])
    for cell in np.ndindex(indices.shape):
        column = masks[(slice(None), *cell)]
        K = np.array([[0.5 - (a - b) ** 2 for b in column] for a in column])
        indices[cell] = np.trace(K @ H @ L @ H) / (n - 1) ** 2
    return indices


def _showing(image, nothing, segments, shown):
    return np.where(np.isin(segments, np.flatnonzero(shown)), image, nothing)


def lime(model, image, nothing, segments, draws, width, ridge):
    """Ribeiro et al. 2016: the normal equations of weights and an intercept that is not penalised."""
    scores = np.array([model(_showing(image, nothing, segments, shown)) for shown in draws])
    near = np.array([math.exp(-((1 - math.sqrt(shown.mean())) ** 2) / (2 * width**2)) for shown in draws])
    rows = np.column_stack([draws, np.ones(len(draws))])
    penalty = ridge * np.diag([1.0] * draws.shape[1] + [0.0])
    weights = np.linalg.solve(rows.T @ (near[:, None] * rows) + penalty, rows.T @ (near * scores))
    return weights[:-1][segments]


def kernel_shap(model, image, nothing, segments, draws):
    """Lundberg and Lee 2017: least squares with both ends held, by Lagrange's conditions."""
    start, change = model(nothing), model(image) - model(nothing)
    scores = np.array([model(_showing(image, nothing, segments, shown)) for shown in draws]) - start
    count = draws.shape[1]
    system = np.block([[draws.T @ draws, np.ones((count, 1))], [np.ones((1, count)), np.zeros((1, 1))]])
    return np.linalg.solve(system, np.append(draws.T @ scores, change))[:-1][segments]


def shapley(model, image, nothing, segments):
    """By all orders in which the regions can be shown."""
    count = segments.max() + 1
    total = np.zeros(count)
    orders = list(itertools.permutations(range(count)))
    for order in orders:
        shown = np.zeros(count)
        before = model(nothing)
        for region in order:
            shown[region] = 1
            after = model(_showing(image, nothing, segments, shown))
            total[region] += after - before
            before = after
    return (total / len(orders))[segments]


def caap(model, neutral, A, N):
    """Izadi et al. 2026, of one layer. `N`: what the layer returned for the neutral image."""
    start = model(neutral)
    gained = np.zeros(A.shape[1:])
    for place in np.ndindex(gained.shape):

        def patched(activations, place=place):
            changed = N.copy()
            changed[(slice(None), *place)] = A[(slice(None), *place)]
            return changed

        gained[place] = model(neutral, patched) - start
    return gained


def diff_cam(A, references):
    """Li et al. 2025: sum_k (mean A_k - the references' mean) A_k."""
    total = np.zeros(A.shape[1:])
    for k, channel in enumerate(A):
        usual = math.fsum(reference[k].mean() for reference in references) / len(references)
        total += (channel.mean() - usual) * channel
    return total
