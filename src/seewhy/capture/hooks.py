"""The one place where something is attached to a module: a hook, or another forward."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

# (layer name, positional arguments of the call, what the layer returned) -> None, or what it shall return instead
Answer = Callable[[str, tuple[Any, ...], Any], Any]


@contextmanager
def after_forward(layers: Mapping[str, nn.Module], answer: Answer) -> Iterator[None]:
    """While the block lasts, `answer` is asked after each call of each layer, in this thread only.

    It runs after the caller's own hooks, so it sees what the rest of the model would see.
    """
    owner = threading.get_ident()
    with ExitStack() as stack:
        for name, module in layers.items():

            def hook(_: nn.Module, args: tuple[Any, ...], output: Any, name: str = name) -> Any:
                return answer(name, args, output) if threading.get_ident() == owner else None

            stack.callback(module.register_forward_hook(hook).remove)
        yield


# (module, its own forward, positional and keyword arguments of the call) -> what the call returns
Stand = Callable[[nn.Module, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@contextmanager
def instead_of_forward(modules: Iterable[nn.Module], stand_in: Stand) -> Iterator[None]:
    """While the block lasts, `stand_in` answers the calls of `modules`, in this thread only.

    The caller's own hooks run around it, as around the forward.
    """
    owner = threading.get_ident()
    with ExitStack() as stack:
        for module in modules:
            found = module.__dict__.get("forward")

            def forward(
                *args: Any, _module: nn.Module = module, _own: Callable[..., Any] = module.forward, **kwargs: Any
            ) -> Any:
                if threading.get_ident() != owner:
                    return _own(*args, **kwargs)
                return stand_in(_module, _own, args, kwargs)

            stack.callback(_put_forward, module, found)
            module.__dict__["forward"] = forward
        yield


def _put_forward(module: nn.Module, forward: Callable[..., Any] | None) -> None:
    del module.__dict__["forward"]
    if forward is not None:
        module.__dict__["forward"] = forward
