"""The random states that a whole process shares: torch's, numpy's and Python's."""

from __future__ import annotations

import ctypes
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Stream(NamedTuple):
    """One of them. `moved` says whether numbers were drawn since a state was read."""

    library: str
    read: Callable[[], Any]
    moved: Callable[[Any], bool]
    write: Callable[[Any], None]


class RandomStates:
    """The states as they were found, to be put back where the model drew from them.

    A state does not tell who drew. In a process with one thread it was the model. Otherwise `drew` says so (the
    libraries that a model is known to draw from): numbers that other threads draw meanwhile are not rewound.
    """

    def __init__(self, devices: Iterable[torch.device], drew: set[str]) -> None:
        self.alone = threading.active_count() == 1
        self.drew = drew
        self._found = [(stream, stream.read()) for stream in (*_STREAMS, *map(_cuda, devices))]
        # a normal number that numpy drew with the last one: to take it moves nothing else, and to look for it is slow
        self._normal_in_store = any(s.library == "numpy" and found[1]["has_gauss"] for s, found in self._found)

    def marks(self) -> dict[str, Any]:
        """By library, something cheap that differs from an earlier one if numbers were drawn from numpy or Python."""
        in_store = self._normal_in_store and np.random.get_state(legacy=False)["has_gauss"]
        return {"numpy": (_numpy_mark(), in_store), "python": random.getstate()}

    def put_back(self) -> None:
        for stream, state in self._found:
            if (self.alone or stream.library in self.drew) and stream.moved(state):
                self.drew.add(stream.library)
                stream.write(state)


def _torch_moved(state: Tensor) -> bool:
    return not torch.equal(torch.get_rng_state(), state)


def _numpy_mark() -> Any:
    """The memory of the Mersenne twister (624 words and a position): to ask for its state takes 100 times as long."""
    generator: Any = np.random.get_bit_generator()  # type: ignore[attr-defined]
    if type(generator) is np.random.MT19937:
        return ctypes.string_at(generator.ctypes.state_address, 625 * 4)
    return repr(generator.state)


def _numpy_read() -> Any:
    return _numpy_mark(), np.random.get_state(legacy=False)


def _numpy_moved(read: Any) -> bool:
    mark, state = read
    if state["has_gauss"] and not np.random.get_state(legacy=False)["has_gauss"]:  # the normal number in store is gone
        return True
    return bool(_numpy_mark() != mark)


_STREAMS = (
    Stream("torch", torch.get_rng_state, _torch_moved, torch.set_rng_state),
    Stream("numpy", _numpy_read, _numpy_moved, lambda read: np.random.set_state(read[1])),
    Stream("python", random.getstate, lambda state: random.getstate() != state, random.setstate),
)


@contextmanager
def seeded(number: int) -> Iterator[None]:
    """While the block lasts, the process draws from this seed; afterwards from where it was."""
    found = [(stream, stream.read()) for stream in _STREAMS]
    try:
        torch.default_generator.manual_seed(number)
        np.random.seed(number % 2**32)
        random.seed(number)
        yield
    finally:
        for stream, state in found:
            stream.write(state)


def _cuda(device: torch.device) -> Stream:
    def read() -> Tensor:
        return torch.cuda.get_rng_state(device)

    def write(state: Tensor) -> None:
        torch.cuda.set_rng_state(state, device)

    return Stream("torch", read, lambda state: not torch.equal(read(), state), write)
