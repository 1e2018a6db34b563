"""Change what passes through layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from seewhy.errors import InputTypeError
from seewhy.hooks.aliases import Aliases
from seewhy.hooks.attach import Finish, Passed, Threads
from seewhy.hooks.edits import Edit
from seewhy.hooks.nested import is_continuous, rebuild
from seewhy.hooks.passing import What, alone, attached, checked, on_gradient, rejoined
from seewhy.hooks.select import Layer, find
from seewhy.hooks.wrappers import unwrap


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

    Blocks nest: each sees what those around it made. A layer whose gradients are edited hands its tensors on as lazy
    copies, as in `capture`.

    Args:
        model: any module, in whatever mode.
        edits: layers (a name, pattern, module or type) -> a function, or several, from each tensor of real or complex
            numbers to the one that takes its place: `clip`, `scale`, `mask`, `zero`, `noise`, `replace`, or any other.
            All that fit a layer are applied, in order.
        what: "inputs", "outputs", "grad_inputs" or "grad_outputs". An edit of gradients belongs to the graph that the
            forward made inside the block, whenever its backward pass runs. Under gradient checkpointing the backward
            pass must run inside the block: it repeats the forward, and that is edited too.
        threads: "own", or "all" to change the forwards of other threads too.

    Raises:
        LayerError: for layers that do not exist; for one that returns its own input where the model writes to that in
            place afterwards; at the end of the block if the model ran but an entry of `edits` changed nothing.
        InputError: for an unknown `what`.
        InputTypeError: in the forward or backward pass, if a function does not return a tensor.
    """
    checked([what])
    root = unwrap(model)
    chosen = find(root, list(edits))
    chains: dict[str, list[Edit]] = {name: [] for name in chosen}
    for layer, functions in edits.items():
        for name in find(root, layer):
            chains[name].extend([functions] if callable(functions) else functions)
    side, aliases = what.removeprefix("grad_"), Aliases()

    def visit(name: str, passed: Passed) -> tuple[Passed, Finish]:
        def change(tensor: Tensor) -> Tensor:
            for function in chains[name]:
                tensor = _edited(function, tensor, name)
            return tensor

        def apply(passing: Any) -> Any:
            objects = side == "outputs"  # those that a layer is given stay as they are
            if what == side:
                return rebuild(passing, lambda t: change(t) if is_continuous(t) else t, objects=objects)
            passing = alone(passing, (chosen[name], side))
            rebuild(passing, lambda tensor: on_gradient(tensor, change), objects=objects)
            return passing

        given = passed if side == "outputs" else apply(passed)

        def leave(output: Any) -> Any:
            own = output if what == "inputs" else rejoined(passed, given, output)
            instead = apply(own) if side == "outputs" else own
            aliases.note(name, passed, given, own, instead)
            return instead

        return given, leave

    with attached(root, list(edits), visit, threads, aliases):
        yield


def _edited(function: Edit, tensor: Tensor, name: str) -> Tensor:
    changed = function(tensor)
    if not isinstance(changed, Tensor):
        raise InputTypeError(
            f"the edit of {name} did not return a tensor.", got=type(changed).__name__, do="return the tensor to use"
        )
    return changed
