"""ShapleyCAM."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM


class ShapleyCAM(BaseCAM):
    """Grad-CAM with a correction of second order (Cai 2025). A subclass is handed tensors in the graph."""

    method = "shapley_cam"

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        *,
        upstream_exact: bool = False,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, detach=False, upstream_exact=upstream_exact)
