"""A target made definite for one call, and its scores checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.errors import TargetError, TargetTypeError
from seewhy.hooks.nested import rebuild, tensors
from seewhy.targets.boxes import Box, Redetected
from seewhy.targets.classes import Category, Classes, Contrast, Finer, Probability
from seewhy.targets.context import Context
from seewhy.targets.regions import Region

Target = Callable[[Any], Tensor]


@runtime_checkable
class _Resolvable(Protocol):
    """A target that what it holds does not define alone: it depends on the output, or on the call."""

    def resolved(self, outputs: Any, context: Context) -> Target: ...


@runtime_checkable
class _Placed(Protocol):
    """A target that says where in the image, and so has a mirror image."""

    def mirrored(self) -> Target: ...


def resolve(target: Classes | Target, outputs: Any, context: Context) -> Target:
    """`target` made definite for these outputs: its tensors hold one row per image.

    What was predicted, found or named is fixed, so that it stays the same when the image is changed later. Raises what
    the target raises: `TargetError`, `TargetTypeError`, `OutputError`.
    """
    if isinstance(target, _Resolvable):
        return target.resolved(outputs, context)
    return target if callable(target) else Category(target).resolved(outputs, context)


def mirrored(target: Target) -> Target:
    """A resolved `target` for the same images with left and right exchanged."""
    return target.mirrored() if isinstance(target, _Placed) else target


def for_rows(
    target: Target, outputs: Any, images: Int[Tensor, " N"], original: Any, batch: int
) -> Float[Tensor, "N *T"]:
    """The scores of N rows of `outputs`, row n by what a resolved `target` asks of image `images[n]`.

    A function is called with batches like the `original` outputs of `batch` images, which it was made for: rows stand
    in their image's place, and images without a row in this round keep what the model gave for them.
    """
    if isinstance(target, _Resolvable | Finer | Redetected):
        of_rows: Target = rebuild(target, lambda per_image: per_image[images.to(per_image.device)])
        return of_rows(outputs)
    turns = (images[:, None] == images).tril(-1).sum(1)  # the number of earlier rows of the same image
    scores, order = [], []
    for turn in range(int(turns.max()) + 1):
        rows = (turns == turn).nonzero()[:, 0]
        before = tensors(original)

        def in_place(after: Tensor, rows: Tensor = rows, before: Iterator[Tensor] = before) -> Tensor:
            kept = next(before).detach()
            per_image = after.ndim > 0 and after.shape[0] == len(images) and kept.shape[0] == batch
            return kept.index_copy(0, images[rows], after[rows].to(kept.dtype)) if per_image else after

        scores.append(checked(target(rebuild(outputs, in_place)), batch)[images[rows]])
        order.append(rows)
    return torch.cat(scores)[torch.cat(order).argsort()]


def classes(target: Any) -> Any:
    """The classes that a resolved `target` is about, (B,) or (B, T); None for one that is about something else."""
    if isinstance(target, Category | Probability | Contrast | Finer):
        return target.index
    if isinstance(target, Region):
        return target.category
    return target.label if isinstance(target, Box | Redetected) else None


def outline(target: Any, image: int, number: int | None) -> tuple[float, ...] | None:
    """The box (x0, y0, x1, y1) that a map of a resolved `target` is about, in shares of the input's width and height.

    None for a target that is about something else. number: that of the target, None where there is one per image.
    """
    if not isinstance(target, Box | Redetected) or target.sizes is None:
        return None
    box = target.box[image] if number is None else target.box[image, number]
    height, width = target.sizes[image].tolist()
    return tuple(side / of for side, of in zip(box.tolist(), (width, height, width, height), strict=True))


def probabilities(target: Target, outputs: Any) -> Float[Tensor, "B *T"] | None:
    """The probability of the classes of a resolved `target`; None for one that is not about an image's class."""
    if not isinstance(target, Category | Probability | Contrast):
        return None
    return Probability(target.index, getattr(target, "multi_label", False))(outputs)


def checked(scores: Any, batch: int) -> Float[Tensor, "B *T"]:
    """What a target returned, if it is a score per image (and target): (B,) or (B, T); a scalar will do for B = 1."""
    if not isinstance(scores, Tensor):
        raise TargetTypeError("the target function did not return a tensor.", got=type(scores).__name__)
    found: Tensor = scores[None] if scores.ndim == 0 and batch == 1 else scores
    if found.ndim not in (1, 2) or found.shape[0] != batch or not found.is_floating_point():
        raise TargetError(
            "the target function did not return a score per image.",
            got=f"{scores.dtype} of shape {tuple(scores.shape)}",
            expected=f"floating point of shape ({batch},), or ({batch}, T) for T targets",
        )
    return found
