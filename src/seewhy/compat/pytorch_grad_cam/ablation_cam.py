"""AblationCAM."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.compat.pytorch_grad_cam.ablation_layer import AblationLayer
from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM
from seewhy.methods.registry import Ask, Method


class AblationCAM(BaseCAM):
    """Channels weighted by the share of the score that is lost without them (Desai and Ramaswamy 2020).

    ablation_layer: chooses the channels that count where `ratio_channels_to_ablate` is below 1. What takes channels out
    is the engine's replay, for any layout.
    """

    method = "ablation_cam"

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        ablation_layer: AblationLayer | None = None,
        batch_size: int = 32,
        ratio_channels_to_ablate: float = 1.0,
        *,
        upstream_exact: bool = False,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, upstream_exact=upstream_exact)
        self.ablation_layer = ablation_layer or AblationLayer()
        self.batch_size = batch_size
        self.ratio_channels_to_ablate = ratio_channels_to_ablate

    def _engine_method(self, eigen_smooth: bool) -> Method:
        found = super()._engine_method(eigen_smooth)
        if self.ratio_channels_to_ablate == 1.0:
            return found
        return replace(found, function=partial(self._of_chosen, found.function))

    def _of_chosen(self, method: Callable[..., Tensor], activations: Tensor, replay: Ask, **values: Any) -> Tensor:
        """What `method` gives where only the chosen channels are there to be taken out, among the others."""
        chosen = torch.zeros_like(activations, dtype=torch.bool)
        for mask, image in zip(chosen, activations.cpu().numpy(), strict=True):
            mask[self.ablation_layer.activations_to_be_ablated(image, self.ratio_channels_to_ablate).tolist()] = True
        others = torch.where(chosen, 0, activations)

        def ask(images: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
            return replay(images, lambda rows: make(rows) + others[images[rows]])

        return method(activations - others, replay=ask, **values)
