"""The kernels of a model's convolutions."""

from __future__ import annotations

from torch import Tensor, nn

from seewhy.errors import LayerError
from seewhy.hooks.select import Layers, find
from seewhy.hooks.wrappers import unwrap


def kernels(model: nn.Module, layers: Layers | None = None) -> dict[str, Tensor]:
    """The kernels of convolutions over images or volumes. The model does not run.

    Args:
        model: any module.
        layers: names, patterns, modules, types, or a list of them. None is the first convolution among the modules.

    Returns:
        For each layer its weight without a gradient, (out, in, *kernel). It shares its memory with the model.

    Raises:
        LayerError: if a layer does not exist or has no kernels, or if the model has no convolution.
    """
    model = unwrap(model)
    modules = _first_convolution(model) if layers is None else find(model, layers)
    found = {}
    for name, module in modules.items():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim < 4:
            raise LayerError(
                f"{name} has no kernels.", got=type(module).__name__, expected="a convolution of images or volumes"
            )
        found[name] = weight.detach()
    return found


def _first_convolution(model: nn.Module) -> dict[str, nn.Module]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            return {name: module}
    raise LayerError("this model has no convolution.", got=type(model).__name__, do="pass layers=")
