"""The linear classifier behind a global average, for CAM."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy.errors import MethodError
from seewhy.hooks.attach import after_forward


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers of a model by name, convolutions of a single pixel among them."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d | nn.Conv3d) and {*module.kernel_size} == {1})
    }


@contextmanager
def inputs_of(linear: Mapping[str, nn.Module]) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """While the block lasts, each layer of `linear` that is handed one vector per image is kept with it: (B, C)."""
    kept: list[tuple[nn.Module, Tensor]] = []

    def keep(name: str, args: tuple[Any, ...], _: Any) -> None:
        if args and isinstance(args[0], Tensor) and args[0].numel() == math.prod(args[0].shape[:2]):
            kept.append((linear[name], args[0].detach().flatten(1)))

    with after_forward(linear, keep):
        yield kept


def classifier_weights(
    kept: Sequence[tuple[nn.Module, Tensor]],
    layer: str,
    activations: Float[Tensor, "B C *space"],
    selectors: Float[Tensor, "B K"],
) -> Float[Tensor, "B C"]:
    """The weight of each channel for the score: `selectors` (dS/dlogits) times the classifier's weight matrix.

    The classifier is the linear layer that was handed the global average of `activations` and gives the K logits.
    Raises `MethodError` if there is none: then the method's premise does not hold.
    """
    pooled = activations.flatten(2).mean(-1)
    for module, given in kept:
        weight = module.weight
        if not isinstance(weight, Tensor) or weight.flatten(1).shape != (selectors.shape[1], pooled.shape[1]):
            continue
        rounding = torch.finfo(given.dtype).eps ** 0.75 * pooled.abs().amax()
        if given.shape == pooled.shape and bool(((given.to(pooled) - pooled).abs() <= rounding).all()):
            return selectors.to(pooled) @ weight.detach().flatten(1).to(pooled)
    raise MethodError(
        "cam needs a global average of the layer followed by one linear layer that gives the class scores.",
        got=f"{layer}, whose average no linear layer is given",
        do='method="grad_cam", which is the same where cam applies, or layers= the one before the global average',
    )
