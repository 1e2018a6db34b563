"""GradCAMPlusPlus."""

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM


class GradCAMPlusPlus(BaseCAM):
    """Positive gradients, every object counting alike (Chattopadhyay et al. 2018)."""

    method = "grad_cam_plus_plus"
