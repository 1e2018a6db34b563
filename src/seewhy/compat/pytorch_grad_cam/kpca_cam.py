"""KPCA_CAM."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM
from seewhy.methods.cam.decomposition import Kernel


class KPCA_CAM(BaseCAM):  # noqa: N801
    """The first kernel principal component of the activations (Karmani et al. 2024), of scikit-learn's kernels."""

    method = "kpca_cam"

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        kernel: Kernel = "sigmoid",
        gamma: float | None = None,
        *,
        upstream_exact: bool = False,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, upstream_exact=upstream_exact)
        self.options = {"kernel": kernel, "gamma": gamma}
