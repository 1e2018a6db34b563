"""HiResCAM."""

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM


class HiResCAM(BaseCAM):
    """Every activation times its own gradient (Draelos and Carin 2020)."""

    method = "hires_cam"
