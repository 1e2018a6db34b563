"""What `capture` and `edit` share: which layers they attach to, and tensors with a gradient of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal, get_args

from torch import Tensor, nn

from seewhy.errors import InputError, LayerError
from seewhy.hooks.aliases import Aliases
from seewhy.hooks.attach import Finish, Passed, Threads, Visit, around
from seewhy.hooks.nested import rebuild, tensors
from seewhy.hooks.records import lazy_copy, recorded
from seewhy.hooks.select import Layer, Layers, entries, find
from seewhy.hooks.wrappers import eagerly

What = Literal["inputs", "outputs", "grad_inputs", "grad_outputs"]


@contextmanager
def attached(root: nn.Module, layers: Layers, visit: Visit, threads: Threads, aliases: Aliases) -> Iterator[None]:
    """`around` all of `layers`, eagerly; an error if the model ran to its end and some entry of them did not run.

    aliases: what `visit` noted there is checked when the model returns.
    """
    groups = [(entry, find(root, entry)) for entry in entries(layers)]
    inner = {name: module for _, modules in groups for name, module in modules.items()}
    finished: list[bool] = []

    def visit_inner(name: str, passed: Passed) -> tuple[Passed, Finish]:
        given, finish = visit(name, passed) if name in inner else (passed, unchanged)
        if name:
            return given, finish

        def finish_root(outputs: Any) -> Any:
            instead = finish(outputs)
            finished.append(True)
            aliases.check(instead)
            return instead

        return given, finish_root

    with eagerly(), around({"": root, **inner}, visit_inner, threads=threads) as ran:
        yield
    idle = [entry for entry, modules in groups if finished and ran.isdisjoint(modules)]
    if idle:
        raise LayerError(
            f"{', '.join(map(label, idle))} did not run, though the model did.",
            expected="layers that the model calls, as layer(x)",
            do="`seewhy layers` and seewhy.summary list those that run",
        )


def checked(what: Sequence[What]) -> frozenset[str]:
    if unknown := [entry for entry in what if entry not in get_args(What)]:
        raise InputError(
            "this does not pass through a layer.", got=repr(unknown[0]), expected=", ".join(get_args(What))
        )
    return frozenset(what)


def alone(passing: Any, place: tuple[nn.Module, str]) -> Any:
    """`passing` with tensors of its own, so that their gradient is what comes through this place and no other.

    A place is a layer and a side of it; blocks that nest share its tensors, and their hooks on them run in order.
    Objects that a layer is given stay as they are: it may write to them, as to a cache.
    """

    def own(tensor: Tensor) -> Tensor:
        if not recorded(tensor) or getattr(tensor, "_seewhy_place", None) == place:
            return tensor
        copy = lazy_copy(tensor)
        setattr(copy, "_seewhy_place", place)  # noqa: B010
        return copy

    return rebuild(passing, own, objects=place[1] == "outputs")


def rejoined(passed: Passed, given: Passed, output: Any) -> Any:
    """What the layer returned, after an in-place layer: what it wrote to its own copies is written to the caller's."""
    if given is passed:
        return output
    written = [
        (mine, copy)
        for mine, copy in zip(tensors(passed), tensors(given), strict=True)
        if copy is not mine and copy._version > 0
    ]
    for mine, copy in written:
        mine.copy_(copy)
    return rebuild(output, lambda tensor: next((mine for mine, copy in written if copy is tensor), tensor))


def on_gradient(tensor: Tensor, answer: Callable[[Tensor], Tensor | None]) -> Tensor:
    """The tensor, whose gradient `answer` is asked about."""
    if recorded(tensor):
        register: Any = tensor.register_hook  # torch does not say its type
        register(answer)
    return tensor


def repeats_a_checkpoint() -> bool:
    """Whether torch's gradient checkpointing runs this code in a backward pass, and not a hook of the caller's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "_engine_run_backward":
        if frame.f_globals.get("__name__") == "torch.utils.checkpoint":
            return True
        frame = frame.f_back
    return False


def unchanged(output: Any) -> Any:
    return output


def label(layer: Layer) -> str:
    return layer if isinstance(layer, str) else (layer if isinstance(layer, type) else type(layer)).__name__
