"""Scores of a model that classifies every place: a class inside a region, or at one pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import OutputError, TargetError
from seewhy.hooks.nested import described
from seewhy.targets.classes import Classes, indices
from seewhy.targets.context import Context
from seewhy.targets.outputs import advice, named, scores_tensor


@dataclass(frozen=True)
class Region:
    """The mean score of a class inside a region of the image (Vinogradova et al., arXiv:2002.11434).

    category: an index or label; one per image, or (B, T). mask: (H, W), or (B, H, W) for one per image, of booleans or
    weights >= 0, in pixels of the input or at the resolution of the output; None is where the model itself sees the
    class. The paper sums instead, which scales the map by the region's area. Raises `TargetError` for a mask of another
    size or with nothing in it, and for a class that the model sees nowhere.
    """

    category: Classes
    mask: Any = None

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        scores = place_scores(outputs)
        return _mean(self.resolved(outputs, Context(scores.shape[0])), scores)

    def resolved(self, outputs: Any, context: Context) -> Region:
        scores = place_scores(outputs)
        index = indices(self.category, scores.flatten(2)[..., 0], context.labels)
        if self.mask is None:
            weights = _seen(index, scores)
        else:
            weights = _at_resolution(torch.as_tensor(self.mask, device=scores.device), index, scores, context)
        empty = (weights.flatten(index.ndim).sum(-1) <= 0).flatten().nonzero().flatten().tolist()
        if empty:
            raise TargetError(
                "the region is empty." if self.mask is not None else "the model sees this class nowhere.",
                got=f"nothing for image {', '.join(str(place // (index.numel() // len(index))) for place in empty)}",
                do="pass a mask with something in it; torch.ones(H, W) is the whole image",
            )
        return Region(index, weights)

    def mirrored(self) -> Region:
        return Region(self.category, self.mask.flip(-1))


@dataclass(frozen=True)
class Pixel:
    """The score of a class at one pixel of the input: `row` from the top, `column` from the left."""

    category: Classes
    row: int
    column: int

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        return self.resolved(outputs, Context(place_scores(outputs).shape[0]))(outputs)

    def resolved(self, outputs: Any, context: Context) -> Region:
        """The region of the one place of the output that the pixel lies in."""
        scores = place_scores(outputs)
        height, width = context.sizes[0] if context.sizes else scores.shape[2:]
        if not (0 <= self.row < height and 0 <= self.column < width):
            raise TargetError(
                "the pixel lies outside of the image.",
                got=f"row {self.row}, column {self.column}",
                expected=f"row 0 to {height - 1}, column 0 to {width - 1}",
            )
        mask = scores.new_zeros(scores.shape[2:])
        mask[self.row * mask.shape[0] // height, self.column * mask.shape[1] // width] = 1
        return Region(self.category, mask).resolved(outputs, Context(context.batch, labels=context.labels))


def place_scores(outputs: Any) -> Float[Tensor, "B K *space"]:
    """The score of each class at each place in a model's output; a single one becomes two classes, -x and x.

    Where queries have a class and a mask each (MaskFormer, Mask2Former) it is the sum over queries of the class's
    probability times the mask's (semantic inference, Cheng et al., arXiv:2107.06278), without the class "no object".
    """
    if queries := named(outputs, ("class_queries_logits", "masks_queries_logits"))[:2]:
        classes, masks = queries
        combined: Tensor = torch.einsum("bqk,bqhw->bkhw", classes.softmax(-1)[..., :-1], masks.sigmoid())
        return combined
    scores = scores_tensor(outputs)
    if scores.ndim < 4 or scores[0, 0].numel() < 2:
        raise OutputError(
            "the model does not give a score per class and place.",
            got=described(outputs),
            expected="(B, K, H, W) or (B, K, D, H, W)",
            do=advice(outputs, "pass a class as target, or a function of the output"),
        )
    return torch.cat([-scores, scores], 1) if scores.shape[1] == 1 else scores


def _mean(region: Region, scores: Float[Tensor, "B K *space"]) -> Float[Tensor, "B *T"]:
    index, weights = region.category, region.mask
    assert isinstance(index, Tensor)
    assert isinstance(weights, Tensor)
    images = torch.arange(len(index), device=index.device).reshape(-1, *[1] * (index.ndim - 1))
    weights = weights / weights.flatten(index.ndim).sum(-1).reshape(*index.shape, *[1] * (scores.ndim - 2))
    return (scores[images, index] * weights).flatten(index.ndim).sum(-1)


def _seen(index: Tensor, scores: Float[Tensor, "B K *space"]) -> Float[Tensor, "..."]:
    """1 where the class of `index` has the highest score, 0 elsewhere: (B, [T,] *space)."""
    best = scores.argmax(1)
    best = best if index.ndim == 1 else best[:, None]
    return (best == index.reshape(*index.shape, *[1] * (scores.ndim - 2))).to(scores.dtype)


def _at_resolution(
    mask: Tensor, index: Tensor, scores: Float[Tensor, "B K *space"], context: Context
) -> Float[Tensor, "..."]:
    """The share of each place of the output that `mask` covers, for each image and class: (B, [T,] *space)."""
    space = tuple(scores.shape[2:])
    size, rows = tuple(mask.shape[-len(space) :]), tuple(mask.shape[: -len(space)])
    sizes = {space, *(map(tuple, context.sizes or []))}
    if size not in sizes or rows not in ((), index.shape[:1], index.shape):
        raise TargetError(
            "the mask does not fit the image.",
            got=f"shape {tuple(mask.shape)}",
            expected=" or ".join(str((*rows, *size)) for size in sorted(sizes) for rows in ((), tuple(index.shape))),
            do="pass the mask at the size of the model's input",
        )
    if size != space:
        mask = F.interpolate(mask.to(scores.dtype).reshape(-1, 1, *size), size=space, mode="area")
    ones = [1] * (index.ndim - len(rows))
    return mask.to(scores.dtype).reshape(*rows, *ones, *space).expand(*index.shape, *space)
