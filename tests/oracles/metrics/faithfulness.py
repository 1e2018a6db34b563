"""Faithfulness from the papers, one image and one pixel at a time, in float64.

`score` takes one image, a nested list or array (C, *space), and returns a float.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from tests.oracles import arrays


def places(heat):
    """All pixels, as index tuples."""
    return list(itertools.product(*map(range, np.shape(heat))))


def replaced(image, pixels, other):
    """The image with some pixels, in all channels, from another one."""
    out = np.array(image, dtype=np.float64)
    for place in pixels:
        for channel in range(len(out)):
            out[(channel, *place)] = other[(channel, *place)]
    return out


def baseline(image, name):
    image = np.asarray(image, dtype=np.float64)
    if name == "zero":
        return np.zeros(image.shape)
    if name == "mean":
        out = np.zeros(image.shape)
        for channel in range(len(image)):
            out[channel] = math.fsum(image[channel].flatten()) / image[channel].size
        return out
    side = image.shape[1]
    assert name == "blur"
    assert image.shape[1:] == (side, side)
    return np.stack([arrays.blur(channel, side / 20) for channel in image])


def trapezoid(shares, scores):
    return math.fsum((b - a) * (y + z) / 2 for a, b, y, z in zip(shares, shares[1:], scores, scores[1:], strict=False))


def hottest(heat, count):
    """The `count` hottest pixels, without parting equal ones: one group more or less, whichever is nearer."""
    values = sorted({float(heat[place]) for place in places(heat)}, reverse=True)
    sets = [[]] + [[place for place in places(heat) if heat[place] >= value] for value in values]
    return min(sets, key=lambda taken: (abs(len(taken) - count), -len(taken)))


def curve(score, image, heat, other, steps, kind):
    """Petsiuk et al. 2018, algorithm 1 ("insertion", "deletion"): shares and scores, the pixels in `steps` portions."""
    pixels = len(places(heat))
    shares, scores = [], []
    for step in range(steps + 1):
        taken = hottest(heat, round(step * pixels / steps))
        start, end = (other, image) if kind == "insertion" else (image, other)
        shares.append(len(taken) / pixels)
        scores.append(score(replaced(start, taken, end)))
    return shares, scores


def aopc(score, image, heat, other, steps):
    """Samek et al. 2017, equation 12."""
    _, scores = curve(score, image, heat, other, steps, "deletion")
    return math.fsum(scores[0] - after for after in scores) / (steps + 1)


def imputed(image, missing):
    """Rong et al. 2022: every missing pixel the mean of its neighbours in the image, 1/6 direct and 1/12 diagonal."""
    image = np.array(image, dtype=np.float64)
    height, width = image.shape[1:]
    matrix, right = np.eye(len(missing)), np.zeros((len(missing), len(image)))
    numbers = {place: number for number, place in enumerate(missing)}
    for (y, x), row in numbers.items():
        around = {
            (y + v, x + h): 1 / 6 if 0 in (v, h) else 1 / 12
            for v, h in itertools.product((-1, 0, 1), repeat=2)
            if (v or h) and 0 <= y + v < height and 0 <= x + h < width
        }
        for place, weight in around.items():
            share = weight / math.fsum(around.values())
            if place in numbers:
                matrix[row, numbers[place]] -= share
            else:
                right[row] += share * image[(slice(None), *place)]
    solved = np.linalg.solve(matrix, right)
    for place, row in numbers.items():
        image[(slice(None), *place)] = solved[row]
    return image


def road(score, image, heat, shares, first):
    """The scores after taking away shares of the most or least relevant pixels, of a map without equal values."""
    order = sorted(places(heat), key=lambda place: heat[place], reverse=first == "most")
    return [score(imputed(image, order[: round(share * len(order))])) for share in shares]


def average_drop(score, image, heat):
    """Chattopadhay et al. 2018: max(0, Y - O) / Y, with O the score of the image times the map."""
    before, after = score(image), score(times(image, heat))
    return max(0.0, before - after) / before


def average_increase(score, image, heat):
    """Chattopadhay et al. 2018: 1 if Y < O."""
    return float(score(image) < score(times(image, heat)))


def average_gain(score, image, heat):
    """Zhang et al. 2023 (Opti-CAM): max(0, O - Y) / (1 - Y)."""
    before, after = score(image), score(times(image, heat))
    return max(0.0, after - before) / (1 - before)


def times(image, heat):
    out = np.array(image, dtype=np.float64)
    for place in places(heat):
        for channel in range(len(out)):
            out[(channel, *place)] *= heat[place]
    return out


def pearson(a, b):
    a, b = [float(x) for x in np.ravel(a)], [float(x) for x in np.ravel(b)]
    mean_a, mean_b = math.fsum(a) / len(a), math.fsum(b) / len(b)
    along = math.fsum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return along / math.sqrt(math.fsum((x - mean_a) ** 2 for x in a) * math.fsum((y - mean_b) ** 2 for y in b))


def coherency(explain, image, heat):
    """Poppi et al. 2021: the correlation of the map of what the map shows with the map, brought to [0, 1]."""
    return (pearson(explain(times(image, heat)), heat) + 1) / 2


def complexity(heat):
    """Poppi et al. 2021: the L1 norm over the number of pixels."""
    return math.fsum(abs(float(heat[place])) for place in places(heat)) / len(places(heat))


def adcc(score, explain, image, heat):
    """Poppi et al. 2021: 3 (1 / coherency + 1 / (1 - complexity) + 1 / (1 - average drop))^-1."""
    parts = (coherency(explain, image, heat), 1 - complexity(heat), 1 - average_drop(score, image, heat))
    return 3 / math.fsum(1 / part for part in parts)


def arcc(score, explain, image, heat, shares):
    """grad-cam's: the same with twice ROAD, cut to [0, 1]; ROAD is half of what is lost more by most than by least."""
    least, most = (math.fsum(road(score, image, heat, shares, first)) / len(shares) for first in ("least", "most"))
    parts = (coherency(explain, image, heat), 1 - complexity(heat), min(max(least - most, 0.0), 1.0))
    return 3 / math.fsum(1 / part for part in parts)


