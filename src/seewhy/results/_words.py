"""What each map of an explanation is about, in words."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from seewhy.targets import Probability, classes
from seewhy.targets.outputs import scores_tensor

if TYPE_CHECKING:
    from seewhy.results.explanation import Explanation

Side = Literal["positive", "negative", ""]


def class_index(explanation: Explanation) -> Int[Tensor, "B *T"] | None:
    """The class that each map explains; None where the target is not about classes."""
    targets = explanation.targets
    index = classes(targets) if dataclasses.is_dataclass(targets) else targets
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
        "positive" or "negative" for a class of a model with one output; "" for any other model or target.
    """
    kind = getattr(explanation.targets, "kind", None)
    if kind is None or explanation.outputs is None:
        return ""
    outputs = scores_tensor(explanation.outputs)
    if outputs.numel() != len(explanation):
        return ""
    output = outputs.detach().flatten()[image].double()
    likely = kind in ("probabilities", "one probability")
    if isinstance(explanation.targets, Probability) and not likely:
        output, likely = output.sigmoid(), True
    opposite = 1 - output if likely else -output
    score = explanation.scores[image] if target is None else explanation.scores[image, target]
    return "positive" if abs(score - output) <= abs(score - opposite) else "negative"


def name(explanation: Explanation, image: int, target: int | None) -> str:
    """What one map is about: the class's label, "class 7", the prompt; "" for a function of the output."""
    index = class_index(explanation)
    if index is None:
        targets = explanation.targets
        return targets if isinstance(targets, str) else getattr(targets, "prompt", None) or ""
    number = int(index[image] if target is None else index[image, target])
    labels = explanation.labels or ()
    shown = side(explanation, image, target)
    if shown and len(labels) == 1:
        return labels[0] if shown == "positive" else f"not {labels[0]}"
    if shown and len(labels) == 2:
        return labels[shown == "positive"]
    if shown:
        return "the output" if shown == "positive" else "minus the output"
    return labels[number] if 0 <= number < len(labels) else f"class {number}"
