"""Can a map be trusted, under grad-cam's names: (B, H, W) arrays of maps in, an array of one number per image out."""

from seewhy.compat.pytorch_grad_cam.metrics import cam_mult_image, road

__all__ = ["cam_mult_image", "road"]
