"""GradCAM."""

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM


class GradCAM(BaseCAM):
    """Channels weighted by their mean gradient (Selvaraju et al. 2017)."""

    method = "grad_cam"
