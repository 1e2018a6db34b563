"""RefineCAM."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from seewhy.compat.pytorch_grad_cam._scores import ImageTarget
from seewhy.compat.pytorch_grad_cam._wrapping import Wrapping
from seewhy.compat.pytorch_grad_cam.base_cam import Array, BaseCAM
from seewhy.compat.pytorch_grad_cam.grad_cam_plusplus import GradCAMPlusPlus


class RefineCAM(Wrapping):
    """The product of the layers' maps by `base_method`, which gets `options` (Domeniconi et al. 2026)."""

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        base_method: Callable[..., BaseCAM] = GradCAMPlusPlus,
        **options: Any,
    ) -> None:
        self.base_cam = base_method(model, target_layers, reshape_transform, **options)

    def forward(
        self, input_tensor: Tensor, targets: Sequence[ImageTarget] | None = None, eigen_smooth: bool = False
    ) -> Array:
        """Maps (B, *size) in [0, 1]."""
        layers, _ = self.base_cam.layer_cams(input_tensor, targets, eigen_smooth)
        scaled = self.base_cam.aggregate_multi_layers
        return scaled([np.prod([scaled([cam]) for cam in layers], axis=0)[:, None]])
