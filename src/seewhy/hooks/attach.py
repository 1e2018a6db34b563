"""Attach something to modules for a while: visit their calls, answer for them, replace their forward."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from seewhy.hooks.undo import undoing

Threads = Literal["own", "all"]

# what a layer is called with: position (0, 1, ...) or keyword -> value
Passed = dict[int | str, Any]
# (what the layer returned) -> None, or what it shall return instead
Finish = Callable[[Any], Any]
# (layer name, what it is called with) -> what to call it with instead, and what to do when that call returns
Visit = Callable[[str, Passed], tuple[Passed, Finish]]
# (layer name, positional arguments of the call, what the layer returned) -> None, or what it shall return instead
Answer = Callable[[str, tuple[Any, ...], Any], Any]


@contextmanager
def around(layers: Mapping[str, nn.Module], visit: Visit, *, threads: Threads = "own") -> Iterator[set[str]]:
    """While the block lasts, `visit` is asked before each call of each layer; gives the names of those called so far.

    It runs after the caller's own hooks and those of the blocks around this one, so it sees what they made. Only calls
    in this thread are visited, unless threads="all".
    """
    owner = threading.get_ident()
    ran: set[str] = set()
    stacks: dict[int, list[tuple[str, Finish]]] = {}  # by thread: the calls that have not returned

    def before(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        thread = threading.get_ident()
        if threads == "own" and thread != owner:
            return None
        ran.add(name)
        passed: Passed = dict(enumerate(args))
        passed.update(kwargs)
        changed, finish = visit(name, passed)
        stacks.setdefault(thread, []).append((name, finish))
        if changed is passed:
            return None
        return tuple(changed[key] for key in range(len(args))), {key: changed[key] for key in kwargs}

    def after(name: str, output: Any) -> Any:
        stack = stacks.get(threading.get_ident(), [])
        while stack:  # above a call that returns there can only be calls inside it that were broken off
            opened, finish = stack.pop()
            if opened == name:
                return finish(output)
        return None

    with undoing() as undo:
        for name, module in layers.items():
            if isinstance(module, torch.jit.ScriptModule):  # which runs as one graph and takes no hook
                continue

            def enter(_: nn.Module, args: Any, kwargs: Any, name: str = name) -> Any:
                return before(name, args, kwargs)

            def leave(_: nn.Module, __: Any, output: Any, name: str = name) -> Any:
                return after(name, output)

            undo.later(_detach, module, enter, leave)
            module.register_forward_pre_hook(enter, with_kwargs=True)
            module.register_forward_hook(leave)
        yield ran


def _detach(module: nn.Module, *hooks: Callable[..., Any]) -> None:
    """Remove `hooks`, as their handles would: Ctrl-C may come before there is a handle."""
    for hook_id, hook in [*module._forward_pre_hooks.items(), *module._forward_hooks.items()]:
        if hook in hooks:
            tables = (module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs, module._forward_hooks)
            for table in tables:
                table.pop(hook_id, None)


@contextmanager
def after_forward(layers: Mapping[str, nn.Module], answer: Answer) -> Iterator[None]:
    """While the block lasts, `answer` is asked after each call of each layer, in this thread only."""

    def visit(name: str, passed: Passed) -> tuple[Passed, Finish]:
        args = tuple(value for key, value in passed.items() if isinstance(key, int))
        return passed, lambda output: answer(name, args, output)

    with around(layers, visit):
        yield


# (module, its own forward, positional and keyword arguments of the call) -> what the call returns
Stand = Callable[[nn.Module, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@contextmanager
def instead_of_forward(modules: Iterable[nn.Module], stand_in: Stand) -> Iterator[None]:
    """While the block lasts, `stand_in` answers the calls of `modules`, in this thread only.

    The caller's own hooks run around it, as around the forward.
    """
    owner = threading.get_ident()
    with undoing() as undo:
        for module in modules:
            if isinstance(module, torch.jit.ScriptModule):
                continue
            found = module.__dict__.get("forward")

            def forward(
                *args: Any, _module: nn.Module = module, _own: Callable[..., Any] = module.forward, **kwargs: Any
            ) -> Any:
                if threading.get_ident() != owner:
                    return _own(*args, **kwargs)
                return stand_in(_module, _own, args, kwargs)

            undo.later(_put_forward, module, found)
            module.__dict__["forward"] = forward
        yield


def _put_forward(module: nn.Module, forward: Callable[..., Any] | None) -> None:
    if forward is not None:
        module.__dict__["forward"] = forward
    else:
        module.__dict__.pop("forward", None)
