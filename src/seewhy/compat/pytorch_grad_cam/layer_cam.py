"""LayerCAM."""

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM


class LayerCAM(BaseCAM):
    """Every activation times its own positive gradient (Jiang et al. 2021)."""

    method = "layer_cam"
