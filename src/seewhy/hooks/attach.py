"""Attach something to modules for a while: visit their calls, answer for them, replace their forward."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

from torch import nn

from seewhy.errors import InputError
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
            enter: Callable[..., Any] = _Attached(module, partial(before, name))
            leave: Callable[..., Any] = _Attached(module, partial(_left, after, name))
            undo.later(_detach, module, enter, leave)
            # scripted modules refuse these, and yet heed them where they are called from Python
            nn.Module.register_forward_pre_hook(module, enter, with_kwargs=True)
            nn.Module.register_forward_hook(module, leave)
        yield ran


def _left(after: Callable[[str, Any], Any], name: str, _: Any, output: Any) -> Any:
    return after(name, output)


class _Attached:
    """A hook of one module. A copy of the module has none."""

    def __init__(self, module: nn.Module, call: Callable[..., Any]) -> None:
        self.module, self.call = module, call

    def __call__(self, module: nn.Module, *passed: Any) -> Any:
        of_it = module is self.module or getattr(module, "_is_replica", False)  # of data parallelism, in a thread
        return self.call(*passed) if of_it else None

    def __deepcopy__(self, memo: dict[int, Any]) -> _Attached:
        if isinstance(copied := memo.get(id(self.module)), nn.Module):
            _when_done(memo, _detach, copied, self)
        return self

    def __reduce__(self) -> Any:
        raise InputError(
            "a model cannot be saved while something is attached to it.",
            got=f"a {type(self.module).__name__} inside a block of capture or edit",
            do="save it after the block",
        )


def _when_done(memo: dict[int, Any], function: Callable[..., object], *args: Any) -> None:
    """Call `function(*args)` when the `copy.deepcopy` of this memo is done: then it drops the memo."""
    last = _WhenDropped(function, *args)
    memo[id(last)] = last


class _WhenDropped:
    def __init__(self, function: Callable[..., object], *args: Any) -> None:
        self.then = partial(function, *args)

    def __del__(self) -> None:
        self.then()


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
    with undoing() as undo:
        for module in modules:
            found = module.__dict__.get("forward")
            undo.later(_put_forward, module, found)
            module.__dict__["forward"] = _Forward(module, stand_in, found)
        yield


class _Forward:
    """The forward of one module while `stand_in` answers for it. A copy of the module has its own forward."""

    def __init__(self, module: nn.Module, stand_in: Stand, found: Callable[..., Any] | None) -> None:
        self.module, self.stand_in, self.found = module, stand_in, found
        self.own: Callable[..., Any] = module.forward
        self.thread = threading.get_ident()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != self.thread:
            return self.own(*args, **kwargs)
        return self.stand_in(self.module, self.own, args, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self.found is None and isinstance(copied := memo.get(id(self.module)), nn.Module):
            _when_done(memo, _put_forward, copied, None)
        return copy.deepcopy(self.found, memo)


def _put_forward(module: nn.Module, forward: Callable[..., Any] | None) -> None:
    if forward is not None:
        module.__dict__["forward"] = forward
    else:
        module.__dict__.pop("forward", None)
