"""FullGrad."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM
from seewhy.evidence.biases import biases


class FullGrad(BaseCAM):
    """The sizes of the input's and of every bias's part in the score (Srinivas and Fleuret 2019), on the input.

    `target_layers` may be empty: all layers with a bias are looked at.
    """

    method = "full_grad"

    @property
    def bias_data(self) -> list[NDArray[np.floating[Any]]]:
        """What each of these layers adds to its output's channels, (C,) each."""
        return [bias.cpu().numpy() for bias in biases(self.model).values()]

    def get_bias_data(self, layer: nn.Module) -> Tensor:
        """What one layer adds to its output's channels, (C,)."""
        return biases(layer)[""]
