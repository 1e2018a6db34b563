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
    """`target` as one of the library's own: a function is wrapped, anything else names classes.

    Args:
        target: classes, a target, or a function of the output.

    Returns:
        The target itself, a `FunctionTarget`, or a `Category`.
    """
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

    Returns:
        The definite target. Resolved once more, it stays as it is.

    Raises:
        TargetError: if it does not fit the output.
        TargetTypeError: if it is nothing that can be a target.
        OutputError: if the output does not have what it asks about.
    """
    if not isinstance(target, BaseTarget) and hasattr(target, "resolved"):
        target = target.resolved(outputs, context)
    return as_target(target).resolved(outputs, context)


def mirrored(target: Target) -> BaseTarget:
    """A resolved `target` for the same images with left and right exchanged.

    Args:
        target: a target, or a function of the output.

    Returns:
        A target with its places mirrored; one without places stays as it is.
    """
    return as_target(target).mirrored()


def for_rows(
    target: Target, outputs: Any, images: Int[Tensor, " N"], original: Any, batch: int
) -> Float[Tensor, "N *T"]:
    """The scores of N rows of `outputs`, row n by what a resolved `target` asks of image `images[n]`.

    Args:
        target: a target, or a function of the output.
        outputs: what the model returned for N changed images.
        images: (N,), the image that each row is of.
        original: what the model returned for the caller's images.
        batch: the number of the caller's images.

    Returns:
        (N,), or (N, T) for T questions about each image.
    """
    return as_target(target).for_rows(outputs, images, original, batch)


def classes_of(target: Any) -> Any:
    """The classes that a resolved `target` is about.

    Args:
        target: a target, or a function of the output.

    Returns:
        Indices (B,) or (B, T). For a single output 1 is the output itself and 0 its other side. None for a target that
        is about something else.
    """
    return as_target(target).classes()


def outline(target: Any, image: int, number: int | None) -> tuple[float, ...] | None:
    """The box that a map of a resolved `target` is about.

    Args:
        target: a target, or a function of the output.
        image: which of the batch.
        number: which of its T targets; None where there is one per image.

    Returns:
        (x0, y0, x1, y1), in shares of the input's width and height. None for a target that is about something else, and
        where the size of the inputs is not known.
    """
    return as_target(target).outline(image, number)


def probabilities(target: Target, outputs: Any) -> Float[Tensor, "B *T"] | None:
    """The probability of the classes or tokens of a resolved `target`.

    Args:
        target: a target, or a function of the output.
        outputs: what the model returned for B images.

    Returns:
        (B,) or (B, T). None for a target without a probability, such as a box, a region, or the value of a regression.
    """
    return as_target(target).probabilities(outputs)


def describe(target: Any, labels: Sequence[str] | None = None, image: int = 0, number: int | None = None) -> str:
    """What a map of a resolved `target` is about, in a few words.

    Args:
        target: a target, or a function of the output.
        labels: a name per class; None where they are not known.
        image: which of the batch.
        number: which of its T targets; None where there is one per image.

    Returns:
        A text such as "tabby", "not nodule", "class 7" or a prompt; "" where nothing is known.
    """
    return as_target(target).describe(labels, image, number)
