"""What is often passed to a model by mistake, and the line that mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from seewhy.errors import InputError, InputTypeError, SeewhyError
from seewhy.hooks.nested import children, described
from seewhy.inputs.adapters import Listed
from seewhy.inputs.expected import dimensions, first_convolution

if TYPE_CHECKING:
    from seewhy.inputs.call import Inputs

_SPACE = {1: "L", 2: "H, W", 3: "D, H, W"}
_CHANNELS = (1, 3, 4)
_PREPARE = "preprocess = seewhy.models.Preprocess(...), as the model was trained; {}; or pass a model from seewhy.load"


def _of_array(array: NDArray[Any]) -> str:
    return _line("torch.from_numpy({})", array.shape, "uint8" if array.dtype == np.uint8 else str(array.dtype))


def _of_names(_: object) -> str:
    return _PREPARE.format("torch.stack([preprocess(name) for name in names])")


# what was passed: its type, what to call it, and what to do
_MISTAKES: tuple[tuple[type | tuple[type, ...], str, Callable[[Any], str]], ...] = (
    (np.ndarray, "a numpy array is not a tensor", _of_array),
    (Image.Image, "a PIL image is not a tensor", lambda _: _PREPARE.format("preprocess(photo)[None]")),
    ((str, Path), "a file name is not a tensor", _of_names),
    (DataLoader, "a DataLoader holds many batches", lambda _: "for images, labels in loader: explain(model, images)"),
    (Dataset, "a data set holds many images", lambda _: "image, label = dataset[0]; explain(model, image[None])"),
    (Iterator, "an iterator holds many batches", lambda _: "images = next(iterator); explain(model, images)"),
)


def refusal(inputs: Any) -> SeewhyError:
    """The error for inputs without an image: it names the mistake and the line that mends it.

    Args:
        inputs: what the caller passed, in which no batch of images was found.
    """
    if isinstance(inputs, Tensor) and inputs.ndim == 3:
        return InputError(
            "the input has no batch dimension.",
            got=f"a tensor of shape {tuple(inputs.shape)}",
            expected="(B, C, H, W) or (B, C, D, H, W); signals (B, C, L) where the model begins with a 1-D "
            "convolution, (B, L, C) where it begins with a linear or recurrent layer of C",
            do=f"for a single image pass {_line('{}', inputs.shape, _dtype(inputs))}; for signals wrap the model in a "
            "module that takes (B, C, 1, L) and passes images[:, :, 0] on",
        )
    entries = [inputs, *(value for _, value in children(inputs)), *_inside(inputs)]
    for entry in entries:
        for kind, problem, do in _MISTAKES:
            if isinstance(entry, kind):
                processed = isinstance(inputs, Mapping) and kind is np.ndarray
                return InputTypeError(
                    f"there is no image among the inputs: {problem}.",
                    got=_described(inputs),
                    expected="tensors (B, C, H, W) or (B, C, D, H, W)",
                    do="processor(images, return_tensors='pt')" if processed else do(entry),
                )
    return InputTypeError(
        "there is no image among the inputs.",
        got=_described(inputs),
        expected="(B, C, H, W), (B, C, D, H, W), a list of (C, H, W), or a tuple or dict that holds one",
        do="pass image[None] for a single image; put a model of patches or colours into a module that is given the "
        "image and makes them",
    )


def note(call: Inputs, model: nn.Module, error: Exception) -> str | None:
    """A remark to add to what the model raised, where the images are not what its first convolution takes.

    Args:
        call: the call that raised.
        model: the model that was called.
        error: what it raised.

    Returns:
        What was passed, what is expected, and what to do; None where nothing is amiss, so that errors of other causes
        stay as they are.
    """
    if call.args and isinstance(call.args[0], list) and isinstance(error, TypeError | AttributeError):
        do = "torch.stack(images)" if isinstance(call.args[0], Listed) else "pass a tuple for several arguments"
        return f"seewhy: the model was given a list.\n  got: {_described(call.args[0])}\n  do: {do}"
    batch = call.images if isinstance(call.images, Tensor) else call.images[0][None]
    found = first_convolution(model)
    steps_first = call.channel_axis == 2 and found is not None and dimensions(found[1]) == 1
    batch = batch if steps_first else call.channels_first(batch)  # the model did not lay them out itself
    weight = found[1].weight if found else next((p for p in model.parameters() if p.is_floating_point()), None)
    if weight is None:
        return None
    taken = f"{_dtype(weight)} on {weight.device}"
    advice = []
    if found is not None:
        name, layer = found
        taken = f"(B, {layer.in_channels}, {_SPACE[dimensions(layer)]}), {taken}, by its first convolution, {name!r}"
        if batch.ndim != layer.weight.ndim:
            advice.append(f"pass {layer.weight.ndim} dimensions")
        elif batch.shape[1] != layer.in_channels:
            advice.append(_to_channels(batch.shape, layer.in_channels))
    if batch.dtype != weight.dtype and not batch.is_floating_point():
        advice.append("images.float() / 255, normalised as the model was trained")
    elif batch.dtype != weight.dtype:
        advice.append(f"images.to({weight.dtype}), or model.to({batch.dtype})")
    if batch.device != weight.device:
        advice.append(f"images.to({str(weight.device)!r})")
    if not advice:
        return None
    got = f"{tuple(batch.shape)}, {_dtype(batch)} on {batch.device}"
    return f"seewhy: the images are not what the model takes.\n  got: {got}\n  expected: {taken}\n  do: " + "; ".join(
        advice
    )


def _to_channels(shape: tuple[int, ...], channels: int) -> str:
    """The line that gives a batch (B, C, *space) so many channels."""
    if shape[-1] == channels:
        return f"images.movedim(-1, 1): the channels come before {_SPACE[len(shape) - 2]}"
    if (shape[1], channels) == (1, 3):
        return "images.expand(-1, 3, *images.shape[2:]), which repeats the grey levels"
    if (shape[1], channels) == (4, 3):
        return "images[:, :3], which leaves out the opacity"
    if (shape[1], channels) == (3, 1):
        return "images.mean(1, keepdim=True), or the grey levels that the model was trained on"
    return f"pass {channels} channels, not {shape[1]}"


def _line(make: str, shape: tuple[int, ...], dtype: str) -> str:
    """The line that makes a batch of floats (B, C, H, W) of an image, or of images, of this shape."""
    single = len(shape) < 4
    line = make.format("image" if single else "images")
    if len(shape) > 2 and shape[-1] in _CHANNELS and shape[-3] not in _CHANNELS:
        line += ".movedim(-1, -3)"
    line += "[None, None]" if len(shape) == 2 else "[None]" if single else ""
    if dtype == "uint8":
        return line + ".float() / 255, normalised as the model was trained"
    return line + (".float()" if dtype == "float64" else "")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _inside(inputs: Any) -> list[Any]:
    """What is in the lists and mappings one level down."""
    return [value for _, child in children(inputs) for _, value in children(child)]


def _described(inputs: Any) -> str:
    if isinstance(inputs, np.ndarray):
        return f"an array of shape {inputs.shape} and type {inputs.dtype}"
    if isinstance(inputs, Listed):
        return f"{len(inputs)} tensors, the first of shape {tuple(inputs[0].shape)}"
    return described(inputs) if children(inputs) or isinstance(inputs, Tensor) else type(inputs).__name__
