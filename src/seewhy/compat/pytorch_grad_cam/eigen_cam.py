"""EigenCAM."""

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM


class EigenCAM(BaseCAM):
    """The first principal component of the activations (Muhammad and Yeasin 2020)."""

    method = "eigen_cam"
