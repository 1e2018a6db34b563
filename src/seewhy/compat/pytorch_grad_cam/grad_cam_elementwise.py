"""GradCAMElementWise."""

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM


class GradCAMElementWise(BaseCAM):
    """HiResCAM, only what is positive summed over channels."""

    method = "grad_cam_elementwise"
