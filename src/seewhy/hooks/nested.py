"""Tensors in nested tuples, lists, mappings and objects: read them, or rebuild the structure around new ones."""

from __future__ import annotations

import copy
import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from functools import cache
from typing import Any

from torch import Tensor


def tensors(structure: Any) -> Iterator[Tensor]:
    """Every tensor in `structure`, depth first, in order."""
    return leaves(structure, Tensor)


def is_continuous(tensor: Tensor) -> bool:
    """Whether the tensor is of real or complex numbers, and not of integers or truths."""
    return tensor.is_floating_point() or tensor.is_complex()


def leaves(structure: Any, leaf: type | tuple[type, ...], *, around: tuple[Any, ...] = ()) -> Iterator[Any]:
    """Everything of type `leaf` in `structure`, depth first, in order; nothing inside of it.

    around: the objects that `structure` is in. One that refers to them leads no further.
    """
    if isinstance(structure, leaf):
        yield structure
        return
    if any(structure is one for one in around):
        return
    if _is_object(structure):
        around = (*around, structure)
    for _, child in children(structure):
        yield from leaves(child, leaf, around=around)


def children(structure: Any) -> list[tuple[Any, Any]]:
    """(key, value) pairs one level down; none for anything that is not a container.

    An object that is no module and cannot be called is a container of its attributes: `SimpleNamespace(logits=...)`,
    a class of one's own with or without slots, a distribution.
    """
    if isinstance(structure, Mapping):
        return list(structure.items())
    if isinstance(structure, tuple | list | deque):
        return list(enumerate(structure))
    if type(structure) in _PLAIN or isinstance(structure, Tensor | type):
        return []
    if dataclasses.is_dataclass(structure):
        return [(field.name, getattr(structure, field.name)) for field in dataclasses.fields(structure)]
    return list(_attributes(structure).items()) if _is_object(structure) else []


def _is_object(structure: Any) -> bool:
    """Whether this is something of a class that says nothing about what is inside: no collection or iterator either."""
    kind = type(structure)
    if (
        kind in _PLAIN
        or isinstance(structure, _CONTAINERS)
        or hasattr(kind, "__iter__")
        or hasattr(kind, "__getitem__")
    ):
        return False
    return not (dataclasses.is_dataclass(structure) or callable(structure))


_PLAIN = frozenset((int, float, bool, complex, str, bytes, type(None), slice, range, set, frozenset))


_CONTAINERS = (Mapping, tuple, list, deque, Tensor)


def _attributes(thing: Any) -> dict[str, Any]:
    found = {name: getattr(thing, name) for name in _slots(type(thing)) if hasattr(thing, name)}  # type: ignore[arg-type]
    return {**found, **getattr(thing, "__dict__", {})}


@cache
def _slots(kind: type) -> tuple[str, ...]:
    named = [vars(each).get("__slots__", ()) for each in kind.__mro__]
    every = [name for names in named for name in ([names] if isinstance(names, str) else names)]
    return tuple(name for name in every if name not in ("__dict__", "__weakref__") and not name.startswith("__"))


def rebuild(
    structure: Any,
    change: Callable[[Any], Any],
    leaf: type | tuple[type, ...] = Tensor,
    *,
    objects: bool = True,
    around: tuple[Any, ...] = (),
) -> Any:
    """`structure` with every tensor replaced by `change(tensor)`; containers keep their type, other leaves pass.

    objects: whether to look into objects of classes that are no containers, such as a cache that layers write to.
    around: the objects that `structure` is in. One that refers to them leads no further.
    """
    if isinstance(structure, leaf):
        return change(structure)
    if any(structure is one for one in around):
        return structure
    if _is_object(structure):
        if not objects:
            return structure
        around = (*around, structure)
    renewed = {key: rebuild(child, change, leaf, objects=objects, around=around) for key, child in children(structure)}
    if not renewed or all(renewed[key] is child for key, child in children(structure)):
        return structure
    if isinstance(structure, tuple):
        return _tuple(structure, renewed.values())
    if isinstance(structure, Mapping) and not isinstance(structure, MutableMapping):
        kind: Any = type(structure)
        return kind(renewed)
    # a constructor may take other arguments than what is inside, or change it
    copied = copy.copy(structure)
    renewed.update({key: copied for key, child in renewed.items() if child is structure})  # it refers to itself
    for key, child in renewed.items():
        if isinstance(structure, MutableMapping | list | deque):
            copied[key] = child
        elif key in getattr(copied, "__dict__", ()):
            vars(copied)[key] = child  # whatever the class does when it is set
        else:
            object.__setattr__(copied, key, child)  # also of a frozen dataclass
    return copied


def _tuple(structure: tuple[Any, ...], entries: Iterable[Any]) -> tuple[Any, ...]:
    """Another tuple of the same type and attributes, made without its own constructor."""
    kind: Any = type(structure)
    if hasattr(kind, "n_sequence_fields"):  # torch.return_types and the like, which have no other way
        made: tuple[Any, ...] = kind(entries)
        return made
    made = tuple.__new__(kind, entries)
    if hasattr(structure, "__dict__"):
        vars(made).update(vars(structure))
    return made


def described(outputs: Any) -> str:
    """The type of `outputs`, its keys, and the shape or type of each entry."""
    if isinstance(outputs, Tensor) and outputs.ndim > 0:
        return f"a tensor of shape {tuple(outputs.shape)}"
    entries = ", ".join(
        f"{key!r}: {tuple(entry.shape) if isinstance(entry, Tensor) else type(entry).__name__}"
        for key, entry in children(outputs)
    )
    return f"{type(outputs).__name__} with {entries or 'nothing in it'}"
