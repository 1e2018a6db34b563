"""FinerCAM."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from seewhy.compat.pytorch_grad_cam._scores import ImageTarget, PerImage, per_image
from seewhy.compat.pytorch_grad_cam._wrapping import Wrapping
from seewhy.compat.pytorch_grad_cam.base_cam import Array, BaseCAM
from seewhy.compat.pytorch_grad_cam.grad_cam import GradCAM
from seewhy.compat.pytorch_grad_cam.utils.model_targets import FinerWeightedTarget

DEFAULT_COMPARISON_CATEGORIES = (1, 2, 3)


class FinerCAM(Wrapping):
    """A class against those most like it in the image (Zhang et al. 2025), by any `base_method`, which gets `options`.

    As in grad-cam the others count by their probabilities; `seewhy.methods.finer` takes their mean, as the paper does.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        base_method: Callable[..., BaseCAM] = GradCAM,
        **options: Any,
    ) -> None:
        self.base_cam = base_method(model, target_layers, reshape_transform, **options)

    def forward(
        self,
        input_tensor: Tensor,
        targets: Sequence[ImageTarget] | None = None,
        eigen_smooth: bool = False,
        alpha: float = 1,
        comparison_categories: Sequence[int] | None = None,
        target_idx: int | None = None,
    ) -> Array:
        """Maps (B, *size) of the predicted class, or `target_idx`, less `alpha` times those it is compared with.

        comparison_categories: which, as ranks among the classes by how near their score is: 1 is the nearest.
        """
        ask = partial(_nearest, comparison_categories or DEFAULT_COMPARISON_CATEGORIES, alpha, target_idx)
        cams, _ = self.base_cam.layer_cams(input_tensor, targets, eigen_smooth, ask if targets is None else None)
        return self.base_cam.aggregate_multi_layers(cams)


def _nearest(ranks: Sequence[int], alpha: float, target_idx: int | None, _: Any, outputs: Tensor) -> PerImage:
    """For each image the class against those of `ranks`, less the ranks that a model of few classes does not have."""
    scores = outputs.detach().float()
    chosen = scores.amax(1) if target_idx is None else scores[:, target_idx]
    order = (scores - chosen[:, None]).abs().argsort(dim=1, stable=True).tolist()
    known = [rank for rank in ranks if rank < scores.shape[1]]
    return per_image([FinerWeightedTarget(row[0], [row[rank] for rank in known], alpha) for row in order], len(order))
