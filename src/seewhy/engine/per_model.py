"""What is worked out once for a model is kept as long as the model, and no longer."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from torch import nn

Value = TypeVar("Value")


class PerModel(Generic[Value]):
    """A value for each model, dropped when the model's modules are exchanged.

    The models are held weakly. A dead model is forgotten at the next call, not by a callback: Python swallows an
    interrupt that arrives inside a callback of a weak reference.
    """

    def __init__(self, make: Callable[[], Value]) -> None:
        self._make = make
        self._kept: dict[int, tuple[weakref.ref[nn.Module], tuple[Any, ...], Value]] = {}

    def of(self, model: nn.Module) -> Value:
        """The value of `model`: the kept one, or a new one."""
        structure = tuple(map(id, model.modules()))
        reference, known, value = self._kept.get(id(model), (None, (), None))
        if reference is not None and reference() is model and known == structure:
            assert value is not None
            return value
        made = self._make()
        alive = {key: kept for key, kept in list(self._kept.items()) if kept[0]() is not None}
        alive[id(model)] = weakref.ref(model), structure, made
        self._kept = alive
        return made
