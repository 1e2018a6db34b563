"""What becomes of the score when a part of the image is changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from seewhy.compat.pytorch_grad_cam._scores import ImageTarget, per_image
from seewhy.engine.session import plain_session
from seewhy.inputs import Inputs
from seewhy.metrics import faithfulness

Array = NDArray[np.float32]
Imputer = Callable[[Tensor, Tensor], Tensor]  # (image (C, H, W), 1 where it is kept (H, W)) -> (C, H, W)
PERCENTILES = (10, 20, 30, 40, 50, 60, 70, 80, 90)


class PerturbationConfidenceMetric:
    """How much the scores rise when `perturbation` changes each image (C, H, W), given its map (H, W)."""

    def __init__(self, perturbation: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.perturbation = perturbation

    def __call__(
        self,
        input_tensor: Tensor,
        cams: NDArray[np.floating],
        targets: Sequence[ImageTarget],
        model: nn.Module,
        return_visualization: bool = False,
        return_diff: bool = True,
    ) -> Any:
        """(B,) changes, or with `return_diff` off the scores afterwards; and the changed images if asked for.

        The model runs in eval mode, and is left as it was.
        """
        score = per_image(targets, len(input_tensor))
        pairs = zip(input_tensor.cpu(), torch.as_tensor(cams), strict=True)
        changed = torch.stack([self.perturbation(image, cam) for image, cam in pairs]).to(input_tensor.device)
        with plain_session(model, changed) as run:
            result = score(run.run())
            if return_diff:
                result = result - score(run.run(Inputs.of(input_tensor, run.model)))
        found = result.float().cpu().numpy()
        return (found, changed) if return_visualization else found


class RemoveMostRelevantFirst:
    """Takes away what a map shows: `imputer` fills in the pixels from `percentile` of the map up.

    That is the same number of pixels for every map. percentile "auto" takes what is above Otsu's threshold.
    `upstream_exact` compares with the percentile, as grad-cam does: a map with more zeros than that goes as a whole. It
    also keeps what is above Otsu's threshold, and takes the rest.
    """

    def __init__(self, percentile: float | Literal["auto"], imputer: Imputer, *, upstream_exact: bool = False) -> None:
        self.percentile = percentile
        self.imputer = imputer
        self.upstream_exact = upstream_exact

    def __call__(self, input_tensor: Tensor, mask: Tensor) -> Tensor:
        return self.imputer(input_tensor, self._kept(mask).float())

    def _kept(self, mask: Tensor) -> Tensor:
        if self.percentile == "auto":
            levels = (255 * mask).to(torch.uint8)
            return (levels > otsu(levels)) == self.upstream_exact
        if self.upstream_exact:
            return mask < float(np.percentile(mask.numpy(), self.percentile))
        return faithfulness.lowest(mask[None], self.percentile, generator=Generator().manual_seed(0))[0]


class RemoveLeastRelevantFirst(RemoveMostRelevantFirst):
    """The same of 1 - map: takes away what the map leaves out."""

    def __call__(self, input_tensor: Tensor, mask: Tensor) -> Tensor:
        return super().__call__(input_tensor, 1 - mask)


class AveragerAcrossThresholds:
    """The mean over `percentiles` of what `imputer(percentile)`, a metric, gives."""

    def __init__(self, imputer: Callable[[float], Any], percentiles: Sequence[float] = PERCENTILES) -> None:
        self.imputer = imputer
        self.percentiles = percentiles

    def __call__(
        self,
        input_tensor: Tensor,
        cams: NDArray[np.floating],
        targets: Sequence[ImageTarget],
        model: nn.Module,
    ) -> Array:
        found = [self.imputer(percentile)(input_tensor, cams, targets, model) for percentile in self.percentiles]
        mean: Array = np.mean(found, axis=0, dtype=np.float32)
        return mean


def otsu(levels: Tensor) -> int:
    """The level, of 0 to 255, that parts the others with the largest variance between the two sides (Otsu 1979)."""
    counts = torch.bincount(levels.flatten().long(), minlength=256).double()
    below = counts.cumsum(0)
    sums = (counts * torch.arange(256)).cumsum(0)
    apart = sums * below[-1] - sums[-1] * below
    return int((apart**2 / (below * (below[-1] - below))).nan_to_num(0, posinf=0).argmax())
