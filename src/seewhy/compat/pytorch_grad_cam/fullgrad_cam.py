"""FullGrad."""

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM


class FullGrad(BaseCAM):
    """The sizes of the input's and of every bias's part in the score (Srinivas and Fleuret 2019), on the input.

    `target_layers` may be empty: all layers with a bias are looked at.
    """

    method = "full_grad"
