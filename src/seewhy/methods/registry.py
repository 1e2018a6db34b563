"""The methods by name, and what each one needs."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from torch import Tensor

from seewhy.errors import MethodError

Need = Literal["activations", "gradients", "weights", "generator"]

_FAMILIES = ("gradient",)  # the files of this folder that hold methods, in the order they are listed
_methods: dict[str, Method] = {}


@dataclass(frozen=True)
class Method:
    """One explanation method: a pure function of tensors, and what must be handed to it by name.

    activations, gradients: (B, C, *space) of the layer. weights: (B, C), of the linear layer behind a global average.
    generator: a `torch.Generator`. Returns (B, *space), signed. `reduces` says that it also takes `reduce`, the way in
    which weighted channels (B, C, *space) become one map.
    """

    name: str
    family: str
    function: Callable[..., Tensor]
    needs: tuple[Need, ...]
    source: str

    @property
    def reduces(self) -> bool:
        return "reduce" in inspect.signature(self.function).parameters

    @property
    def summary(self) -> str:
        return (self.function.__doc__ or "").strip().splitlines()[0]

    @property
    def cost(self) -> str:
        return "1 forward, 1 backward" if "gradients" in self.needs else "1 forward"


def method(
    name: str, *, needs: tuple[Need, ...], source: str
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Enter a function under `name`. `source` is the paper: "arXiv:...", a DOI or a venue."""

    def enter(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        family = function.__module__.rpartition(".")[2]
        _methods[name] = Method(name, family, function, needs, source)
        return function

    return enter


def available() -> dict[str, Method]:
    """Every method by its name."""
    for family in _FAMILIES:
        import_module(f"seewhy.methods.{family}")
    return dict(_methods)


def get(name: str) -> Method:
    """The method called `name`; case, spaces, hyphens and underscores do not count, and "++" is "plus_plus"."""
    if not isinstance(name, str):
        raise MethodError("a method is given by its name.", got=repr(name), do='method="grad_cam"')
    by_key = {_key(known): found for known, found in available().items()}
    if found := by_key.get(_key(name)):
        return found
    near = difflib.get_close_matches(_key(name), by_key, n=3)
    raise MethodError(
        f"there is no method {name!r}.",
        expected=", ".join(by_key[key].name for key in near) if near else "one of " + ", ".join(available()),
        do="seewhy.methods.available() and `seewhy methods` list them all",
    )


def _key(name: str) -> str:
    return "".join(letter for letter in name.lower().replace("++", "plusplus") if letter.isalnum())
