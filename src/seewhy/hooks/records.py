"""What a capture keeps: one record for each call of a layer."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from seewhy import _torch
from seewhy.errors import GradientError, InputError, LayerError
from seewhy.hooks.nested import is_continuous, rebuild
from seewhy.hooks.select import within

Copy = bool | Literal["auto"]


@dataclass(eq=False)
class Slot:
    """The place of one tensor in what is kept: its value, and its version where nothing keeps it from changing."""

    value: Any = None
    version: int | None = None
    bytes: int = 0

    def read(self) -> Any:
        if self.version is not None and self.value._version != self.version:
            raise InputError(
                "a captured tensor was overwritten by an in-place operation after it was captured.",
                got=f"shape {tuple(self.value.shape)}, written to {self.value._version - self.version} times",
                do='pass copy="auto" or copy=True to capture',
            )
        return self.value


@dataclass(eq=False)
class Record:
    """One call of one layer. What was not asked for, or did not come about, is an error when it is read."""

    name: str
    number: int  # of the call, among the calls of this layer
    kept: dict[str, Any] = field(default_factory=dict, repr=False)
    ambiguous: bool = field(default=False, repr=False)  # a checkpoint repeated this call or another one

    @property
    def inputs(self) -> dict[int | str, Any]:
        """What the layer was passed, by position (0, 1, ...) or keyword."""
        found: dict[int | str, Any] = self._read("inputs")
        return found

    @property
    def outputs(self) -> Any:
        """What the layer returned, in its own nesting."""
        return self._read("outputs")

    @property
    def grad_inputs(self) -> dict[int | str, Any]:
        """The gradient at each tensor of `inputs`, through this call alone; None where there is none."""
        found: dict[int | str, Any] = self._read("grad_inputs")
        return found

    @property
    def grad_outputs(self) -> Any:
        """The gradient at each tensor of `outputs`; None where there is none."""
        return self._read("grad_outputs")

    @property
    def _layer(self) -> str:
        return self.name or "the model"

    def _read(self, what: str) -> Any:
        if what not in self.kept:
            raise LayerError(
                f"call {self.number} of {self._layer} has no {what}.",
                got=f"{', '.join(self.kept) or 'nothing'}: no more was asked for, or the call did not return",
                do=f'pass what=("{what}",) to capture',
            )
        slots: list[Slot] = []
        rebuild(self.kept[what], slots.append, Slot)
        if what.startswith("grad_") and all(slot.value is None for slot in slots):
            raise self._no_gradient(what)
        return rebuild(self.kept[what], Slot.read, Slot)

    def _no_gradient(self, what: str) -> GradientError:
        if self.ambiguous:
            return GradientError(
                f"the {what} of call {self.number} of {self._layer} cannot be told from those of its other calls.",
                got="a layer called several times under gradient checkpointing with use_reentrant=True",
                do="pass use_reentrant=False to torch.utils.checkpoint",
            )
        return GradientError(
            f"no gradient has reached the {what.removeprefix('grad_')} of call {self.number} of {self._layer}.",
            expected="a backward pass over a forward that ran inside the block with gradients on",
            do="call backward() before reading; look for no_grad, detach() or frozen weights before the layer",
        )


class Records(dict[str, list[Record]]):
    """The calls of each layer that ran, by layer name; both layers and calls in the order in which they began.

    A shared layer has one entry, under the first of its names; `records[...]` knows it by all of them.
    """

    def __init__(self, chosen: Iterable[str], names: Mapping[str, str]) -> None:
        super().__init__()
        self.chosen = tuple(chosen)
        self.names = names
        self.calls: list[Record] = []

    def __missing__(self, name: str) -> list[Record]:
        first = self.names.get(name, self.names.get(within(name), name))
        if first in self:
            return self[first]
        if first in self.chosen:
            raise LayerError(f"{name} has not run.", got=f"calls of {', '.join(self) or 'no layer'}")
        raise LayerError(f"{name!r} was not chosen.", expected=", ".join(self.chosen))

    def begin(self, name: str) -> Record:
        """A new record, the last of its layer."""
        calls = self.setdefault(name, [])
        calls.append(record := Record(name, len(calls)))
        self.calls.append(record)
        return record


@dataclass
class Keeping:
    """How tensors are kept, which are options of `capture`, and how many bytes are."""

    detach: bool
    device: torch.device | str | None
    copy: Copy
    reduce: Callable[[Tensor], Any] | None
    max_bytes: int | None
    bytes: int = 0
    latest: tuple[weakref.ref[Tensor] | None, int, Any] = (None, 0, None)  # the last tensor reduced, and to what
    lock: threading.Lock = field(default_factory=threading.Lock)  # several threads may be recorded

    @property
    def hands_on_copies(self) -> bool:
        """Whether what is kept is the tensor in the graph itself, so that in-place operations need another."""
        return not self.detach and self.reduce is None and self.copy is not False

    def copied(self, tensor: Tensor) -> Tensor:
        return tensor.clone() if self.copy is True else lazy_copy(tensor)

    def fill(self, slot: Slot, tensor: Tensor) -> Slot:
        """Put `tensor` into `slot`: reduced, moved and copied as asked, and counted."""
        value = tensor.detach() if self.detach else tensor
        if self.reduce is not None and is_continuous(tensor):
            value = self._reduced(self.reduce, value, tensor)
        size = value.numel() * value.element_size() if isinstance(value, Tensor) else 0
        self._count(size - slot.bytes)
        slot.value, slot.version, slot.bytes = value, None, size
        if not isinstance(value, Tensor):
            return slot
        if self.device is not None and value.device != torch.device(self.device):
            slot.value = value.to(self.device)
        elif self.copy is False or recorded(value):
            slot.version = None if value.is_inference() else value._version
        else:
            slot.value = self.copied(value)
        return slot

    def _reduced(self, reduce: Callable[[Tensor], Any], value: Tensor, passing: Tensor) -> Any:
        """A block and its last layer mostly return one tensor: it is reduced once."""
        if passing.is_inference():
            return reduce(value)
        latest, version, reduced = self.latest
        if latest is None or latest() is not passing or version != passing._version:
            reduced = reduce(value)
            self.latest = weakref.ref(passing), passing._version, reduced
        return reduced

    def _count(self, size: int) -> None:
        with self.lock:
            self.bytes += size
            total = self.bytes
        if self.max_bytes is not None and total > self.max_bytes:
            raise InputError(
                "the capture holds more than it may.",
                got=f"{total:,} bytes",
                expected=f"max_bytes={self.max_bytes:,}",
                do='choose fewer layers, keep less with reduce=, or move it with device="cpu"',
            )


def recorded(tensor: Tensor) -> bool:
    """Whether autograd records what is done with `tensor` now."""
    return tensor.requires_grad and torch.is_grad_enabled()


def lazy_copy(tensor: Tensor) -> Tensor:
    """A copy that costs nothing until one of the two is written to: torch's copy-on-write storage does the detecting.

    Memory that is not torch's own (from numpy, or shared between processes) cannot be watched, and is copied at once.
    """
    try:
        return _torch.lazy_clone(tensor)
    except RuntimeError:
        return tensor.clone()
