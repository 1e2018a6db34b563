"""XGradCAM."""

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM


class XGradCAM(BaseCAM):
    """Gradients averaged by how much of the channel lies where they are (Fu et al. 2020)."""

    method = "x_grad_cam"
