"""Which modules of a model: by name, pattern, module or type."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Sequence
from typing import cast

from torch import nn

from seewhy.errors import LayerError
from seewhy.hooks.wrappers import WRAPPED_AS, unwrap

Layer = str | nn.Module | type[nn.Module]
Layers = Layer | Sequence[Layer]


def find(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """The modules that `layers` means, in the order given: names, patterns, modules, types, or a list of them.

    In a pattern `*`, `?` and `[...]` stand for parts of one name between dots, `**` for any number of names:
    "layer*.*.conv2", "**.attn". A type stands for all modules of it below the model, `nn.Conv2d` say. The model itself
    is meant by the module, or by the name that `named_modules` gives it, "".

    Args:
        model: the module inside wrappers.
        layers: what is looked for. A shared module may be called by any of its names, and the names that
            `torch.compile`, `DataParallel` and `DistributedDataParallel` put in front, "module." say, may be there.

    Returns:
        The modules by name, each once, under the first of its names.

    Raises:
        LayerError: for what is not in the model.
    """
    modules = dict(model.named_modules())
    found: dict[str, nn.Module] = {}
    for entry in entries(layers):
        if isinstance(entry, nn.Module):
            found.update(_find_module(modules, entry))
        elif isinstance(entry, type):
            found.update(_find_type(modules, entry))
        else:
            found.update(_find_name(model, entry))
    return found


def names(model: nn.Module) -> dict[str, str]:
    """Every name of every module, those of shared modules too -> the first name of that module."""
    first = {module: name for name, module in model.named_modules()}
    return {name: first[module] for name, module in model.named_modules(remove_duplicate=False)}


def within(name: str) -> str:
    """A name without those that wrappers of the whole model put in front of it: "module.", "_orig_mod."."""
    first, _, rest = name.partition(".")
    return within(rest) if first in WRAPPED_AS and rest else name


def entries(layers: Layers) -> list[Layer]:
    """`layers` as a list; raises `LayerError` if it is empty."""
    wanted = list(layers) if isinstance(layers, list | tuple) else [cast(Layer, layers)]
    if not wanted:
        raise LayerError("no layer was given.", got="an empty list", do="leave layers out to have one chosen")
    return wanted


def _find_module(modules: dict[str, nn.Module], wanted: nn.Module) -> dict[str, nn.Module]:
    wanted = unwrap(wanted)
    for name, module in modules.items():
        if module is wanted:
            return {name: module}
    raise LayerError(
        "the layer is not part of this model.",
        got=type(wanted).__name__,
        do="pass one of model.modules(), of the same model that is explained",
    )


def _find_type(modules: dict[str, nn.Module], wanted: type) -> dict[str, nn.Module]:
    if matching := {name: module for name, module in modules.items() if name and isinstance(module, wanted)}:
        return matching
    raise LayerError(
        "the model has no layer of this type.",
        got=wanted.__name__,
        expected=", ".join(sorted({type(module).__name__ for name, module in modules.items() if name})),
    )


def _find_name(model: nn.Module, wanted: object) -> dict[str, nn.Module]:
    if not isinstance(wanted, str):
        expected = 'a str such as "layer4" or "layer*", an nn.Module, a type of modules, or a list of them'
        raise LayerError("a layer is given by name, pattern, module or type.", got=repr(wanted), expected=expected)
    known = names(model)
    for name in (wanted, within(wanted)):
        if name in known:
            return {known[name]: model.get_submodule(name)}
        parts = name.split(".")
        if matching := [first for other, first in known.items() if other and _matches(other.split("."), parts)]:
            return {first: model.get_submodule(first) for first in matching}
    near = difflib.get_close_matches(wanted, filter(None, known), n=3, cutoff=0.4)
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
