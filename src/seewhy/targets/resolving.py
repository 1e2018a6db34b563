"""Whatever a caller gives as target, as one; and what is asked of it, under a name each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from seewhy.targets.base import BaseTarget, FunctionTarget, Target
from seewhy.targets.classes import Category
from seewhy.targets.context import Context


def as_target(target: Any) -> BaseTarget:
    """`target` as one of the library's own: a function is wrapped, anything else names classes."""
    if isinstance(target, BaseTarget):
        return target
    return FunctionTarget(target) if callable(target) else Category(target)


def resolve(target: Any, outputs: Any, context: Context) -> BaseTarget:
    """`target` made definite for these outputs: its tensors hold one row per image.

    What was predicted, found or named is fixed, so that it stays the same when the image is changed later. An object
    that is no target but has a method `resolved(outputs, context)` chooses one when it sees the output.

    Args:
        target: classes, a target, or a function of the output.
        outputs: what the model returned for the caller's images.
        context: what is known of the call.

    Raises:
        TargetError: if it does not fit the output.
        TargetTypeError: if it is nothing that can be a target.
        OutputError: if the output does not have what it asks about.
    """
    if not isinstance(target, BaseTarget) and hasattr(target, "resolved"):
        target = target.resolved(outputs, context)
    return as_target(target).resolved(outputs, context)


def mirrored(target: Target) -> BaseTarget:
    """A resolved `target` for the same images with left and right exchanged."""
    return as_target(target).mirrored()


def for_rows(
    target: Target, outputs: Any, images: Int[Tensor, " N"], original: Any, batch: int
) -> Float[Tensor, "N *T"]:
    """The scores of N rows of `outputs`, row n by what a resolved `target` asks of image `images[n]`.

    See `BaseTarget.for_rows`.
    """
    return as_target(target).for_rows(outputs, images, original, batch)


def classes_of(target: Any) -> Any:
    """The classes that a resolved `target` is about, (B,) or (B, T); None for one that is about something else."""
    return as_target(target).classes()


def outline(target: Any, image: int, number: int | None) -> tuple[float, ...] | None:
    """The box (x0, y0, x1, y1) that a map of a resolved `target` is about, in shares of the input's width and height.

    None for a target that is about something else. number: that of the target, None where there is one per image.
    """
    return as_target(target).outline(image, number)


def probabilities(target: Target, outputs: Any) -> Float[Tensor, "B *T"] | None:
    """The probability of the classes of a resolved `target`; None for one that is not about an image's class."""
    return as_target(target).probabilities(outputs)


def describe(target: Any, labels: Sequence[str] | None = None, image: int = 0, number: int | None = None) -> str:
    """What a map of a resolved `target` is about, in a few words: "tabby", "not nodule", "class 7", a prompt.

    See `BaseTarget.describe`.
    """
    return as_target(target).describe(labels, image, number)
