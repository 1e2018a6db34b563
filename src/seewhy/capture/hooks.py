"""The one place where a hook is attached to a module."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
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
