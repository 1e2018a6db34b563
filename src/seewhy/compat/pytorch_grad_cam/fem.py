"""FEM."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM


class FEM(BaseCAM):
    """Where channels stand `k` deviations above their mean (Fuad et al. 2020)."""

    method = "fem"

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        k: float = 2,
        *,
        upstream_exact: bool = False,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, upstream_exact=upstream_exact)
        self.options = {"k": k}
