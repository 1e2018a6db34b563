"""FEM."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM


class FEM(BaseCAM):
    """Channels weighted by the share of their places that are `k` deviations above the mean, after Fuad et al. 2020.

    That is grad-cam's FEM; the paper's, `seewhy.methods.decomposition.fem`, sums these places weighted by the mean.
    """

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
