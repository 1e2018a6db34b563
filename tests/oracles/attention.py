"""The methods of `seewhy.methods.attention`, an entry at a time, in float64 numpy, for one image.

`A`, `Z` and `g` are lists of (heads, rows, columns): probabilities, what their softmax was taken of, gradients. `read`
has the share of each row for each layer. The result has a value for each token.
"""

from __future__ import annotations

import math

import numpy as np

from tests.oracles import arrays


def _mix(matrix, other):
    product = np.zeros((matrix.shape[0], other.shape[1]))
    for i in range(matrix.shape[0]):
        for j in range(other.shape[1]):
            product[i, j] = math.fsum(matrix[i, k] * other[k, j] for k in range(matrix.shape[1]))
    return product


def _rows(read, matrix):
    return np.array([math.fsum(read[i] * matrix[i, j] for i in range(len(read))) for j in range(matrix.shape[1])])


def attention_rollout(A, read, residual=0.5, fusion=np.mean):
    """Abnar and Zuidema 2020: A(l) = 0.5 W + 0.5 I, rows to 1; the rollout is A(l) times that of the layers below."""
    rollout = np.eye(A[0].shape[2])
    for weights in A:
        fused = fusion(weights, axis=0)
        if fused.shape[0] == fused.shape[1]:
            fused = (1 - residual) * fused + residual * np.eye(len(fused))
        rollout = _mix(fused / fused.sum(1)[:, None], rollout)
    return _rows(read[-1], rollout)


def attention_relevance(A, g, read):
    """Chefer et al. 2021, eqs. 5 and 6, from R = I, which is taken off what is read; a pooling layer gives A R."""
    relevance = np.eye(A[0].shape[2])
    for weights, slopes in zip(A, g, strict=True):
        heads, rows, columns = weights.shape
        kept = np.zeros((rows, columns))
        for i in range(rows):
            for j in range(columns):
                kept[i, j] = math.fsum(max(slopes[h, i, j] * weights[h, i, j], 0) for h in range(heads)) / heads
        passed = _mix(kept, relevance)
        relevance = relevance + passed if rows == columns else passed
    found = _rows(read[-1], relevance)
    return found - read[-1] if relevance.shape[0] == relevance.shape[1] else found


def agcam(Z, g, read):
    """Leem and Seo 2024: over layers and heads the sigmoid of scores times positive gradients, rows by `read`."""
    total = np.zeros(Z[0].shape[2])
    for scores, slopes, shares in zip(Z, g, read, strict=True):
        for h in range(len(scores)):
            for i, share in enumerate(shares):
                for j in range(len(total)):
                    total[j] += share * max(slopes[h, i, j], 0) / (1 + math.exp(-scores[h, i, j]))
    return total


def le_grad(g):
    """Bousselham et al. 2024: mean over layers, heads and rows of the positive gradients."""
    return np.mean([[np.maximum(slopes, 0)[:, :, j].mean() for j in range(slopes.shape[2])] for slopes in g], axis=0)


def grad_eclip(q, k, v, g, patches):
    """Zhao et al. 2024, from (heads, tokens, d) each; `patches` are the tokens that lie over the image."""
    q, k, v, g = (np.concatenate(list(tensor), axis=1) for tensor in (q, k, v, g))
    found = np.zeros(len(patches))
    for i in range(len(q)):
        cosines = np.array([q[i] @ k[j] / np.linalg.norm(q[i]) / np.linalg.norm(k[j]) for j in patches])
        loosened = (cosines - cosines.min()) / (cosines.max() - cosines.min())
        for place, j in enumerate(patches):
            found[place] += loosened[place] * math.fsum(g[i, c] * v[j, c] for c in range(v.shape[1]))
    return found


def clip_surgery(inputs, blocks, head):
    """Li et al. 2023: `inputs` (tokens, C) of the last blocks, (norm, V, v, P, p, heads) of each, `head` of a token."""
    path = inputs[0].copy()
    for tokens, (norm, V, v, P, p, heads) in zip(inputs, blocks, strict=True):
        values = norm(tokens) @ V.T + v
        width = values.shape[1] // heads
        attended = np.zeros_like(values)
        for h in range(heads):
            own = values[:, h * width : (h + 1) * width]
            for i in range(len(own)):
                shares = [math.exp(own[i] @ other / math.sqrt(width)) for other in own]
                attended[i, h * width : (h + 1) * width] = sum(
                    share / math.fsum(shares) * other for share, other in zip(shares, own, strict=True)
                )
        path += attended @ P.T + p
    return np.array([head(token) for token in path])


def feature_surgery(tokens, whole, texts):
    """The likeness of each token to the first text, feature by feature, and the length of what is left of that text.

    `whole` is the embedding of the image. All of length 1.
    """
    likely = [math.exp(2 * (whole @ text)) for text in texts]
    weights = [value / (math.fsum(likely) / len(likely)) for value in likely]
    found = []
    for token in tokens:
        features = [weight * token * text for weight, text in zip(weights, texts, strict=True)]
        found.append(math.fsum(features[0] - sum(features) / len(features)))
    left = weights[0] * texts[0] - sum(weight * text for weight, text in zip(weights, texts, strict=True)) / len(texts)
    return np.array(found), np.linalg.norm(left)


def groups(masks, distance):
    """Complete linkage from its definition: of all pairs of groups, the one whose farthest members are nearest."""

    def apart(a, b):
        return max(
            1 - masks[i].ravel() @ masks[j].ravel() / np.linalg.norm(masks[i]) / np.linalg.norm(masks[j])
            for i in a
            for j in b
        )

    found = [[number] for number in range(len(masks))]
    while len(found) > 1:
        least, a, b = min((apart(a, b), a, b) for place, a in enumerate(found) for b in found[:place])
        if least >= distance:
            break
        found = [group for group in found if group not in (a, b)] + [sorted(a + b)]
    return sorted(found)


def vit_cx(model, image, A, noises, distance):
    """Xie et al. 2023. `A` (C, *space); `noises` one (c, *size) for each mask, in the order of its first channel."""
    size = image.shape[1:]

    def scaled(mask):
        return (mask - mask.min()) / (mask.max() - mask.min())

    channels = [scaled(arrays.resize(channel, size)) for channel in A]
    masks = [scaled(sum(channels[c] for c in group)) for group in groups(channels, distance)]
    weights = []
    for mask, noise in zip(masks, noises, strict=False):
        weights.append(model(image * mask + (1 - mask) * noise) - model(image + (1 - mask) * noise))
    covered = sum(masks)
    mean = math.fsum(weights) / len(weights)
    return sum((weight - mean) * mask / covered for weight, mask in zip(weights, masks, strict=True)) / len(masks)
