"""ShapleyCAM."""

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM


class ShapleyCAM(BaseCAM):
    """Grad-CAM with a correction of second order (Cai 2025)."""

    method = "shapley_cam"
