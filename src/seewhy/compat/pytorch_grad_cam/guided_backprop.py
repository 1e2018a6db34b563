"""Guided backpropagation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function

from seewhy.compat.pytorch_grad_cam.base_cam import Array
from seewhy.explainer import Explainer
from seewhy.methods import Method


class GuidedBackpropReLU(Function):
    """A ReLU whose gradient is cut at zero on its way back: `GuidedBackpropReLU.apply(x)`, for a model of one's own."""

    @staticmethod
    def forward(ctx: Any, input_img: Tensor) -> Tensor:
        ctx.save_for_backward(input_img)
        return input_img.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        (input_img,) = ctx.saved_tensors
        return torch.where(input_img > 0, grad_output.clamp(min=0), 0)


class GuidedBackpropReLUasModule(nn.Module):
    """The same as a module, to put in the place of `nn.ReLU`."""

    def forward(self, input_img: Tensor) -> Tensor:
        found: Tensor = GuidedBackpropReLU.apply(input_img)
        return found


class GuidedBackpropReLUModel:
    """Gradients at the input, cut at zero before every activation function on their way back (Springenberg 2015).

    The functions are found in the graph, whatever called them: `nn.ReLU`, `F.relu`, GELU, SiLU. grad-cam exchanges
    modules of type `nn.ReLU`, and gives the plain gradient of all others.
    """

    def __init__(self, model: nn.Module, device: torch.device | str | None = None) -> None:
        self.model = model if device is None else model.to(device)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def forward(self, input_img: Tensor) -> Tensor:
        """What the model returns."""
        found: Tensor = self.model(input_img)
        return found

    def __call__(self, input_img: Tensor, target_category: int | Sequence[int] | None = None) -> Array:
        """The gradient (H, W, C) for one image, (B, H, W, C) for several, where grad-cam gives that of the first.

        target_category: the class, or one per image; None is the predicted one of each.
        """
        explanation = Explainer(self.model, _GRADIENTS)(input_img.to(self.device), target_category)
        (found,) = explanation.maps.values()
        pixels = found.movedim(1, -1).cpu().numpy()
        return pixels[0] if len(pixels) == 1 else pixels


def _by_colour(guided_gradients: Float[Tensor, "B C *size"]) -> Float[Tensor, "B C *size"]:
    return guided_gradients


_GRADIENTS = Method("guided_backprop", "pixel", _by_colour, ("guided_gradients",), "arXiv:1412.6806", "")
