"""AblationCAM."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seewhy._types import Ask
from seewhy.compat.pytorch_grad_cam.ablation_layer import AblationLayer, AblationLayerFasterRCNN, AblationLayerVit
from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM
from seewhy.errors import InputTypeError
from seewhy.methods.registry import Method


class AblationCAM(BaseCAM):
    """Channels weighted by the share of the score that is lost without them (Desai and Ramaswamy 2020).

    ablation_layer: chooses the channels that count, all if `ratio_channels_to_ablate` is 1. What takes channels out is
    the engine's replay, for any layout: a layer that defines this itself is refused with an `InputTypeError`.
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
        if own := _defined(self.ablation_layer):
            raise InputTypeError(
                "an ablation layer takes channels out in its own way, which would not be used.",
                got=f"{type(self.ablation_layer).__name__}, which defines {', '.join(own)}",
                expected="AblationLayer, or a subclass that defines which channels: activations_to_be_ablated",
                do='seewhy.explain(..., method="ablation_cam", baseline=...) fills channels with another value; '
                "for anything else subclass BaseCAM, with get_cam_weights",
            )
        self.batch_size = batch_size
        self.ratio_channels_to_ablate = ratio_channels_to_ablate

    def _asking(self, method: Method) -> Method:
        chosen_by = type(self.ablation_layer).activations_to_be_ablated
        if self.ratio_channels_to_ablate == 1.0 and chosen_by is AblationLayer.activations_to_be_ablated:
            return method  # all of them
        return replace(method, function=partial(self._of_chosen, method.function))

    def _of_chosen(self, method: Callable[..., Tensor], activations: Tensor, replay: Ask, **values: Any) -> Tensor:
        """What `method` gives where only the chosen channels are there to be taken out, among the others."""
        chosen = torch.zeros_like(activations, dtype=torch.bool)
        for mask, image in zip(chosen, activations.cpu().numpy(), strict=True):
            mask[self.ablation_layer.activations_to_be_ablated(image, self.ratio_channels_to_ablate).tolist()] = True
        others = torch.where(chosen, 0, activations)

        def ask(images: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
            return replay(images, lambda rows: make(rows) + others[images[rows]])

        return method(activations - others, replay=ask, **values)


def _defined(layer: object) -> list[str]:
    """What a layer defines of how channels are taken out, where that is not one of this package's."""
    known: tuple[type, ...] = (AblationLayerFasterRCNN, AblationLayerVit, AblationLayer, nn.Module)
    base = next((kind for kind in known if isinstance(layer, kind)), None)
    names = ("set_next_batch", "forward", "__call__")
    return [name for name in names if getattr(type(layer), name, None) is not getattr(base, name, None)]
