"""Providers: each gives methods one of the things that they need."""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from seewhy.engine.session import Session
from seewhy.errors import MethodError

if TYPE_CHECKING:
    from seewhy.evidence._forward import Forward
    from seewhy.evidence._request import Request

Start = Literal["layer", "forward", "image", "watch"]
# (session, recorded layers by name, all that is needed of the forward) -> what is attached while it is recorded
Watch = Callable[[Session, Mapping[str, nn.Module], Set[str]], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Provider:
    """Gives methods one of the things that they need.

    Attributes:
        need: its name, as methods ask for it.
        give: makes the value for a request, which is of one target, and of one layer if `layered`.
        layered: whether the value is of a layer; otherwise it is of the whole call.
        start: where the recorded graph begins: at the first layer looked at, with the forward, at the image, or where
            `watch` begins one.
        watch: attached while the forward is recorded; `Forward.watched` has what it yields. Providers that name the
            same function share it.
        layers: more layers to record, from the model.
        leaves: the tensors of a forward at which the gradient of each target's score is wanted. One backward pass
            serves all providers.
        differentiable: whether these gradients are in a graph themselves.
        keeps_graph: whether `give` runs backward passes of its own through the forward.
    """

    need: str
    give: Callable[[Request], Any]
    layered: bool = False
    start: Start = "layer"
    watch: Watch | None = None
    layers: Callable[[nn.Module], Mapping[str, nn.Module]] | None = None
    leaves: Callable[[Forward], Iterable[Tensor]] | None = None
    differentiable: bool = False
    keeps_graph: bool = False


_providers: dict[str, Provider] = {}


def provides(
    need: str,
    *,
    layered: bool = False,
    start: Start = "layer",
    watch: Watch | None = None,
    layers: Callable[[nn.Module], Mapping[str, nn.Module]] | None = None,
    leaves: Callable[[Forward], Iterable[Tensor]] | None = None,
    differentiable: bool = False,
    keeps_graph: bool = False,
) -> Callable[[Callable[[Request], Any]], Callable[[Request], Any]]:
    """Enter a function as the provider of `need`.

        @provides("edges")
        def edges(request):
            return sobel(request.give("inputs"))

    Args:
        need: a name that methods list in their `needs`.
        layered, start, watch, layers, leaves, differentiable, keeps_graph: as for `Provider`.
    """

    def enter(function: Callable[[Request], Any]) -> Callable[[Request], Any]:
        _providers[need] = Provider(need, function, layered, start, watch, layers, leaves, differentiable, keeps_graph)
        return function

    return enter


def provider(need: str) -> Provider:
    """The provider of `need`. Raises `MethodError` if there is none."""
    if need not in _providers:
        _load()
    if need in _providers:
        return _providers[need]
    raise MethodError(
        f"nothing provides {need!r}.",
        expected=", ".join(difflib.get_close_matches(need, _providers) or sorted(_providers)),
        do="enter a function with seewhy.evidence.provides(need)",
    )


def _load() -> None:
    """Import every file of this folder: a provider is found by being there."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(import_module(package).__path__):
        import_module(f"{package}.{module.name}")
