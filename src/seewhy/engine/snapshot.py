"""What Python objects a model holds, and what is in them: kept before a forward, put back after it."""

from __future__ import annotations

import operator
import pickle
import random
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

_HOOKS = frozenset(name for name in nn.Module().__dict__ if "hooks" in name)
_OWN = _HOOKS | {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"}  # tables of every module
_TABLES = operator.attrgetter("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
# the first forward of a transformers model attaches its own hooks, for good; forgotten, it would attach them again
_HOOKED = "_output_capturing_hooks_installed"
_FIXED = frozenset(
    (bool, int, float, complex, str, bytes, type(None), type, range, slice)
    + (torch.Size, torch.dtype, torch.device, torch.layout, torch.memory_format)
    + (FunctionType, BuiltinFunctionType, MethodType, ModuleType)
    + (weakref.ref, weakref.ProxyType, weakref.CallableProxyType)
)
_LONG = 100_000  # entries: a container with more is kept, but not what is in its entries
_LARGE = 2**24  # bytes: an array with more is not kept
# other threads work with such objects, and what they put in must not be taken out again
_SHARED = frozenset(("asyncio", "concurrent", "lightning", "logging", "multiprocessing", "pytorch_lightning", "queue"))


def modules_of(roots: Iterable[nn.Module]) -> list[nn.Module]:
    """All modules under `roots`, each once: `nn.Module.modules`, in another order and a quarter of the time."""
    found: dict[int, nn.Module] = {}
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if id(module) not in found:
            found[id(module)] = module
            waiting.extend(child for child in module._modules.values() if child is not None)
    return list(found.values())


class _State(NamedTuple):
    """Something with an inner state. `read` gives it, `same` compares it with an earlier one, `write` puts it back."""

    kind: type
    read: Callable[[Any], Any]
    same: Callable[[Any, Any], bool]
    write: Callable[[Any, Any], None]


def _bit_state(generator: np.random.Generator) -> bytes:
    return pickle.dumps(generator.bit_generator.state)


def _put_bit_state(generator: np.random.Generator, state: bytes) -> None:
    generator.bit_generator.state = pickle.loads(state)


def _legacy_state(generator: np.random.RandomState) -> bytes:
    return pickle.dumps(generator.get_state(legacy=False))


def _same_array(array: Any, other: Any) -> bool:
    return bool(array.tobytes() == other.tobytes())


_STATES = (
    _State(torch.Generator, torch.Generator.get_state, torch.equal, torch.Generator.set_state),
    _State(np.random.Generator, _bit_state, operator.eq, _put_bit_state),
    _State(np.random.RandomState, _legacy_state, operator.eq, lambda g, state: g.set_state(pickle.loads(state))),
    _State(random.Random, random.Random.getstate, operator.eq, random.Random.setstate),
)


class Snapshot:
    """The attributes of modules, and what is in the containers, arrays, generators and objects among them.

    Containers are followed to any depth, objects of other classes one step. Not kept: iterators,
    objects that threads share (queues, loggers, trainers), arrays of more than 16 MB, and what is in the entries of a
    container of more than 100,000. What did not change is not written to:
    another thread may be reading. Hook tables are left alone: every hook of ours removes itself, and another thread may
    be adding its own. Modules in containers, which `nn.Module.modules` does not see, are kept as well.

    modules: all modules that were found.
    tensors: the tensors among the attributes and in their containers. Their values are not kept here.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.modules = list(modules)
        self.tensors: list[Tensor] = []
        self._seen: set[int] = set(map(id, self.modules))
        self._attributes: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._contents: list[tuple[Any, Any]] = []
        self._states: list[tuple[_State, Any, Any]] = []
        start = 0
        while start < len(self.modules):  # strays are appended meanwhile
            new, start = self.modules[start:], len(self.modules)
            for module in new:
                self._keep_module(module)

    def _keep_module(self, module: nn.Module) -> None:
        before = module.__dict__.copy()
        self._attributes.append((module.__dict__, before))
        # the tables of a scripted module are views of what is in C++, and have no `copy`
        self._contents += [(table, table.copy()) for table in _TABLES(module) if hasattr(table, "copy")]
        for name, value in before.items():
            if type(value) not in _FIXED and name not in _OWN:
                self._look(value, 1)

    def _look(self, value: Any, steps: int) -> None:
        """Keep what is in `value`; follow objects of unknown classes `steps` times."""
        if type(value) in _FIXED or id(value) in self._seen:
            return
        if isinstance(value, tuple | frozenset):
            self._look_into(value, steps)
            return
        self._seen.add(id(value))
        if isinstance(value, Tensor):
            self.tensors.append(value)
        elif isinstance(value, nn.Module):
            self.modules += [module for module in modules_of([value]) if id(module) not in self._seen]
            self._seen.update(map(id, self.modules))
        elif isinstance(value, dict):
            self._contents.append((value, dict(value)))
            self._look_into(value.values(), steps)
        elif isinstance(value, list | deque | set | bytearray):
            self._contents.append((value, set(value) if isinstance(value, set) else list(value)))
            self._look_into(value, steps)
        elif isinstance(value, np.ndarray):
            if value.flags.writeable and value.nbytes <= _LARGE:
                self._states.append((_ARRAY, value, value.copy()))
        elif state := next((state for state in _STATES if isinstance(value, state.kind)), None):
            self._states.append((state, value, state.read(value)))
        elif steps and type(value).__module__.partition(".")[0] not in _SHARED and not isinstance(value, type):
            inside = getattr(value, "__dict__", None)
            if type(inside) is dict:
                self._attributes.append((inside, inside.copy()))
                self._look_into(inside.values(), steps - 1)

    def _look_into(self, values: Any, steps: int) -> None:
        if len(values) <= _LONG and not _FIXED.issuperset(map(type, values)):
            for value in list(values):
                self._look(value, steps)

    def put_back(self) -> None:
        if not _all_same(self._attributes):
            for attributes, before in self._attributes:
                if not _same(attributes, before):
                    for name in attributes.keys() - before.keys() - {_HOOKED}:
                        del attributes[name]
                    attributes.update(before)
        for container, content in self._contents:
            if not _same(container, content):
                _refill(container, content)
        for state, value, before in self._states:
            if not state.same(state.read(value), before):
                state.write(value, before)


def _put_array(array: Any, before: Any) -> None:
    array[...] = before


_ARRAY = _State(np.ndarray, lambda array: array, _same_array, _put_array)


def _all_same(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> bool:
    """Whether every pair holds the very same objects under the same names: in one go, which is twice as fast."""
    now, before = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if list(map(len, now)) != list(map(len, before)):
        return False
    names = map(operator.is_, chain.from_iterable(now), chain.from_iterable(before))
    return all(names) and all(map(operator.is_, _values(now), _values(before)))


def _values(dicts: list[dict[str, Any]]) -> Iterator[Any]:
    return chain.from_iterable(map(dict.values, dicts))


def _same(container: Any, content: Any) -> bool:
    """Whether both hold the very same objects, in the same order."""
    if len(container) != len(content):
        return False
    if isinstance(container, set):
        return bool(container == content)
    if isinstance(container, dict) and not all(map(operator.is_, container.values(), content.values())):
        return False
    return all(map(operator.is_, container, content))


def _refill(container: Any, content: Any) -> None:
    """By the methods of the built-in class: those of a class made from it may do more."""
    if isinstance(container, OrderedDict):
        OrderedDict.clear(container)
        OrderedDict.update(container, content)
    elif isinstance(container, dict):
        dict.clear(container)
        dict.update(container, content)
    elif isinstance(container, set):
        set.clear(container)
        set.update(container, content)
    elif isinstance(container, deque):
        deque.clear(container)
        deque.extend(container, content)
    else:
        container[:] = bytes(content) if isinstance(container, bytearray) else content