def infidelity(score, image, heat, perturbed, scaled):
    """Yeh et al. 2019, definition 2.1, with I = x - perturbed; `scaled` by the best number for the map."""
    image = np.asarray(image, dtype=np.float64)
    dots, lost = [], []
    for other in perturbed:
        change = [(image[(c, *p)] - other[(c, *p)]) * heat[p] for p in places(heat) for c in range(len(image))]
        dots.append(math.fsum(change))
        lost.append(score(image) - score(other))
    best = math.fsum(a * b for a, b in zip(dots, lost, strict=True)) / math.fsum(a * a for a in dots) if scaled else 1
    return math.fsum((best * a - b) ** 2 for a, b in zip(dots, lost, strict=True)) / len(dots)


def subset_correlation(score, image, heat, subsets, other):
    """Ancona et al. 2018 and Bhatt et al. 2020: over subsets of pixels, the map's sum with f(x) - f(x without them)."""
    sums = [math.fsum(heat[place] for place in subset) for subset in subsets]
    lost = [score(np.asarray(image)) - score(replaced(image, subset, other)) for subset in subsets]
    return pearson(sums, lost)


def groups_of(heat, count):
    """The pixels in `count` groups of as many each, from the hottest down, of a map without equal values."""
    order = sorted(places(heat), key=lambda place: -heat[place])
    bounds = [round(number * len(order) / count) for number in range(count + 1)]
    return [order[a:b] for a, b in itertools.pairwise(bounds)]


def saco(score, image, heat, count, other):
    """Wu et al. 2024, algorithm 1."""
    groups = groups_of(heat, count)
    sums = [math.fsum(heat[place] for place in group) for group in groups]
    lost = [score(np.asarray(image)) - score(replaced(image, group, other)) for group in groups]
    total, weights = 0.0, 0.0
    for i in range(count - 1):
        for j in range(i + 1, count):
            weight = sums[i] - sums[j] if lost[i] >= lost[j] else -(sums[i] - sums[j])
            total += weight
            weights += abs(weight)
    return total / weights


def irof_scores(score, image, heat, segments, other):
    """Rieger and Hansen 2020: the scores as segments go, that with the highest mean first, from the whole image on."""
    regions = {}
    for place in places(heat):
        regions.setdefault(int(segments[place]), []).append(place)
    order = sorted(regions.values(), key=lambda region: -math.fsum(heat[p] for p in region) / len(region))
    out, scores = np.asarray(image, dtype=np.float64), [score(np.asarray(image))]
    for region in order:
        out = replaced(out, region, other)
        scores.append(score(out))
    return scores


def irof(score, image, heat, segments, other):
    """The area over the curve of the scores by the first one, as a share."""
    scores = irof_scores(score, image, heat, segments, other)
    return 1 - trapezoid([number / (len(scores) - 1) for number in range(len(scores))], scores) / scores[0]
