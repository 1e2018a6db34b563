"""The one place where something is attached to a module: read and change what passes through a model's layers."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from seewhy.capture.edits import Edit
from seewhy.capture.guard import eagerly, unwrap
from seewhy.capture.nested import rebuild, tensors
from seewhy.capture.records import Copy, Keeping, Record, Records, Slot, lazy_copy, recorded
from seewhy.capture.select import Layer, Layers, entries, find
from seewhy.errors import InputError, InputTypeError, LayerError

What = Literal["inputs", "outputs", "grad_inputs", "grad_outputs"]
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

    with ExitStack() as handles:
        for name, module in layers.items():

            def enter(_: nn.Module, args: Any, kwargs: Any, name: str = name) -> Any:
                return before(name, args, kwargs)

            def leave(_: nn.Module, __: Any, output: Any, name: str = name) -> Any:
                return after(name, output)

            handles.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            handles.callback(module.register_forward_hook(leave).remove)
        yield ran


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


@contextmanager
def capture(
    model: nn.Module,
    layers: Layers,
    what: What | Sequence[What] = ("outputs",),
    *,
    detach: bool = True,
    device: torch.device | str | None = None,
    copy: Copy = "auto",
    reduce: Callable[[Tensor], Any] | None = None,
    max_bytes: int | None = None,
    threads: Threads = "own",
) -> Iterator[Records]:
    """Record what passes through layers while the block lasts: layer name -> its calls, in order.

        with seewhy.capture(model, "layer*.*.conv2", what=("outputs", "grad_outputs")) as seen:
            model(images).sum().backward()
        seen["layer1.0.conv2"][0].grad_outputs

    layers: names, patterns ("layer*", "**.attn"), modules, types (`nn.Conv2d`), or a list of them.
    what: "inputs", "outputs", "grad_inputs", "grad_outputs", one or several. A gradient is the latest that a backward
    pass brought, through that call alone; it comes also when the backward pass runs after the block.
    detach: False keeps values in the graph, so that `torch.autograd.grad` can ask for their gradient.
    device: where to move what is kept. reduce: keep only what this makes of each floating point tensor.
    copy: "auto" copies only what an in-place operation is about to overwrite; True copies at once; False never does,
    and reading what was overwritten is an error.
    max_bytes: above this the forward is stopped by an `InputError`.
    threads: "all" records the forwards of other threads too.

    A module whose gradients are asked for hands its tensors on as such lazy copies: a layer that returns its own input
    no longer shares it with an in-place operation that follows. The recomputation of gradient checkpointing is no new
    call; with use_reentrant=True its gradients go to the call that it repeats, as long as there is only one of that
    layer. A compiled model runs eagerly inside the block. Raises `LayerError` for layers that do not exist, and at the
    end of the block if the model ran but one of `layers` did not.
    """
    wanted = _checked((what,) if isinstance(what, str) else what)
    if not detach and device is not None:
        raise InputError("a tensor that is moved is not the one in the graph.", got=f"detach=False, device={device!r}")
    if copy not in ("auto", True, False):
        raise InputError("unknown way to copy.", got=repr(copy), expected='"auto", True or False')
    root = unwrap(model)
    chosen = find(root, layers)
    records = Records(chosen)
    keeping = Keeping(detach, device, copy, reduce, max_bytes)
    with_gradients = not wanted.isdisjoint(("grad_inputs", "grad_outputs"))
    waiting: dict[str, list[Record]] = {}  # by layer: calls without a graph, which a checkpoint may repeat with one

    def gradients(record: Record, side: str, passing: Any) -> Any:
        if f"grad_{side}" not in wanted:
            return passing
        passing = _alone(passing, (chosen[record.name], side))
        record.kept[f"grad_{side}"] = rebuild(passing, lambda tensor: _listen(tensor, keeping))
        return passing

    def values(record: Record, side: str, passing: Any) -> Any:
        if side not in wanted:
            return passing
        if keeping.hands_on_copies:
            passing = _alone(passing, (chosen[record.name], side))
        record.kept[side] = rebuild(passing, lambda tensor: keeping.fill(Slot(), tensor))
        if keeping.hands_on_copies:
            return rebuild(passing, lambda tensor: keeping.copied(tensor) if recorded(tensor) else tensor)
        return passing

    def visit(name: str, passed: Passed) -> tuple[Passed, Finish]:
        if not _recomputing():
            record = records.begin(name)
            if with_gradients and not torch.is_grad_enabled():
                waiting.setdefault(name, []).append(record)
            given = values(record, "inputs", gradients(record, "inputs", passed))
            return given, lambda output: values(
                record, "outputs", gradients(record, "outputs", _rejoined(passed, given, output))
            )
        repeated = waiting.get(name, [])
        if len(repeated) != 1:
            for record in repeated:
                record.ambiguous = True
            return passed, _unchanged
        record = repeated.pop()
        given = gradients(record, "inputs", passed)
        return given, lambda output: gradients(record, "outputs", _rejoined(passed, given, output))

    with _attached(root, layers, visit, threads):
        yield records


@contextmanager
def edit(
    model: nn.Module,
    edits: Mapping[Layer, Edit | Sequence[Edit]],
    what: What = "outputs",
    *,
    threads: Threads = "own",
) -> Iterator[None]:
    """Change what passes through layers while the block lasts.

        with seewhy.edit(model, {"layer3.*": seewhy.zero([5, 7])}):
            logits = model(images)

    edits: layers (a name, pattern, module or type) -> a function, or several, from each floating point tensor to the
    one that takes its place: `clip`, `scale`, `mask`, `zero`, `noise`, `replace`, or any other. All that fit a layer
    are applied, in order.
    what: "inputs", "outputs", "grad_inputs" or "grad_outputs". An edit of gradients belongs to the graph that the
    forward made inside the block, whenever its backward pass runs. Under gradient checkpointing the backward pass must
    run inside the block: it repeats the forward, and that is edited too.
    threads: "all" changes the forwards of other threads too.

    Blocks nest: each sees what those around it made. A layer whose gradients are edited hands its tensors on as lazy
    copies, as in `capture`. Raises `LayerError` for layers that do not exist, and at the end of the block if the model
    ran but an entry of `edits` changed nothing.
    """
    _checked([what])
    root = unwrap(model)
    chosen = find(root, list(edits))
    chains: dict[str, list[Edit]] = {name: [] for name in chosen}
    for layer, functions in edits.items():
        for name in find(root, layer):
            chains[name].extend([functions] if callable(functions) else functions)
    side = what.removeprefix("grad_")

    def visit(name: str, passed: Passed) -> tuple[Passed, Finish]:
        def change(tensor: Tensor) -> Tensor:
            for function in chains[name]:
                tensor = _edited(function, tensor, name)
            return tensor

        def apply(passing: Any) -> Any:
            if what == side:
                return rebuild(passing, lambda tensor: change(tensor) if tensor.is_floating_point() else tensor)
            passing = _alone(passing, (chosen[name], side))
            for tensor in tensors(passing):
                _on_gradient(tensor, change)
            return passing

        if side == "outputs":
            return passed, apply
        given = apply(passed)
        return given, _unchanged if what == side else lambda output: _rejoined(passed, given, output)

    with _attached(root, list(edits), visit, threads):
        yield


@contextmanager
def _attached(root: nn.Module, layers: Layers, visit: Visit, threads: Threads) -> Iterator[None]:
    """`around` all of `layers`, eagerly; an error if the model ran to its end and some entry of them did not run."""
    groups = [(entry, find(root, entry)) for entry in entries(layers)]
    inner = {name: module for _, modules in groups for name, module in modules.items()}
    finished: list[bool] = []

    def visit_inner(name: str, passed: Passed) -> tuple[Passed, Finish]:
        return visit(name, passed) if name else (passed, lambda _: finished.append(True))

    with eagerly(), around({"": root, **inner}, visit_inner, threads=threads) as ran:
        yield
    idle = [entry for entry, modules in groups if finished and ran.isdisjoint(modules)]
    if idle:
        raise LayerError(
            f"{', '.join(map(_label, idle))} did not run, though the model did.",
            expected="layers that the model calls, as layer(x)",
            do="`seewhy layers` and seewhy.summary list those that run",
        )


def _label(layer: Layer) -> str:
    return layer if isinstance(layer, str) else (layer if isinstance(layer, type) else type(layer)).__name__


def _checked(what: Sequence[What]) -> frozenset[str]:
    if unknown := [entry for entry in what if entry not in get_args(What)]:
        raise InputError(
            "this does not pass through a layer.", got=repr(unknown[0]), expected=", ".join(get_args(What))
        )
    return frozenset(what)


def _recomputing() -> bool:
    """Whether this forward runs inside a backward pass: gradient checkpointing repeats what it did not keep."""
    return torch._C._current_graph_task_id() != -1


def _alone(passing: Any, place: tuple[nn.Module, str]) -> Any:
    """`passing` with tensors of its own, so that their gradient is what comes through this place and no other.

    A place is a layer and a side of it; blocks that nest share its tensors, and their hooks on them run in order.
    """

    def own(tensor: Tensor) -> Tensor:
        if not recorded(tensor) or getattr(tensor, "_seewhy_place", None) == place:
            return tensor
        copy = lazy_copy(tensor)
        setattr(copy, "_seewhy_place", place)  # noqa: B010
        return copy

    return rebuild(passing, own)


def _rejoined(passed: Passed, given: Passed, output: Any) -> Any:
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


def _listen(tensor: Tensor, keeping: Keeping) -> Slot:
    """A slot that is filled when the gradient at `tensor` arrives; it is not kept alive by the graph."""
    slot = Slot()
    held = weakref.ref(slot)

    def fill(gradient: Tensor) -> None:
        if (awaiting := held()) is not None:
            keeping.fill(awaiting, gradient)

    _on_gradient(tensor, fill)
    return slot


def _on_gradient(tensor: Tensor, answer: Callable[[Tensor], Tensor | None]) -> None:
    if recorded(tensor):
        register: Any = tensor.register_hook  # torch does not say its type
        register(answer)


def _edited(function: Edit, tensor: Tensor, name: str) -> Tensor:
    changed = function(tensor)
    if not isinstance(changed, Tensor):
        raise InputTypeError(
            f"the edit of {name} did not return a tensor.", got=type(changed).__name__, do="return the tensor to use"
        )
    return changed


def _unchanged(output: Any) -> Any:
    return output
