"""EigenGradCAM."""

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM


class EigenGradCAM(BaseCAM):
    """The first principal component of the activations times their gradients."""

    method = "eigen_grad_cam"
