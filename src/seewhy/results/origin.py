"""What an explanation was made of, without keeping model and inputs alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor

from seewhy.errors import InputError
from seewhy.hooks.nested import leaves, rebuild
from seewhy.methods.registry import Method


class Origin:
    """The model and the inputs of an explanation, held weakly: they go when the caller lets go of them.

    Copies share it. Pickled, it is empty.

    Args:
        model: what was explained.
        inputs: as the caller passed them.
        batch: how many images they are.
        method: with the options that it was given.
    """

    def __init__(self, model: Any, inputs: Any, batch: int, method: Method) -> None:
        self._model: Callable[[], Any] = weakref.ref(model)
        self._inputs = rebuild(inputs, weakref.ref)
        self._batch = batch
        self.method = method
        self._cuts: tuple[slice, ...] = ()

    def cut(self, rows: slice) -> Origin:
        """The origin of a part of the images."""
        found = object.__new__(Origin)
        found._model, found._inputs, found._batch = self._model, self._inputs, self._batch
        found._cuts = (*self._cuts, rows)
        found.method = self.method
        return found

    def model(self) -> Any:
        """The model, if it is still there.

        Raises:
            InputError: if it is gone.
        """
        found = self._model()
        if found is None:
            raise _gone("model")
        return found

    def inputs(self) -> Any:
        """The inputs, if all of their tensors are still there.

        Raises:
            InputError: if one is gone.
        """
        if any(kept() is None for kept in leaves(self._inputs, weakref.ref)):
            raise _gone("inputs")

        def part(kept: Callable[[], Tensor]) -> Tensor:
            tensor, batch = kept(), self._batch
            for rows in self._cuts:
                if tensor.ndim and len(tensor) == batch:
                    tensor = tensor[rows]
                batch = len(range(batch)[rows])
            return tensor

        found = rebuild(self._inputs, part, weakref.ref)
        if self._cuts and isinstance(found, list) and len(found) == self._batch:  # a list of images
            for rows in self._cuts:
                found = found[rows]
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return _empty, ()


def _empty() -> None:
    """What is left of an origin in a pickle."""


def _gone(what: str) -> InputError:
    return InputError(
        f"nothing else keeps the {what} of this explanation, and so it is gone.",
        expected="what was explained",
        do=f"explanation.check({what}={what})",
    )
