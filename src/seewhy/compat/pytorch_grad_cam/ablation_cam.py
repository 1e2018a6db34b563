"""AblationCAM."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seewhy import methods
from seewhy._types import Ask
from seewhy.compat.pytorch_grad_cam import _upstream
from seewhy.compat.pytorch_grad_cam._scores import per_image
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

    @property
    def _asks(self) -> bool:
        return super()._asks or self._takes_tokens

    @property
    def _takes_tokens(self) -> bool:
        """Whether channels are taken out at all of the layer's tokens, a class token among them, as grad-cam does."""
        return self.upstream_exact and self._fold is not None

    def _weights(self, input_tensor: Tensor, target_layers: Any, targets: Any, activations: Any, grads: Any) -> Tensor:
        if not self._takes_tokens:
            return super()._weights(input_tensor, target_layers, targets, activations, grads)
        found: list[Tensor] = []

        def weigh(activations: Tensor, **values: Any) -> Tensor:
            found.append(_upstream.ablation_cam(activations, **values, channels=chosen))
            return activations.sum(1)

        ratio = self.ratio_channels_to_ablate
        chosen = [self.ablation_layer.activations_to_be_ablated(image, ratio) for image in np.asarray(activations)]
        method = replace(methods.get("ablation_cam"), function=weigh)
        explain = self._explainer(method, [target_layers], fold=self._channels_first)
        explain(input_tensor.detach(), per_image(targets, len(input_tensor)))
        return found[0]

    def _channels_first(self, returned: Tensor) -> Tensor:
        """What a layer returned as (B, C, N, 1), whatever it is: its tokens (B, N, C), say."""
        last = returned.ndim == 3
        return returned.movedim(-1 if last else self.ablation_layer.channel_dim, 1).flatten(2)[..., None]

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
