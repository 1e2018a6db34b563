"""EigenCAM."""

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM


class EigenCAM(BaseCAM):
    """The first principal component of the activations, centred, which in the paper they are not (Muhammad 2020)."""

    method = "eigen_cam"
