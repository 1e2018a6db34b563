"""Record what passes through layers."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from seewhy import _torch
from seewhy.errors import InputError
from seewhy.hooks.aliases import Aliases
from seewhy.hooks.attach import Finish, Passed, Threads
from seewhy.hooks.nested import rebuild
from seewhy.hooks.passing import What, alone, attached, checked, on_gradient, rejoined, repeats_a_checkpoint, unchanged
from seewhy.hooks.records import Copy, Keeping, Record, Records, Slot, recorded
from seewhy.hooks.select import Layers, find, names
from seewhy.hooks.wrappers import unwrap


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

    The model itself is a layer, too: `capture(model, model)`, under the name "". Tensors are found in tuples, lists,
    mappings and dataclasses, and in the attributes of other objects; of those that a layer is given no gradients.

    A module whose gradients are asked for hands its tensors on as lazy copies (see `copy`). Where a layer returns its
    own input and the model writes to it afterwards while it reads it elsewhere, that is a `LayerError`. The
    recomputation of gradient checkpointing is no new call; with use_reentrant=True its gradients go to the call that it
    repeats, as long as there is only one of that layer. Other forwards inside a backward pass, in a hook say, are calls
    like any. A compiled model runs eagerly inside the block.

    Args:
        model: any module, in whatever mode.
        layers: names, patterns ("layer*", "**.attn"), modules, types (`nn.Conv2d`), or a list of them.
        what: "inputs", "outputs", "grad_inputs", "grad_outputs", one or several. A gradient is the latest that a
            backward pass brought, through that call alone; it comes also when the backward pass runs after the block.
        detach: False keeps values in the graph, so that `torch.autograd.grad` can ask for their gradient.
        device: where to move what is kept; None leaves it where it is.
        copy: "auto" copies only what an in-place operation is about to overwrite; True copies at once; False never
            does, and reading what was overwritten is an error.
        reduce: what to keep of each tensor of real or complex numbers, a function of it; None keeps all.
        max_bytes: above this the forward is stopped by an `InputError`; None is no limit.
        threads: "own", or "all" to record the forwards of other threads too.

    Yields:
        For each layer its calls. Of a call `inputs`, `outputs`, `grad_inputs` and `grad_outputs` can be read, as far as
        they were asked for.

    Raises:
        LayerError: for layers that do not exist; at the end of the block if the model ran but one of `layers` did not.
        InputError: for an unknown `what` or `copy`, for a device with detach=False, and above `max_bytes`.
    """
    wanted = checked((what,) if isinstance(what, str) else what)
    if not detach and device is not None:
        raise InputError("a tensor that is moved is not the one in the graph.", got=f"detach=False, device={device!r}")
    if copy not in ("auto", True, False):
        raise InputError("unknown way to copy.", got=repr(copy), expected='"auto", True or False')
    root = unwrap(model)
    chosen = find(root, layers)
    records = Records(chosen, names(root))
    keeping = Keeping(detach, device, copy, reduce, max_bytes)
    aliases = Aliases()
    waiting: dict[str, list[Record]] = {}  # by layer: calls without a graph, which a checkpoint may repeat with one

    def gradients(record: Record, side: str, passing: Any) -> Any:
        if f"grad_{side}" not in wanted:
            return passing
        passing = alone(passing, (chosen[record.name], side))
        objects = side == "outputs"
        record.kept[f"grad_{side}"] = rebuild(passing, lambda tensor: _listen(tensor, keeping), objects=objects)
        return passing

    def values(record: Record, side: str, passing: Any) -> Any:
        if side not in wanted:
            return passing
        if keeping.hands_on_copies:
            passing = alone(passing, (chosen[record.name], side))
        record.kept[side] = rebuild(passing, lambda tensor: keeping.fill(Slot(), tensor))
        if keeping.hands_on_copies:
            return rebuild(passing, lambda tensor: keeping.copied(tensor) if recorded(tensor) else tensor)
        return passing

    def visit(name: str, passed: Passed) -> tuple[Passed, Finish]:
        repeated = waiting.get(name, [])
        # gradient checkpointing repeats what it did not keep, and records it this time
        repeats = _torch.inside_backward() and torch.is_grad_enabled() and (repeated or repeats_a_checkpoint())
        if not repeats:
            record = records.begin(name)
            if not torch.is_grad_enabled():
                waiting.setdefault(name, []).append(record)
            given = values(record, "inputs", gradients(record, "inputs", passed))

            def leave(output: Any) -> Any:
                own = rejoined(passed, given, output)
                instead = values(record, "outputs", gradients(record, "outputs", own))
                aliases.note(name, passed, given, own, instead)
                return instead

            return given, leave
        if len(repeated) != 1:
            for record in repeated:
                record.ambiguous = True
            return passed, unchanged
        record = repeated.pop()
        given = gradients(record, "inputs", passed)
        return given, lambda output: gradients(record, "outputs", rejoined(passed, given, output))

    with attached(root, layers, visit, threads, aliases):
        yield records


def _listen(tensor: Tensor, keeping: Keeping) -> Slot:
    """A slot that is filled when the gradient at `tensor` arrives; it is not kept alive by the graph."""
    slot = Slot()
    held = weakref.ref(slot)

    def fill(gradient: Tensor) -> None:
        if (awaiting := held()) is not None:
            keeping.fill(awaiting, gradient)

    on_gradient(tensor, fill)
    return slot
