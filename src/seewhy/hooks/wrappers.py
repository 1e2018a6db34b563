"""What stands around a model: compilation, data parallelism."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import nn

from seewhy import _torch
from seewhy.hooks.undo import Process, Undo, undoing

WRAPPED_AS = ("module", "_orig_mod")  # the names that wrappers have for what is inside


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside `torch.compile`, `DataParallel` and `DistributedDataParallel`."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(model, wrappers):
            model = model.module
        else:
            return model


@contextmanager
def eagerly() -> Iterator[None]:
    """While the block lasts nothing runs compiled: compiled code skips the hooks that came after it."""
    with undoing() as undo:
        eager_until(undo)
        yield


def eager_until(undo: Undo) -> None:
    """Nothing runs compiled until `undo` ends.

    torch keeps one stance for the whole process. The first block of all threads sets it and the last one puts it back,
    unless somebody else has set another one meanwhile.
    """
    if "torch._dynamo" in sys.modules:  # nothing can be compiled before this is imported
        block = object()
        undo.later(_Stance.release, block)
        _Stance.hold(block)


class _Stance:
    blocks: ClassVar[set[object]] = set()
    before: ClassVar[Any] = None  # the stance that the first block found; None while there is no block
    ours: ClassVar[Any] = None

    @classmethod
    def hold(cls, block: object) -> None:
        with Process.lock:
            cls.blocks.add(block)
            if cls.before is None:
                cls.ours = _torch.eager_stance()
                cls.before = _torch.stance()
            _torch.set_stance(cls.ours)

    @classmethod
    def release(cls, block: object) -> None:
        with Process.lock:
            cls.blocks.discard(block)
            if not cls.blocks and cls.before is not None:
                if _torch.stance() is cls.ours:
                    _torch.set_stance(cls.before)
                cls.before = cls.ours = None


def straight_until(undo: Undo) -> None:
    """Reentrant gradient checkpoints of this thread run straight through until `undo` ends.

    They run without a graph, and their backward pass answers for no tensor but their own inputs. torch looks for the
    function in one place of the whole process, where something stands meanwhile that leaves other threads alone.
    """
    block = object()
    undo.later(_Reentrant.release, block)
    _Reentrant.hold(block)


class _Reentrant:
    blocks: ClassVar[dict[object, int]] = {}  # -> the thread
    found: ClassVar[Any] = _torch.checkpointing.CheckpointFunction

    @classmethod
    def apply(cls, function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        if threading.get_ident() in list(cls.blocks.values()):
            return function(*args)
        return cls.found.apply(function, preserve, *args)

    @classmethod
    def hold(cls, block: object) -> None:
        with Process.lock:
            cls.blocks[block] = threading.get_ident()
            if _torch.checkpointing.CheckpointFunction is not cls:
                cls.found = _torch.checkpointing.CheckpointFunction
                _torch.checkpointing.CheckpointFunction = cls

    @classmethod
    def release(cls, block: object) -> None:
        with Process.lock:
            cls.blocks.pop(block, None)
            if not cls.blocks and _torch.checkpointing.CheckpointFunction is cls:
                _torch.checkpointing.CheckpointFunction = cls.found
