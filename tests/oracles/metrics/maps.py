"""What is asked of maps alone, or of functions that make them: one image at a time, in float64."""

from __future__ import annotations

import math

import numpy as np

from tests.oracles.metrics.faithfulness import pearson


def entropy(heat):
    """Bhatt et al. 2020, definition 4."""
    sizes = [abs(float(value)) for value in np.ravel(heat)]
    shares = [size / math.fsum(sizes) for size in sizes]
    return -math.fsum(share * math.log(share) for share in shares if share > 0)


def sparseness(heat):
    """The Gini coefficient, as half the mean difference of any two values by their mean."""
    sizes = [abs(float(value)) for value in np.ravel(heat)]
    apart = math.fsum(abs(a - b) for a in sizes for b in sizes) / len(sizes) ** 2
    return apart / 2 / (math.fsum(sizes) / len(sizes))


def norm(values):
    return math.sqrt(math.fsum(float(value) ** 2 for value in np.ravel(values)))


def sensitivities(explain, image, noises):
    """Yeh et al. 2019: how far the map of each noisy image is from that of the image, by the norm of the latter."""
    own = explain(image)
    return [norm(explain(image + noise) - own) / norm(own) for noise in noises]


def relative(before, after):
    """The norm of the relative changes, of what is not 0."""
    pairs = zip(np.ravel(before), np.ravel(after), strict=True)
    return norm([(b - a) / a for a, b in pairs if a != 0])


def input_stability(explain, image, noises):
    """Agarwal et al. 2022, equation 2."""
    return max(
        relative(explain(image), explain(image + noise)) / max(relative(image, image + noise), 1e-6) for noise in noises
    )


def output_stability(explain, outputs, image, noises):
    """Agarwal et al. 2022, equation 5, over the noises that leave the class as it is."""
    own = outputs(image)
    return max(
        relative(explain(image), explain(image + noise)) / max(norm(outputs(image + noise) - own), 1e-6)
        for noise in noises
        if np.argmax(outputs(image + noise)) == np.argmax(own)
    )


def rank_correlation(a, b):
    """Spearman's: the correlation of the mean ranks."""
    return pearson(mean_ranks(a), mean_ranks(b))


def mean_ranks(values):
    values = [float(value) for value in np.ravel(values)]
    return [sum(v < w for v in values) + (sum(v == w for v in values) - 1) / 2 for w in values]
