"""What Python objects a model holds, and what is in them: kept before a forward, put back after it."""

from __future__ import annotations

import operator
import pickle
import random
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from itertools import accumulate, chain
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

_HOOKS = frozenset(name for name in nn.Module().__dict__ if "hooks" in name)
_OWN = _HOOKS | {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"}  # tables of every module
_TABLES = operator.attrgetter("_parameters", "_buffers", "_modules")
# the first forward of a transformers model attaches its own hooks, for good; forgotten, it would attach them again
_HOOKED = "_output_capturing_hooks_installed"
_FIXED: frozenset[type] = frozenset(
    {bool, int, float, complex, str, bytes, type(None), type, range, slice}
    | {torch.Size, torch.dtype, torch.device, torch.layout, torch.memory_format}
    | {FunctionType, BuiltinFunctionType, MethodType, ModuleType}
    | {weakref.ref, weakref.ProxyType, weakref.CallableProxyType}
)
_LONG = 100_000  # entries: a container with more is kept, but not what is in its entries
_LARGE = 2**24  # bytes: an array with more is not kept
# other threads work with such objects, and what they put in must not be taken out again
_SHARED = frozenset(("asyncio", "concurrent", "lightning", "logging", "multiprocessing", "pytorch_lightning", "queue"))


def modules_of(roots: Iterable[nn.Module]) -> list[nn.Module]:
    """All modules under `roots`, each once: `nn.Module.modules`, in another order and a quarter of the time."""
    found: dict[int, nn.Module] = {}
    waiting: list[nn.Module | None] = list(roots)
    while waiting:
        module = waiting.pop()
        if module is not None and id(module) not in found:
            found[id(module)] = module
            if module._modules:
                waiting.extend(module._modules.values())
    return list(found.values())


class _State(NamedTuple):
    """Something with an inner state. `read` gives it, `same` compares it with an earlier one, `write` puts it back."""

    kind: type
    read: Callable[[Any], Any]
    same: Callable[[Any, Any], bool]
    write: Callable[[Any, Any], object]


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


class Layout(NamedTuple):
    """Which attributes of a model's modules are to be kept, by position. It holds nothing of the model."""

    names: list[str]
    types: list[type]
    looked_at: list[int]  # those that something may be inside of
    kept: Callable[[list[Any]], tuple[Any, ...]]  # all but the hook tables, out of a list of all

    @classmethod
    def of(cls, names: list[str], values: list[Any], types: list[type]) -> Layout:
        numbers = range(len(names))
        inside = [number for number in numbers if types[number] not in _FIXED and names[number] not in _OWN]
        plain = [number for number in inside if types[number] is tuple and _FIXED.issuperset(map(type, values[number]))]
        kept = [number for number in numbers if names[number] not in _HOOKS]
        return cls(names, types, sorted({*inside} - {*plain}), operator.itemgetter(*kept))


class _Dicts:
    """Dicts and what was in them, in lists: a copy of each would keep the garbage collector busy."""

    def __init__(self, dicts: list[dict[Any, Any]]) -> None:
        self._dicts = dicts
        self.lengths, self.names, self.values = _read(dicts)
        while not sum(self.lengths) == len(self.names) == len(self.values):  # another thread added something
            self.lengths, self.names, self.values = _read(dicts)
        self.layout: Layout | None = None  # where these are the attributes of modules

    def put_back(self) -> None:
        if self._same():
            return
        ends = accumulate(self.lengths)
        for found, length, end in zip(self._dicts, self.lengths, ends, strict=True):
            before = dict(zip(self.names[end - length : end], self.values[end - length : end], strict=True))
            if not _same(found, before):
                _change(found, before)

    def _same(self) -> bool:
        lengths, names, values = _read(self._dicts)
        if lengths != self.lengths:
            return False
        if self.layout is None:
            return _identical(names, self.names) and _identical(values, self.values)
        kept = self.layout.kept
        return names == self.names and _identical(kept(values), kept(self.values))  # names are compared in no time


def _identical(these: Iterable[Any], those: Iterable[Any]) -> bool:
    return all(map(operator.is_, these, those))


def _read(dicts: list[dict[Any, Any]]) -> tuple[list[int], list[Any], list[Any]]:
    return list(map(len, dicts)), list(chain.from_iterable(dicts)), list(chain.from_iterable(map(dict.values, dicts)))


def _change(found: dict[Any, Any], before: dict[Any, Any]) -> None:
    """Entry by entry, as another thread may be reading; all anew where only that restores the order."""
    for name in found.keys() - before.keys() - {_HOOKED}:
        dict.__delitem__(found, name)
    dict.update(found, before)
    if _HOOKED not in found and list(found) != list(before):
        dict.clear(found)
        dict.update(found, before)


class Snapshot:
    """The attributes of modules, and what is in the containers, arrays, generators and objects among them.

    Containers are followed to any depth, objects of other classes one step. Not kept: iterators, objects that threads
    share (queues, loggers, trainers), arrays of more than 16 MB, and what is in the entries of a container of more than
    100,000. What did not change is not written to: another thread may be reading. Hook tables are left alone: every
    hook of ours removes itself, and another thread may be adding its own. Modules in containers, which
    `nn.Module.modules` does not see, are kept as well.

    modules: all modules that were found.
    tensors: the tensors among the attributes and in their containers. Their values are not kept here.
    """

    def __init__(self, modules: list[nn.Module], layout: Layout | None = None) -> None:
        self.modules = modules
        self.tensors: list[Tensor] = []
        self._dicts: list[_Dicts] = []
        self._others: list[tuple[Any, Any]] = []  # containers that are no plain dict, and what was in them
        self._states: list[tuple[_State, Any, Any]] = []
        self._seen = set(map(id, modules))
        self.layout = self._look_at(modules, layout)

    def _look_at(self, modules: list[nn.Module], layout: Layout | None = None) -> Layout:
        attributes = _Dicts([module.__dict__ for module in modules])
        types = list(map(type, attributes.values))
        if layout is None or layout.types != types or layout.names != attributes.names:
            layout = Layout.of(attributes.names, attributes.values, types)
        attributes.layout = layout
        tables = [table for module in modules for table in _TABLES(module) if table]
        sets = [module._non_persistent_buffers_set for module in modules if module._buffers]
        # those of a scripted module are views of what is in C++, which no forward changes
        self._dicts += attributes, _Dicts([table for table in tables if type(table) is dict])
        self._others += [(table, table.copy()) for table in tables if type(table) is OrderedDict]
        self._others += [(found, set(found)) for found in sets if found]
        for number in layout.looked_at:
            self._look(attributes.values[number], 1)
        return layout

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
            strays = [module for module in modules_of([value]) if id(module) not in self._seen - {id(value)}]
            self._seen.update(map(id, strays))
            self.modules = self.modules + strays
            self._look_at(strays)
        elif isinstance(value, OrderedDict):
            self._others.append((value, OrderedDict(value)))
            self._look_into(value.values(), steps)
        elif isinstance(value, dict):
            self._dicts.append(_Dicts([value]))
            self._look_into(dict.values(value), steps)
        elif isinstance(value, list | deque | set | bytearray):
            self._others.append((value, set(value) if isinstance(value, set) else list(value)))
            self._look_into(value, steps)
        elif isinstance(value, np.ndarray):
            if value.flags.writeable and value.nbytes <= _LARGE:
                self._states.append((_ARRAY, value, value.copy()))
        elif state := next((state for state in _STATES if isinstance(value, state.kind)), None):
            self._states.append((state, value, state.read(value)))
        elif steps and type(value).__module__.partition(".")[0] not in _SHARED and not isinstance(value, type):
            inside = getattr(value, "__dict__", None)
            if type(inside) is dict:
                self._dicts.append(_Dicts([inside]))
                self._look_into(inside.values(), steps - 1)

    def _look_into(self, values: Any, steps: int) -> None:
        if len(values) <= _LONG and not _FIXED.issuperset(map(type, values)):
            for value in list(values):
                self._look(value, steps)

    def put_back(self) -> None:
        for dicts in self._dicts:
            dicts.put_back()
        for container, content in self._others:
            if not _same(container, content):
                _refill(container, content)
        for state, value, before in self._states:
            if not state.same(state.read(value), before):
                state.write(value, before)


def _put_array(array: Any, before: Any) -> None:
    array[...] = before


_ARRAY = _State(np.ndarray, lambda array: array, _same_array, _put_array)


def _same(container: Any, content: Any) -> bool:
    """Whether both hold the very same objects, in the same order."""
    if len(container) != len(content):
        return False
    if isinstance(container, set):
        return bool(container == content)
    if isinstance(container, dict) and not _identical(container.values(), content.values()):
        return False
    return _identical(container, content)


def _refill(container: Any, content: Any) -> None:
    """By the methods of the built-in class: those of a class made from it may do more."""
    if isinstance(container, OrderedDict):
        OrderedDict.clear(container)
        OrderedDict.update(container, content)
    elif isinstance(container, set):
        set.clear(container)
        set.update(container, content)
    elif isinstance(container, deque):
        deque.clear(container)
        deque.extend(container, content)
    else:
        container[:] = bytes(content) if isinstance(container, bytearray) else content
