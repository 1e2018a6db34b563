"""The methods by name, and what each one needs."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from jaxtyping import Float, Int
from torch import Tensor

from seewhy.errors import MethodError

Need = Literal["activations", "gradients", "weights", "generator", "inputs", "scores", "score", "replay"]

# (image of each of N rows, maker of the rows of these numbers: (n,) -> (n, C, *space)) -> their scores (N,).
# Rows are made and run a batch at a time, so that only a batch of them exists at once.
Ask = Callable[[Int[Tensor, " N"], Callable[[Int[Tensor, " n"]], Tensor]], Float[Tensor, " N"]]

_FAMILIES = ("gradient", "perturbation")  # the files of this folder that hold methods, in the order they are listed
_methods: dict[str, Method] = {}


@dataclass(frozen=True)
class Method:
    """One explanation method: a pure function of tensors, and what must be handed to it by name.

    activations, gradients: (B, C, *space) of the layer. weights: (B, C), of the linear layer behind a global average.
    generator: a `torch.Generator`. inputs: the images (B, C, *size). scores: (B,), of the unchanged images. score,
    replay: ask what the score becomes for changed images, or for changed activations (see `Ask`). Returns (B, *space),
    signed. `reduces` says that it also takes `reduce`, the way in which weighted channels (B, C, *space) become one
    map; its other keywords are its options. cost: forward and backward passes for each target, in words.
    """

    name: str
    family: str
    function: Callable[..., Tensor]
    needs: tuple[Need, ...]
    source: str
    cost: str

    @property
    def layered(self) -> bool:
        """Whether it looks at layers; otherwise its map lies on the input."""
        return "activations" in self.needs

    @property
    def options(self) -> dict[str, Any]:
        """The options that it takes, by name, and what each is unless given."""
        parameters = inspect.signature(self.function).parameters.values()
        return {found.name: found.default for found in parameters if found.name not in (*self.needs, "reduce")}

    @property
    def reduces(self) -> bool:
        return "reduce" in inspect.signature(self.function).parameters

    @property
    def summary(self) -> str:
        return (self.function.__doc__ or "").strip().splitlines()[0]


def method(
    name: str, *, needs: tuple[Need, ...], source: str, cost: str | None = None
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Enter a function under `name`. `source` is the paper: "arXiv:...", a DOI or a venue."""

    def enter(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        family = function.__module__.rpartition(".")[2]
        passes = cost or ("1 forward, 1 backward" if "gradients" in needs else "1 forward")
        _methods[name] = Method(name, family, function, needs, source, passes)
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
