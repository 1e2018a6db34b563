"""grad-cam's targets: callables from one image's part of the model's output to its score.

Those of class scores take (K,), or (B, K) and then give a score per row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from seewhy.errors import MissingExtra


@dataclass
class ClassifierOutputTarget:
    """The score of a class."""

    category: int

    def __call__(self, model_output: Float[Tensor, "*B K"]) -> Float[Tensor, "*B"]:
        return model_output[..., self.category]


@dataclass
class ClassifierOutputSoftmaxTarget:
    """The probability of a class."""

    category: int

    def __call__(self, model_output: Float[Tensor, "*B K"]) -> Float[Tensor, "*B"]:
        return model_output.softmax(-1)[..., self.category]


@dataclass
class ClassifierOutputReST:
    """The score of a class plus the logarithm of its probability (arXiv:2501.06261)."""

    category: int

    def __call__(self, model_output: Float[Tensor, "*B K"]) -> Float[Tensor, "*B"]:
        return (model_output + model_output.log_softmax(-1))[..., self.category]


@dataclass
class BinaryClassifierOutputTarget:
    """One logit for the class 1, its negative for any other."""

    category: int

    def __call__(self, model_output: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return model_output if self.category == 1 else -model_output


@dataclass
class SoftmaxOutputTarget:
    """The probabilities of all classes."""

    def __call__(self, model_output: Float[Tensor, "*B K"]) -> Float[Tensor, "*B K"]:
        return model_output.softmax(-1)


@dataclass
class RawScoresOutputTarget:
    """The model's output as it is."""

    def __call__(self, model_output: Tensor) -> Tensor:
        return model_output


class SemanticSegmentationTarget:
    """The sum of a class's scores (K, H, W) over the pixels of `mask` (H, W)."""

    def __init__(self, category: int, mask: NDArray[np.generic] | Tensor) -> None:
        self.category = category
        self.mask = torch.as_tensor(mask)

    def __call__(self, model_output: Float[Tensor, "K H W"]) -> Float[Tensor, ""]:
        return (model_output[self.category] * self.mask.to(model_output.device)).sum()


@dataclass
class FasterRCNNBoxScoreTarget:
    """For boxes detected before: how well they are found again, the sum of overlap and confidence.

    bounding_boxes: (N, 4) as (x0, y0, x1, y1); a box counts if the detection that covers it best has an IoU above
    `iou_threshold` and the same of `labels`. A detection has "boxes", "labels" and "scores", as torchvision's do.
    """

    labels: Sequence[object] | NDArray[np.generic] | Tensor
    bounding_boxes: NDArray[np.floating] | Tensor | Sequence[NDArray[np.floating]]
    iou_threshold: float = 0.5

    def __call__(self, model_outputs: Mapping[str, Tensor]) -> Float[Tensor, " 1"]:
        try:
            from torchvision.ops import box_iou
        except ImportError as error:
            raise MissingExtra.of("torchvision", "zoo") from error
        boxes, labels, scores = (model_outputs[name] for name in ("boxes", "labels", "scores"))
        total = boxes.new_zeros(1)
        if not len(boxes):
            return total
        for wanted, label in zip(self.bounding_boxes, self.labels, strict=True):
            overlap, best = box_iou(torch.as_tensor(wanted).to(boxes)[None], boxes)[0].max(0)
            if overlap > self.iou_threshold and bool(labels[best] == label):
                total = total + overlap + scores[best]
        return total


@dataclass
class FinerWeightedTarget:
    """A class against others: z_main - alpha z_i, averaged over `comparison_categories` i by their probabilities."""

    main_category: int
    comparison_categories: Sequence[int]
    alpha: float

    def __call__(self, model_output: Float[Tensor, "*B K"]) -> Float[Tensor, "*B"]:
        others = model_output[..., list(self.comparison_categories)]
        return model_output[..., self.main_category] - self.alpha * (others.softmax(-1) * others).sum(-1)
