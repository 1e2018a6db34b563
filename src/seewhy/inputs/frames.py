"""Whether the second axis of five is that of channels or of frames: by what the first convolution is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from seewhy._torch import Convolution
from seewhy.hooks.activations import activation_in
from seewhy.hooks.attach import Passed, around


class _Enough(Exception):
    """The first convolution was reached: nothing after it is of interest."""


def has_frames_first(images: Tensor, run: Callable[[Tensor], Any], model: nn.Module) -> bool:
    """Whether images (B, M, N, H, W) are M frames of N channels, and no volumes of M channels.

    The first entry along M is changed, or the last. Where M are channels, the first convolution is given a tensor that
    has changed in some of its channels; where M are frames, in some of its images or slices, and there in any channel,
    or not at all.

    Args:
        images: the batch.
        run: runs the model on other images in place of these.
        model: what runs.
    """
    first = next((layer for layer in model.modules() if isinstance(layer, Convolution)), None)
    if first is None or (len(first.kernel_size) == 3 and first.in_channels == images.shape[1] != images.shape[2]):
        return False
    return any(_is_a_frame(entry, images, run, model) for entry in (0, -1))


def _is_a_frame(entry: int, images: Tensor, run: Callable[[Tensor], Any], model: nn.Module) -> bool:
    changed = images.clone()
    changed[:, entry] += 1
    given, other = (_given(model, run, batch) for batch in (images, changed))
    if given is None or other is None or given.shape != other.shape:
        return False
    apart = given != other
    if not bool(apart.any()):  # another frame came first
        return images.shape[1] > 1
    touched = [bool(apart.movedim(axis, 0).flatten(1).any(1).all()) for axis in range(given.ndim)]
    return touched[1] and not all(touched[:1] + touched[2:-2])


def _given(model: nn.Module, run: Callable[[Tensor], Any], images: Tensor) -> Tensor | None:
    """What the first convolution is given; None where there is none."""
    found: list[Tensor] = []

    def visit(_: str, passed: Passed) -> Any:
        given = activation_in(tuple(passed.values()))
        if given is not None and given.ndim > 3:
            found.append(given.detach().clone())
            raise _Enough
        return passed, lambda _: None

    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Convolution)}
    try:
        with torch.no_grad(), around(layers, visit):
            run(images)
    except _Enough:
        return found[0]
    return None
