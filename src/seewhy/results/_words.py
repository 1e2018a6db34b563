"""What each map of an explanation is about, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from seewhy.errors import OutputError
from seewhy.targets import class_scores, classes_of, describe

if TYPE_CHECKING:
    from seewhy.results.explanation import Explanation

Side = Literal["positive", "negative", ""]


def class_index(explanation: Explanation) -> Int[Tensor, "B *T"] | None:
    """The class that each map explains; None where the target is not about classes."""
    index = classes_of(explanation.targets)
    if isinstance(index, int) and not isinstance(index, bool):
        index = torch.tensor(index)
    if not isinstance(index, Tensor) or index.is_floating_point() or index.dtype == torch.bool or index.ndim > 2:
        return None
    shape = explanation.scores.shape
    several = index if index.ndim in (0, len(shape)) else index[:, None]
    return several.expand(shape)


def side(explanation: Explanation, image: int, target: int | None) -> Side:
    """Which side of a single output is explained: the output itself, or its opposite (-x, of a probability 1 - p).

    Args:
        explanation: of any model.
        image: the number of the image.
        target: the number of the target; None where there is one per image.

    Returns:
        "positive" or "negative" for a class of a model with one logit or one probability; "" for any other.
    """
    index = class_index(explanation)
    if getattr(explanation.targets, "kind", None) not in ("one logit", "one probability") or index is None:
        return ""
    return "positive" if index[image if target is None else (image, target)] else "negative"


def name(explanation: Explanation, image: int, target: int | None) -> str:
    """What one map is about: "tabby", "not nodule", "class 7", the prompt; "" where nothing is known."""
    targets = explanation.targets
    return targets if isinstance(targets, str) else describe(targets, explanation.labels, image, target)


def top(explanation: Explanation, count: int) -> list[list[tuple[str, float]]]:
    """The most likely classes of each image with their probabilities: see `Explanation.top`."""
    if explanation.outputs is None:
        raise OutputError("this explanation does not know the model's outputs.", do="explain again, or save it as .npz")
    scores = class_scores(explanation.outputs, getattr(explanation.targets, "kind", None))
    if scores.values.ndim != 2 or scores.kind == "one value":
        raise OutputError("the model ranks no classes of an image.", got=f"{scores.kind} {tuple(scores.values.shape)}")
    names = scores.names(explanation.labels)
    likely, index = scores.likely.topk(min(count, len(names)), 1)
    return [
        [(names[number], value) for number, value in zip(*row, strict=True)]
        for row in zip(index.tolist(), likely.tolist(), strict=True)
    ]
