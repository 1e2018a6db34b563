"""Activations (B, C, *grid) as one map (B, *grid): arrays in, float32 out. NaN counts as 0."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seewhy.compat.pytorch_grad_cam import _upstream
from seewhy.methods import channels
from seewhy.methods.cam import decomposition, gradient

Activations = NDArray[np.floating]
Maps = NDArray[np.float32]


def get_2d_projection(activation_batch: Activations, *, upstream_exact: bool = False) -> Maps:
    """The first principal component of the places, with the sign that agrees with the sum over channels.

    grad-cam leaves the sign to chance; `upstream_exact` has the same chance.
    """
    project = _upstream.principal_component if upstream_exact else channels.principal_component
    return _applied(project, activation_batch)


def get_2d_projection_kernel(
    activation_batch: Activations, kernel: decomposition.Kernel = "sigmoid", gamma: float | None = None
) -> Maps:
    """The first kernel principal component of the places, with the same rule for its sign."""
    return _applied(lambda layer: decomposition.kpca_cam(layer, kernel=kernel, gamma=gamma), activation_batch)


def get_2d_projection_with_sign_correction(activation_batch: Activations) -> Maps:
    """The first principal component of the places, its largest value in size positive."""
    return _applied(lambda layer: gradient.seg_eigen_cam(layer, torch.ones_like(layer)), activation_batch)


def _applied(project: Callable[[Tensor], Tensor], activation_batch: Activations) -> Maps:
    maps: Maps = project(torch.from_numpy(activation_batch).nan_to_num(0.0)).float().numpy()
    return maps
