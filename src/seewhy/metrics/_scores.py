"""Ready-made scores: of one class of a classifier for each image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from seewhy.errors import InputError
from seewhy.metrics._inputs import Score


def logit(model: Callable[[Tensor], Tensor], target: int | Int[Tensor, " B"]) -> Score:
    """The score of a class as the model gives it.

    Args:
        model: (N, C, H, W) -> (N, classes), in eval mode.
        target: the class, one for all images or (B,), one for each.

    Returns:
        A function (N, C, H, W) -> (N,) for rows in whole rounds of the images. It raises `InputError` where the rows
        are not whole rounds of the targets.
    """
    return lambda images: _of_class(model(images), target)


def probability(model: Callable[[Tensor], Tensor], target: int | Int[Tensor, " B"]) -> Score:
    """The softmax of a class.

    Args:
        model: (N, C, H, W) -> (N, classes), logits, in eval mode.
        target: the class, one for all images or (B,), one for each.

    Returns:
        A function (N, C, H, W) -> (N,) for rows in whole rounds of the images. It raises `InputError` where the rows
        are not whole rounds of the targets.
    """
    return lambda images: _of_class(model(images).softmax(1), target)


def _of_class(scores: Tensor, target: int | Tensor) -> Tensor:
    if isinstance(target, int):
        return scores[:, target]
    if len(scores) % len(target):
        raise InputError(
            "targets and images differ in number.", got=f"{len(target)} targets for {len(scores)} rows of images"
        )
    rows = torch.arange(len(scores), device=scores.device)
    return scores[rows, target.to(scores.device)[rows % len(target)]]
