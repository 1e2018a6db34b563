"""What a forward writes to the model's tensors: learned the first time, kept and put back every time.

A copy of all weights for each call would cost more than the call. So the first call on a model is watched: a copy is
made of a tensor just before something writes to it. Later calls copy what was written then, and compare the versions of
the others, which is as good as free. The next call is watched again when the weights have changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor, nn
from torch._ops import OpOverload, OpOverloadPacket
from torch.overrides import TorchFunctionMode

from seewhy import _torch
from seewhy.engine.randomness import RandomStates
from seewhy.engine.snapshot import Layout
from seewhy.hooks.nested import tensors as tensors_in
from seewhy.hooks.undo import undoing

_DENSE = (Tensor, nn.Parameter)
_VERSION: Any = Tensor._version.__get__  # type: ignore[attr-defined]
_SMALL = 4096  # elements: as cheap to copy as to think about
_LARGE = 2**20  # elements: a buffer with more is copied only when something is about to write to it

# functions that write to a tensor they are called with, or give access to its memory past its version
_WRITES = frozenset(("data", "numpy", "__array__", "__dlpack__", "untyped_storage", "storage", "__setitem__"))
_FLAGS = frozenset(("requires_grad_", "retain_grad", "_set_grad_enabled"))  # names that end like those of writes
_GRADIENTS = frozenset(("grad", "backward"))
_DRAWS = ("rand", "normal", "bernoulli", "dropout", "multinomial", "poisson", "binomial", "uniform", "exponential",
          "geometric", "cauchy", "gumbel", "rrelu", "fractional", "attention", "dirichlet", "gamma")  # fmt: skip


@dataclass
class Learned:
    """What earlier calls on one model have shown. Holds nothing of the model alive."""

    tensors: list[int] = field(default_factory=list)  # their ids at the end of the call that was watched last
    states: tuple[list[int | None], list[int]] = field(default_factory=lambda: ([], []))  # versions and places then
    written: set[int] = field(default_factory=set)  # ids of those that a forward wrote to
    backward: bool = False  # whether a forward wrote to gradients
    drew: set[str] = field(default_factory=set)  # libraries whose random numbers a forward drew
    dense: bool = False  # whether all are plain tensors
    layout: Layout | None = None
    whole: bool = False  # whether a forward has run to its end while it was watched


_learned: dict[int, tuple[ref[nn.Module], Learned]] = {}  # by id of the model


def learned_of(model: nn.Module) -> Learned:
    """The entry of `model`. (Of a `WeakKeyDictionary` the callbacks would swallow a Ctrl-C that comes inside one.)"""
    entry = _learned.get(id(model))
    if entry is not None and entry[0]() is model:
        return entry[1]
    for key, (known, _) in list(_learned.items()):
        if known() is None:
            _learned.pop(key, None)
    learned = Learned()
    _learned[id(model)] = ref(model), learned
    return learned


class _Kept(NamedTuple):
    tensor: Tensor
    version: int | None
    alias: Tensor  # shares memory with the tensor as it was found
    copy: Tensor

    def put_back(self) -> bool:
        """Put back the values and where they lie; whether they had changed."""
        dense = _is_dense(self.tensor)
        moved = self.tensor.shape != self.copy.shape or (dense and self.tensor.data_ptr() != self.alias.data_ptr())
        if moved:
            self.tensor.data = self.alias
        if _versions([self.tensor]) == [self.version] and (not dense or torch.equal(self.tensor, self.copy)):
            return moved
        with torch.inference_mode(self.tensor.is_inference()), torch.no_grad():  # written in its own mode only
            self.tensor.copy_(self.copy)
        return True


class Values:
    """The tensors of a model as they were found: values, places in memory, gradient flags.

    weights: what is copied only where a forward is known or seen to write to it. buffers: what is small enough to be
    copied while nothing is known. own: buffers of modules that are not torch's, copied always where they are small.
    """

    def __init__(
        self, weights: Sequence[Tensor], buffers: Sequence[Tensor], own: Sequence[Tensor], learned: Learned
    ) -> None:
        self.tensors = [*weights, *buffers, *own]
        self.learned = learned
        same = learned.tensors == list(map(id, self.tensors))
        # the place is asked of plain tensors only: it is an error, or a detour through Python, of others
        self._dense = self.tensors if same and learned.dense else list(filter(_is_dense, self.tensors))
        self._states = self._read()
        self._flags = [tensor.requires_grad for tensor in self.tensors]
        self._kept: dict[int, _Kept] = {}
        self._grads: list[tuple[Tensor, Tensor | None, Tensor | None]] = []
        self.watched = not (same and learned.whole and learned.states == self._states)
        if self.watched:
            for tensor in (*buffers, *own):
                if tensor.numel() <= _LARGE:
                    self.keep(tensor)
        else:
            for tensor in own:
                if tensor.numel() <= _SMALL:
                    self.keep(tensor)
            if learned.written:
                for tensor in self.tensors:
                    if id(tensor) in learned.written:
                        self.keep(tensor)
            if learned.backward:
                self.keep_gradients()

    def keep(self, tensor: Tensor) -> None:
        if id(tensor) not in self._kept:
            (version,) = _versions([tensor])
            self._kept[id(tensor)] = _Kept(tensor, version, tensor.detach(), tensor.detach().clone())

    def keep_gradients(self) -> None:
        if not self._grads:
            grads = [tensor.grad if tensor.is_leaf else None for tensor in self.tensors]
            self._grads = [
                (tensor, grad, None if grad is None else grad.detach().clone())
                for tensor, grad in zip(self.tensors, grads, strict=True)
                if tensor.is_leaf
            ]

    def _read(self) -> tuple[list[int | None], list[int]]:
        """Versions and places in memory: one of them changes with the values, unless these are written past both."""
        return _versions(self.tensors), list(map(Tensor.data_ptr, self._dense))

    def changed(self) -> bool:
        """Whether tensors were written to of which there is no copy."""
        versions, places = self._read()
        if (versions, places) == self._states:
            return False
        rewritten = zip(self.tensors, versions, self._states[0], strict=True)
        moved = zip(self._dense, places, self._states[1], strict=True)
        return any(now != before and id(tensor) not in self._kept for tensor, now, before in chain(rewritten, moved))

    def put_back(self) -> None:
        self.learned.written |= {id(kept.tensor) for kept in self._kept.values() if kept.put_back()}
        flags = [tensor.requires_grad for tensor in self.tensors]
        if flags != self._flags:
            for tensor, flag in zip(self.tensors, self._flags, strict=True):
                if tensor.requires_grad != flag:
                    (tensor if tensor.is_leaf else tensor.detach_()).requires_grad_(flag)
        for tensor, grad, copy in self._grads:
            if tensor.grad is not grad:
                tensor.grad = grad
                self.learned.backward = True
            if grad is not None and copy is not None and not torch.equal(grad, copy):
                with torch.no_grad():
                    grad.copy_(copy)
                self.learned.backward = True

    def learn(self, *, whole: bool) -> None:
        """Remember the tensors as they now are. `whole`: a forward ran to its end and was watched, or was known."""
        if not self.watched and not self._kept:  # nothing is new
            self.learned.whole = whole
            return
        self.learned.whole = whole
        self.learned.tensors, self.learned.states = list(map(id, self.tensors)), self._read()
        self.learned.dense = len(self._dense) == len(self.tensors)
        self.learned.written &= set(self.learned.tensors)


def _is_dense(tensor: Tensor) -> bool:
    return type(tensor) in _DENSE and tensor.layout is torch.strided


def _versions(tensors: Sequence[Tensor]) -> list[int | None]:
    try:
        return list(map(_VERSION, tensors))
    except RuntimeError:  # tensors made under inference_mode have none
        return [None if tensor.is_inference() else tensor._version for tensor in tensors]


@contextmanager
def watching(values: Values, states: RandomStates) -> Iterator[None]:
    """While the block lasts, what is about to be written to is kept, and what is drawn is noticed."""
    watch = _Watch(values, states)
    with undoing() as undo:
        undo.later(_torch.put_function_modes, _torch.function_modes())
        watch.__enter__()  # type: ignore[no-untyped-call]
        yield


class _Watch(TorchFunctionMode):
    """Sees every torch function of this thread before it runs."""

    def __init__(self, values: Values, states: RandomStates) -> None:
        super().__init__()
        self._values, self._states = values, states
        self._owners: dict[int, list[Tensor]] = {}  # by place of the memory
        for tensor in values.tensors:
            self._owners.setdefault(_memory(tensor), []).append(tensor)
        self._owners.pop(0, None)
        self._marks = states.marks()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__"):  # of an attribute such as `data`
            name = getattr(getattr(func, "__self__", None), "__name__", "")
        if name in _GRADIENTS:
            self._values.keep_gradients()
        elif _writes(func, name, kwargs):
            for tensor in tensors_in((args, kwargs)):
                for owner in self._owners.get(_memory(tensor), ()):
                    self._values.keep(owner)
        if self._states.alone:
            return func(*args, **kwargs)
        return self._noticing(name, func, args, kwargs)

    def _noticing(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        """Between two torch functions the model's code draws from numpy and Python; inside, other threads do."""
        states = self._states
        states.drew |= {library for library, mark in states.marks().items() if mark != self._marks[library]}
        before = torch.get_rng_state() if any(part in name for part in _DRAWS) else None
        output = func(*args, **kwargs)
        if before is not None and not torch.equal(before, torch.get_rng_state()):
            states.drew.add("torch")
        self._marks = states.marks()
        return output


def _memory(tensor: Tensor) -> int:
    """Where the storage of `tensor` begins; 0 if it has none."""
    return tensor.untyped_storage().data_ptr() if _is_dense(tensor) else 0


def _writes(func: Any, name: str, kwargs: dict[str, Any]) -> bool:
    if kwargs.get("out") is not None or kwargs.get("max_norm") is not None:
        return True
    if name in _WRITES or isinstance(func, OpOverload | OpOverloadPacket):
        return True
    return name.endswith("_") and not name.endswith("__") and name not in _FLAGS
