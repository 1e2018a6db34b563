"""ROAD, remove and debias (arXiv:2202.00449): the score when pixels are taken away by the map, and filled in."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from seewhy.compat.pytorch_grad_cam._scores import ImageTarget
from seewhy.compat.pytorch_grad_cam.metrics.perturbation_confidence import (
    PERCENTILES,
    AveragerAcrossThresholds,
    PerturbationConfidenceMetric,
    RemoveLeastRelevantFirst,
    RemoveMostRelevantFirst,
)
from seewhy.metrics import faithfulness

Percentile = float | Literal["auto"]

neighbors_weights = [
    ((down - 1, right - 1), weight)
    for down, row in enumerate(faithfulness.NEIGHBOURS)
    for right, weight in enumerate(row)
    if weight
]


class NoisyLinearImputer:
    """Fills the pixels of an image (C, H, W) where a mask (H, W) is 0 from those around them, and adds noise.

    weighting: the weights of the eight neighbours as ((down, right), weight), which grad-cam takes and does not use.
    The noise is the same in every call, unless there is a `generator` to draw it from.
    """

    def __init__(
        self,
        noise: float = 0.01,
        weighting: Sequence[tuple[tuple[int, int], float]] = neighbors_weights,
        *,
        generator: Generator | None = None,
    ) -> None:
        self.noise = noise
        self.weighting = weighting
        self.generator = generator

    def __call__(self, img: Tensor, mask: Tensor) -> Tensor:
        weights = dict(self.weighting)
        filled = faithfulness.impute(
            img[None],
            mask[None] > 0.5,
            generator=self.generator or Generator().manual_seed(0),
            noise=self.noise,
            neighbours=tuple(tuple(weights.get((y, x), 0.0) for x in (-1, 0, 1)) for y in (-1, 0, 1)),
        )
        return filled[0]


class ROADMostRelevantFirst(PerturbationConfidenceMetric):
    """The change of the scores without the pixels from `percentile` of the map up."""

    def __init__(self, percentile: Percentile = 80, *, upstream_exact: bool = False) -> None:
        super().__init__(RemoveMostRelevantFirst(percentile, NoisyLinearImputer(), upstream_exact=upstream_exact))


class ROADLeastRelevantFirst(PerturbationConfidenceMetric):
    """The change of the scores without the pixels from `percentile` of 1 - map up."""

    def __init__(self, percentile: Percentile = 20, *, upstream_exact: bool = False) -> None:
        super().__init__(RemoveLeastRelevantFirst(percentile, NoisyLinearImputer(), upstream_exact=upstream_exact))


class ROADMostRelevantFirstAverage(AveragerAcrossThresholds):
    """`ROADMostRelevantFirst`, the mean over percentiles."""

    def __init__(self, percentiles: Sequence[float] = PERCENTILES, *, upstream_exact: bool = False) -> None:
        super().__init__(partial(ROADMostRelevantFirst, upstream_exact=upstream_exact), percentiles)


class ROADLeastRelevantFirstAverage(AveragerAcrossThresholds):
    """`ROADLeastRelevantFirst`, the mean over percentiles."""

    def __init__(self, percentiles: Sequence[float] = PERCENTILES, *, upstream_exact: bool = False) -> None:
        super().__init__(partial(ROADLeastRelevantFirst, upstream_exact=upstream_exact), percentiles)


class ROADCombined:
    """Half of what is lost more by taking the most relevant pixels first than by taking the least relevant."""

    def __init__(self, percentiles: Sequence[float] = PERCENTILES, *, upstream_exact: bool = False) -> None:
        self.percentiles = percentiles
        self.morf_averager = ROADMostRelevantFirstAverage(percentiles, upstream_exact=upstream_exact)
        self.lerf_averager = ROADLeastRelevantFirstAverage(percentiles, upstream_exact=upstream_exact)

    def __call__(
        self,
        input_tensor: Tensor,
        cams: NDArray[np.floating],
        targets: Sequence[ImageTarget],
        model: nn.Module,
    ) -> NDArray[np.floating]:
        least = self.lerf_averager(input_tensor, cams, targets, model)
        most = self.morf_averager(input_tensor, cams, targets, model)
        return (least - most) / 2
