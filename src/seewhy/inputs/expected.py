"""What a model's first layer tells about the images or signals that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
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


class Taken(NamedTuple):
    """How a model takes signals, which have fewer dimensions than images.

    Attributes:
        rank: how many dimensions a batch has.
        channel_axis: where the channels are; None where a batch has no such axis.
    """

    rank: int
    channel_axis: int | None


_SOUNDS = ("input_values", "input_features")  # what transformers' models of sound call what they take


def signals(model: nn.Module, tensors: Sequence[Tensor]) -> Taken | None:
    """How a model takes signals, by the layer that it begins with; None for a model of images.

    A 1-D convolution takes (B, C, L), and a model that begins with one perhaps (B, L, C), or waves (B, L): that shows
    in the number of channels. transformers' models of sound add the channel themselves: theirs are waves (B, L)
    and spectrograms (B, time, frequency). A linear or recurrent layer of C, in a model without convolutions, takes
    (B, L, C): such a model is known only by the inputs, as one of images could begin alike.

    Args:
        model: what is to be called.
        tensors: of floats, among the inputs.
    """
    if first := first_convolution(model):
        layer, dims = first[1], dimensions(first[1])
        if layer.in_channels == 1 and dims < 3 and getattr(model, "main_input_name", "") in _SOUNDS:
            return Taken(dims + 1, None)
        return _by_width(layer.in_channels, tensors) if dims == 1 else None
    if any(isinstance(module, Convolution) for module in model.modules()):
        return None
    width = next(filter(None, map(_width, model.modules())), None)
    return Taken(3, 2) if any(tensor.ndim == 3 and tensor.shape[2] == width for tensor in tensors) else None


def _by_width(width: int, tensors: Sequence[Tensor]) -> Taken:
    """How a model takes signals that begins with a 1-D convolution of so many channels: it may lay them out itself."""
    shapes = [tensor.shape for tensor in tensors]
    if any(len(shape) == 3 and shape[1] == width for shape in shapes):
        return Taken(3, 1)
    if any(len(shape) == 3 and shape[2] == width for shape in shapes):
        return Taken(3, 2)
    waves = width == 1 and not any(len(shape) == 3 for shape in shapes) and any(len(shape) == 2 for shape in shapes)
    return Taken(2, None) if waves else Taken(3, 1)


def _width(module: nn.Module) -> int | None:
    """How many numbers a layer takes at each step of a series."""
    if isinstance(module, nn.RNNBase):
        return int(module.input_size) if module.batch_first else None
    return module.in_features if isinstance(module, nn.Linear) else None
