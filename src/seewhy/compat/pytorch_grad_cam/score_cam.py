"""ScoreCAM."""

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM


class ScoreCAM(BaseCAM):
    """Channels weighted by the score of the image seen through them (Wang et al. 2020)."""

    method = "score_cam"
