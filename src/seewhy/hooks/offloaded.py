"""Weights that are not in memory: accelerate brings those of an offloaded layer for the length of its forward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def in_memory(module: nn.Module) -> Iterator[None]:
    """The weights of a layer can be read in here, as in its own forward.

    Args:
        module: any layer. Nothing happens where its weights are in memory.
    """
    hook: Any = getattr(module, "_hf_hook", None)
    tensors = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    if hook is None or not any(tensor.is_meta for tensor in tensors):
        yield
        return
    hook.pre_forward(module)
    try:
        yield
    finally:
        hook.post_forward(module, None)
