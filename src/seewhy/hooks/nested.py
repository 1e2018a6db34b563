"""Tensors in nested tuples, lists, mappings and dataclasses: read them, or rebuild the structure around new ones."""

from __future__ import annotations

import copy
import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from torch import Tensor


def tensors(structure: Any) -> Iterator[Tensor]:
    """Every tensor in `structure`, depth first, in order."""
    return leaves(structure, Tensor)


def leaves(structure: Any, leaf: type | tuple[type, ...]) -> Iterator[Any]:
    """Everything of type `leaf` in `structure`, depth first, in order; nothing inside of it."""
    if isinstance(structure, leaf):
        yield structure
        return
    for _, child in children(structure):
        yield from leaves(child, leaf)


def children(structure: Any) -> list[tuple[Any, Any]]:
    """(key, value) pairs one level down; none for anything that is not a container."""
    if isinstance(structure, Mapping):
        return list(structure.items())
    if isinstance(structure, tuple | list | deque):
        return list(enumerate(structure))
    if dataclasses.is_dataclass(structure) and not isinstance(structure, type):
        return [(field.name, getattr(structure, field.name)) for field in dataclasses.fields(structure)]
    return []


def rebuild(structure: Any, change: Callable[[Any], Any], leaf: type | tuple[type, ...] = Tensor) -> Any:
    """`structure` with every tensor replaced by `change(tensor)`; containers keep their type, other leaves pass."""
    if isinstance(structure, leaf):
        return change(structure)
    renewed = {key: rebuild(child, change, leaf) for key, child in children(structure)}
    if not renewed or all(renewed[key] is child for key, child in children(structure)):
        return structure
    if isinstance(structure, tuple):
        return _tuple(structure, renewed.values())
    if isinstance(structure, Mapping) and not isinstance(structure, MutableMapping):
        kind: Any = type(structure)
        return kind(renewed)
    # a constructor may take other arguments than what is inside, or change it
    copied = copy.copy(structure)
    for key, child in renewed.items():
        if isinstance(structure, MutableMapping | list | deque):
            copied[key] = child
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
