"""Which modules of a model: by name, pattern, module or type."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Sequence
from typing import cast

from torch import nn

from seewhy.errors import LayerError

Layer = str | nn.Module | type[nn.Module]
Layers = Layer | Sequence[Layer]


def find(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """The modules that `layers` means, by name, in the order given: names, patterns, modules, types, or a list of them.

    In a pattern `*`, `?` and `[...]` stand for parts of one name between dots, `**` for any number of names:
    "layer*.*.conv2", "**.attn". A type stands for all modules of it, `nn.Conv2d` say. Raises `LayerError` for what is
    not in the model.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    found: dict[str, nn.Module] = {}
    for entry in entries(layers):
        if isinstance(entry, nn.Module):
            found.update(_find_module(modules, entry))
        elif isinstance(entry, type):
            found.update(_find_type(modules, entry))
        else:
            found.update(_find_name(modules, entry))
    return found


def entries(layers: Layers) -> list[Layer]:
    """`layers` as a list; raises `LayerError` if it is empty."""
    wanted = list(layers) if isinstance(layers, list | tuple) else [cast(Layer, layers)]
    if not wanted:
        raise LayerError("no layer was given.", got="an empty list", do="leave layers out to have one chosen")
    return wanted


def _find_module(modules: dict[str, nn.Module], wanted: nn.Module) -> dict[str, nn.Module]:
    for name, module in modules.items():
        if module is wanted:
            return {name: module}
    raise LayerError(
        "the layer is not part of this model.",
        got=type(wanted).__name__,
        do="pass one of model.modules(), of the same model that is explained",
    )


def _find_type(modules: dict[str, nn.Module], wanted: type) -> dict[str, nn.Module]:
    if matching := {name: module for name, module in modules.items() if isinstance(module, wanted)}:
        return matching
    raise LayerError(
        "the model has no layer of this type.",
        got=wanted.__name__,
        expected=", ".join(sorted({type(module).__name__ for module in modules.values()})),
    )


def _find_name(modules: dict[str, nn.Module], wanted: object) -> dict[str, nn.Module]:
    if not isinstance(wanted, str):
        expected = 'a str such as "layer4" or "layer*", an nn.Module, a type of modules, or a list of them'
        raise LayerError("a layer is given by name, pattern, module or type.", got=repr(wanted), expected=expected)
    if wanted in modules:
        return {wanted: modules[wanted]}
    matching = {name: module for name, module in modules.items() if _matches(name.split("."), wanted.split("."))}
    if matching:
        return matching
    near = difflib.get_close_matches(wanted, modules, n=3, cutoff=0.4)
    raise LayerError(
        f"there is no layer {wanted!r}.",
        expected=", ".join(near) if near else "a name from model.named_modules(), or a pattern such as 'layer*'",
        do="`seewhy layers` and model.named_modules() list them",
    )


def _matches(name: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(_matches(name[skip:], pattern[1:]) for skip in range(len(name) + 1))
    return bool(name) and fnmatch.fnmatchcase(name[0], pattern[0]) and _matches(name[1:], pattern[1:])


def check_ran(wanted: Iterable[str], ran: Iterable[str]) -> None:
    """Raises `LayerError` if one of the layers, or calls, `wanted` is not among those that `ran`."""
    called = set(ran)
    if idle := [name for name in wanted if name not in called]:
        raise LayerError(
            f"{', '.join(idle)} did not run in this forward.",
            expected="a layer that the model calls, as layer(x), and that returns a floating point tensor",
            do="`seewhy layers` lists the layers that ran",
        )
