"""SegEigenCAM."""

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM


class SegEigenCAM(BaseCAM):
    """The first principal component of |gradients| times activations (Chung and Ying 2025)."""

    method = "seg_eigen_cam"
