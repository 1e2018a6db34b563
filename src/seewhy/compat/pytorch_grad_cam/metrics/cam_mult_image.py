"""What the score becomes when the image is multiplied by its map."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from seewhy.compat.pytorch_grad_cam.metrics.perturbation_confidence import Array, PerturbationConfidenceMetric


def multiply_tensor_with_cam(input_tensor: Tensor, cam: Tensor) -> Tensor:
    """The image, normalised as the model takes it, with 0 where the map is 0."""
    return input_tensor * cam


class CamMultImageConfidenceChange(PerturbationConfidenceMetric):
    """How much the scores rise when each image is multiplied by its map."""

    def __init__(self) -> None:
        super().__init__(multiply_tensor_with_cam)


class DropInConfidence(CamMultImageConfidenceChange):
    """How much they fall, 0 where they rise."""

    def __call__(self, *args: Any, **kwargs: Any) -> Array:
        drop: Array = np.maximum(-super().__call__(*args, **kwargs), 0)
        return drop


class IncreaseInConfidence(CamMultImageConfidenceChange):
    """1 where they rise, 0 where they do not."""

    def __call__(self, *args: Any, **kwargs: Any) -> Array:
        rises: Array = (super().__call__(*args, **kwargs) > 0).astype(np.float32)
        return rises
