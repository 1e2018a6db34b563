"""What a model's first convolution tells about the images that it takes."""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy

from seewhy._torch import Convolution


def first_convolution(model: nn.Module) -> tuple[str, Convolution] | None:
    """Name and module of the first convolution in the order of registration, which is nearly always that of the run.

    None for a model without one, and for one whose weights are made by the first forward only.
    """
    for name, module in model.named_modules():
        if isinstance(module, Convolution):
            return None if is_lazy(module.weight) else (name, module)
    return None


def dimensions(layer: Convolution) -> int:
    """How many dimensions of space a convolution has: 1, 2 or 3."""
    return layer.weight.ndim - 2


def takes_signals(model: nn.Module) -> bool:
    """Whether a model begins with a convolution over one dimension, so that it takes signals (B, C, L)."""
    first = first_convolution(model)
    return first is not None and dimensions(first[1]) == 1
