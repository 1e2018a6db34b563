"""Leave the model, the random state and autograd's switches exactly as they were found."""

from __future__ import annotations

import operator
import random
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from seewhy._torch import NormBase
from seewhy.hooks.wrappers import eagerly

_CONTAINERS = (dict, OrderedDict, list, set)  # attributes that a forward may fill
_HOOKS = frozenset(name for name in nn.Module().__dict__ if "hooks" in name)
# the first forward of a transformers model attaches its own hooks, for good; forgotten, it would attach them again
_HOOKED = "_output_capturing_hooks_installed"
_CHECKPOINTING = ("grad_checkpointing", "gradient_checkpointing")  # timm's flag, transformers' flag

_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_locks_lock = threading.Lock()


@contextmanager
def guard(model: nn.Module) -> Iterator[None]:
    """Inside the block `model` is in eval mode and runs eagerly; afterwards nothing shows that it ran.

    Kept: each module's attributes (train/eval flags among them), its buffers' values, the random states of torch,
    numpy and Python, autocast's weight cache. Gradients can be recorded inside, whatever the caller's mode. Calls on
    models that share a module take turns.
    """
    with ExitStack() as stack:
        stack.enter_context(_turn(model))
        stack.enter_context(_random_state(model))
        stack.enter_context(_autocast_cache())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(eagerly())
        stack.enter_context(_as_found(model))
        for module in model.modules():
            _quieten(module)
        yield


@contextmanager
def _turn(model: nn.Module) -> Iterator[None]:
    """Hold the lock of every module, always in the same order, so that models that share a part cannot deadlock."""
    with _locks_lock:
        locks = [_locks.setdefault(module, threading.RLock()) for module in sorted(model.modules(), key=id)]
    with ExitStack() as stack:
        for lock in locks:
            stack.enter_context(lock)
        yield


@contextmanager
def _random_state(model: nn.Module) -> Iterator[None]:
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device.index for device in devices]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)


@contextmanager
def _autocast_cache() -> Iterator[None]:
    """A weight cast without a graph must not wait in the cache for the caller's next training step."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)


@contextmanager
def _as_found(model: nn.Module) -> Iterator[None]:
    before = [(module, _snapshot(module)) for module in model.modules()]
    try:
        yield
    finally:
        for module, snapshot in before:
            _restore(module, *snapshot)


@dataclass(frozen=True)
class _Buffer:
    tensor: Tensor
    version: int | None
    copy: Tensor

    @classmethod
    def of(cls, tensor: Tensor) -> _Buffer:
        return cls(tensor, None if tensor.is_inference() else tensor._version, tensor.detach().clone())

    def restore(self) -> None:
        if self.version is None or self.tensor._version != self.version:
            with torch.inference_mode(self.version is None):  # such a tensor is written to in its own mode only
                self.tensor.copy_(self.copy)


def _snapshot(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any], list[_Buffer]]:
    """Attributes, copies of those that are containers, and copies of the buffers that an eval forward might write to.

    Hook tables are left alone: every hook of ours removes itself, and another thread may be adding its own.
    """
    attributes = dict(module.__dict__)
    contents = {
        name: value.copy() for name, value in attributes.items() if type(value) in _CONTAINERS and name not in _HOOKS
    }
    # torch's own normalisation layers write to their buffers in train mode only, and are many
    buffers = [] if isinstance(module, NormBase) else [b for b in module._buffers.values() if b is not None]
    return attributes, contents, [_Buffer.of(buffer) for buffer in buffers]


def _restore(module: nn.Module, attributes: dict[str, Any], contents: dict[str, Any], buffers: list[_Buffer]) -> None:
    now = module.__dict__
    if not _same(now, attributes):
        for name in now.keys() - attributes.keys() - {_HOOKED}:
            del now[name]
        now.update(attributes)
    for name, content in contents.items():
        if not _same(attributes[name], content):
            _refill(attributes[name], content)
    for buffer in buffers:
        buffer.restore()


def _same(container: Any, content: Any) -> bool:
    """Whether both hold the very same objects. What did not change is not written to: another thread may be reading."""
    if len(container) != len(content):
        return False
    if isinstance(container, dict):
        same_values = all(map(operator.is_, container.values(), content.values()))
        return same_values and container.keys() == content.keys()
    return container == content if isinstance(container, set) else all(map(operator.is_, container, content))


def _refill(container: Any, content: Any) -> None:
    container.clear()
    if isinstance(container, list):
        container.extend(content)
    else:
        container.update(content)


def _quieten(module: nn.Module) -> None:
    """Eval mode, eager, no checkpointing, nothing that autograd refuses; `_as_found` undoes all of it.

    The flag is set directly: `eval()` may be overridden, and then does more than set flags (merge adapters, say).
    """
    module.training = False
    if getattr(module, "_compiled_call_impl", None) is not None:
        module._compiled_call_impl = None
    for flag in _CHECKPOINTING:
        if module.__dict__.get(flag):
            setattr(module, flag, False)
    tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
    for table in tables:
        for name, tensor in table.items():
            if tensor is not None and tensor.is_inference():  # made under inference_mode: autograd cannot save it
                copy = tensor.clone()
                table[name] = nn.Parameter(copy, requires_grad=False) if table is module._parameters else copy
