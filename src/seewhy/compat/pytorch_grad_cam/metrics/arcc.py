"""ARCC: how small a map is, how sure of itself, and how much the model uses what it shows, in one number."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seewhy.compat.pytorch_grad_cam._scores import ImageTarget
from seewhy.compat.pytorch_grad_cam.metrics.perturbation_confidence import Array
from seewhy.compat.pytorch_grad_cam.metrics.road import ROADCombined
from seewhy.metrics import faithfulness

BaseMethod = Callable[..., NDArray[np.floating]]


def batch_pearson_coherency(A: NDArray[np.floating], B: NDArray[np.floating]) -> NDArray[np.floating]:  # noqa: N803
    """Pearson's correlation of the maps (B, H, W), one by one; 0 where one is constant."""
    return faithfulness.correlation(torch.as_tensor(A), torch.as_tensor(B)).nan_to_num(0.0).numpy()


class Complexity:
    """The mean of each map (arXiv:2104.10252)."""

    def __call__(self, grayscale_cams: NDArray[np.floating]) -> NDArray[np.floating]:
        return faithfulness.complexity(torch.as_tensor(grayscale_cams)).numpy()


class Coherency:
    """How much the map of the image times its map is like the map: their correlation, as a share (arXiv:2104.10252)."""

    def __call__(
        self,
        input_tensor: Tensor,
        grayscale_cams: NDArray[np.floating],
        targets: Sequence[ImageTarget],
        model: nn.Module,  # noqa: ARG002
        base_method: BaseMethod,
    ) -> NDArray[np.floating]:
        shown = input_tensor * torch.as_tensor(grayscale_cams)[:, None].to(input_tensor.device)
        again = base_method(input_tensor=shown, targets=targets)
        return (batch_pearson_coherency(again, grayscale_cams) + 1) / 2


class ARCC:
    """The harmonic mean of 1 - complexity, coherency and twice ROAD, which is cut to [0, 1].

    base_method: what made the maps, called with `input_tensor` and `targets`.
    """

    def __init__(
        self,
        base_method: BaseMethod,
        road_percentiles: Sequence[float] = (20, 40, 60, 80),
        *,
        upstream_exact: bool = False,
    ) -> None:
        self.complexity = Complexity()
        self.coherency = Coherency()
        self.road = ROADCombined(percentiles=road_percentiles, upstream_exact=upstream_exact)
        self.base_method = base_method

    def __call__(
        self,
        input_tensor: Tensor,
        grayscale_cams: NDArray[np.floating],
        targets: Sequence[ImageTarget],
        model: nn.Module,
    ) -> Array:
        small = 1 - self.complexity(grayscale_cams)
        sure = self.coherency(input_tensor, grayscale_cams, targets, model, self.base_method)
        used = np.clip(2 * self.road(input_tensor, grayscale_cams, targets, model), 0, 1)
        return faithfulness.harmonic_mean(*(torch.as_tensor(part) for part in (small, sure, used))).numpy()
