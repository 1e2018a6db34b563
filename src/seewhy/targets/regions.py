"""Scores of a model that classifies every place: a class inside a region, or at one pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from seewhy.errors import OutputError, TargetError, TargetTypeError
from seewhy.hooks.nested import described
from seewhy.targets.base import BaseTarget
from seewhy.targets.classes import ClassScores, Kind, class_name, entry, scores_of
from seewhy.targets.context import Context
from seewhy.targets.indices import Classes, columns
from seewhy.targets.outputs import advice, scores_tensor, tensors_called


@dataclass(frozen=True)
class Region(BaseTarget):
    """The mean score of a class inside a region of the image (Vinogradova et al. 2020, arXiv:2002.11434).

    The paper sums instead, which scales the map by the region's area. Of a model with a single output per place every
    class means the output itself, as for `Category`.

    Args:
        category: an index or label; one per image, (B,), or T per image, (B, T).
        mask: (H, W), or (B, H, W) for one per image, or (B, T, H, W): booleans, or weights from 0 up, in pixels of the
            input or at the resolution of the output. A tensor, an array, or a PIL image of black (outside) and white;
            for signals (L,) and so on. None is where the model itself sees the class.
        kind: what the scores are. Filled in when the target is resolved.

    Raises:
        TargetError: on the call, for a mask of another size, with weights below 0, or with nothing in it; for a class
            that the model sees nowhere.
        TargetTypeError: on the call, for a PIL image in colours.
        OutputError: on the call, if the model gives no scores of places.

    Examples:
        >>> import torch
        >>> scores = torch.tensor([[[[1.0, 3.0]], [[5.0, 2.0]]]])  # one image, two classes, 1 x 2 places
        >>> Region(0, torch.tensor([[1, 1]]))(scores)
        tensor([2.])
        >>> Region(0)(scores)  # the second place, where class 0 has the higher score
        tensor([3.])
    """

    category: Classes
    mask: Any = None
    kind: Kind | None = field(default=None, repr=False, compare=False)

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        if self.kind is None:
            return self.resolved(outputs, Context(place_scores(outputs).values.shape[0]))(outputs)
        index, weights = self.category, self.mask
        assert isinstance(index, Tensor)
        assert isinstance(weights, Tensor)
        values = place_scores(outputs, self.kind, weights.ndim - index.ndim).values
        images = torch.arange(index.shape[0], device=index.device).reshape(-1, *[1] * (index.ndim - 1))
        weights = weights / weights.flatten(index.ndim).sum(-1).reshape(*index.shape, *[1] * (values.ndim - 2))
        return (values[images, index] * weights).flatten(index.ndim).sum(-1)

    def resolved(self, outputs: Any, context: Context) -> Region:
        scores = place_scores(outputs, self.kind, _dimensions(context))
        single, labels = (scores.single, context.labels) if self.kind is None else (False, None)
        index = columns(self.category, scores.values, labels, single=single, distinct=self.mask is None)
        if self.mask is None:
            weights = _seen(index, scores.values)
        else:
            weights = _at_resolution(_mask(self.mask, scores.values.device), index, scores.values, context)
        empty = (weights.flatten(index.ndim).sum(-1) <= 0).flatten().nonzero().flatten().tolist()
        if empty:
            raise TargetError(
                "the region is empty." if self.mask is not None else "the model sees this class nowhere.",
                got=f"nothing for image {', '.join(str(place // (index.numel() // len(index))) for place in empty)}",
                do="pass a mask with something in it; torch.ones(H, W) is the whole image",
            )
        return Region(index, weights, scores.kind)

    def mirrored(self) -> Region:
        return replace(self, mask=self.mask.flip(-1))

    def classes(self) -> Any:
        return self.category

    def describe(self, labels: Sequence[str] | None = None, image: int = 0, number: int | None = None) -> str:
        index = entry(self.category, image, number)
        return "" if index is None else class_name(index, self.kind, labels)


@dataclass(frozen=True)
class Pixel(BaseTarget):
    """The score of a class at one pixel of the input.

    Args:
        category: as for `Region`.
        row: from the top, in pixels of the input.
        column: from the left.

    Raises:
        TargetError: on the call, for a pixel outside of the image.

    Examples:
        >>> import torch
        >>> scores = torch.tensor([[[[1.0, 3.0]], [[5.0, 2.0]]]])  # one image, two classes, 1 x 2 places
        >>> Pixel(0, row=0, column=1)(scores)
        tensor([3.])
    """

    category: Classes
    row: int
    column: int

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        return self.resolved(outputs, Context(place_scores(outputs).values.shape[0]))(outputs)

    def resolved(self, outputs: Any, context: Context) -> Region:
        values = place_scores(outputs).values
        height, width = context.sizes[0] if context.sizes else values.shape[2:]
        if not (0 <= self.row < height and 0 <= self.column < width):
            raise TargetError(
                "the pixel lies outside of the image.",
                got=f"row {self.row}, column {self.column}",
                expected=f"row 0 to {height - 1}, column 0 to {width - 1}",
            )
        mask = values.new_zeros(values.shape[2:], dtype=torch.bool)
        mask[self.row * mask.shape[0] // height, self.column * mask.shape[1] // width] = True
        return Region(self.category, mask).resolved(outputs, Context(context.batch, labels=context.labels))


def _dimensions(context: Context) -> int:
    """How many axes of space the scores of places have at least: as many as signals have, or those of an image."""
    return min(len(context.sizes[0]), 2) if context.sizes else 2


def place_scores(outputs: Any, kind: Kind | None = None, dimensions: int = 2) -> ClassScores:
    """The score of each class at each place in a model's output; a single output per place becomes two columns.

    Where queries have a class and a mask each (MaskFormer, Mask2Former) it is the sum over queries of the class's
    probability times the mask's (semantic inference, Cheng et al. 2021, arXiv:2107.06278), without the class "no
    object".

    Args:
        outputs: what the model returned.
        kind: what kind the scores are. None tells it from the operation that made them.
        dimensions: how many axes of space they have at least: 1 for signals.

    Returns:
        Scores (B, K, *space).

    Raises:
        OutputError: if the model gives no scores of places.
    """
    if queries := tensors_called(outputs, ("class_queries_logits", "masks_queries_logits"))[:2]:
        classes, masks = queries
        combined = torch.einsum("bqk,bqhw->bkhw", classes.softmax(-1)[..., :-1], masks.sigmoid())
        return ClassScores(combined, "scores")
    scores = scores_tensor(outputs)
    if scores.ndim < 2 + dimensions or scores[0, 0].numel() < 2:
        raise OutputError(
            "the model does not give a score per class and place.",
            got=described(outputs),
            expected="(B, K, H, W) or (B, K, D, H, W); (B, K, L) of signals",
            do=advice(outputs, "pass a class as target, or a function of the output"),
        )
    return scores_of(scores, scores, kind)


def _mask(mask: Any, device: torch.device) -> Tensor:
    """A mask in whatever form, as a tensor."""
    if isinstance(mask, Image.Image) and mask.mode not in ("1", "L"):
        raise TargetTypeError(
            "a picture is a mask if it is of black and white.",
            got=f"a PIL image of mode {mask.mode!r}",
            expected="mode '1' or 'L'",
            do="np.asarray(mask) == 3 is where a map of labels says 3; mask.convert('L') takes the brightness",
        )
    if isinstance(mask, Image.Image | np.ndarray):
        mask = np.array(mask)  # a copy: arrays may be read-only or run backwards
    found = torch.as_tensor(mask, device=device)
    if found.is_complex() or not bool((found >= 0).all()):
        raise TargetError("the mask has weights below 0, or not a number.", expected="booleans, or weights from 0 up")
    return found


def _seen(index: Int[Tensor, "B *T"], values: Float[Tensor, "B K *space"]) -> Float[Tensor, "..."]:
    """1 where the class of `index` has the highest score, 0 elsewhere: (B, [T,] *space)."""
    best = values.argmax(1)
    best = best if index.ndim == 1 else best[:, None]
    return (best == index.reshape(*index.shape, *[1] * (values.ndim - 2))).to(_precision(values))


def _at_resolution(
    mask: Tensor, index: Int[Tensor, "B *T"], values: Float[Tensor, "B K *space"], context: Context
) -> Float[Tensor, "..."]:
    """The share of each place of the output that `mask` covers, for each image and class: (B, [T,] *space)."""
    space = tuple(values.shape[2:])
    size, rows = tuple(mask.shape[-len(space) :]), tuple(mask.shape[: -len(space)])
    sizes = {space, *(map(tuple, context.sizes or []))}
    if size not in sizes or rows not in ((), index.shape[:1], index.shape):
        raise TargetError(
            "the mask does not fit the image.",
            got=f"shape {tuple(mask.shape)}",
            expected=" or ".join(str((*rows, *size)) for size in sorted(sizes) for rows in ((), tuple(index.shape))),
            do="pass the mask at the size of the model's input",
        )
    weights = mask.to(_precision(values))
    if size != space:
        weights = F.interpolate(weights.reshape(-1, 1, *size), size=space, mode="area")
    ones = [1] * (index.ndim - len(rows))
    return weights.reshape(*rows, *ones, *space).expand(*index.shape, *space)


def _precision(values: Tensor) -> torch.dtype:
    """In half precision the weights of a large mask would not add up."""
    return torch.promote_types(values.dtype, torch.float32)
