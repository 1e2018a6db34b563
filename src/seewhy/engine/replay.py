"""Run again only what follows a layer: whatever had returned before it answers from memory instead of computing."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy._torch import is_alias_of
from seewhy._types import CallLabel
from seewhy.errors import ReplayWarning, warn
from seewhy.hooks.activations import activations_in, call_labels
from seewhy.hooks.attach import after_forward, instead_of_forward
from seewhy.hooks.nested import rebuild, tensors

Lend = Callable[[Tensor], Tensor]  # a tensor with a row per image -> N rows of one image; other tensors pass
Replay = Callable[[int, Tensor], Any]  # (image, activations (N, ...)) -> what the model returns for these N


@dataclass(frozen=True)
class Memory:
    """What had been returned when one call of a layer returned, by module, in the order of the calls.

    Of nested calls only the outermost is kept: it answers for those inside it. The layer's call is the last of its own
    answers; `call` is its number among all calls of the layer, from 0; `level` says which of several activations in
    what it returned is meant. in_place: the model writes to what the layer returned and was given, and reads both.
    """

    layer: nn.Module
    call: int
    answers: Mapping[nn.Module, list[Any]] = field(default_factory=dict)
    level: str = ""
    in_place: bool = False


@contextmanager
def remember(model: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[Callable[[], dict[CallLabel, Memory]]]:
    """While the block lasts, forwards of `model` are remembered; afterwards: a memory for each call of `layers`.

    The keys are those of a tape of the same forward. What a module returned is
    copied, so that nothing that happens to it later is remembered.
    """
    names = {module: name for name, module in layers.items()}
    calls: Counter[nn.Module] = Counter()
    done: list[tuple[nn.Module, Any]] = []
    found: list[tuple[tuple[str, str], Memory]] = []
    depth = 0  # of calls inside each other

    def note(module: nn.Module, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal depth
        if not depth:  # the tape may have to run the model again
            calls.clear()
            done.clear()
            found.clear()
        start = len(done)
        depth += 1
        try:
            output = own(*args, **kwargs)
        finally:
            depth -= 1
        done[start:] = [(module, rebuild(output, lambda tensor: tensor.detach().clone()))]
        if module in names:
            if levels := activations_in(output):
                answers = defaultdict(list)
                for earlier, kept in done:
                    answers[earlier].append(kept)
                for level in levels:
                    found.append(((names[module], level), Memory(module, calls[module], dict(answers), level)))
            calls[module] += 1
        return output

    def memories() -> dict[CallLabel, Memory]:
        return dict(zip(call_labels([name for name, _ in found]), (memory for _, memory in found), strict=True))

    with instead_of_forward(model.modules(), note):
        yield memories


def replay(memory: Memory, forward: Callable[[Lend], Any], lend: Lend, activations: Tensor) -> Any:
    """What the model returns when the call of the layer in `memory` gives `activations`, which it may overwrite.

    A layer that returns what it was given has them written there where `memory.in_place`.

    forward: runs the model on inputs lent by `lend`. Call it inside `guard`.
    """
    waiting = {module: iter(outputs) for module, outputs in memory.answers.items()}
    if memory.in_place and memory.answers:  # its own answer would be another tensor than what it is given
        waiting[memory.layer] = iter(memory.answers[memory.layer][:-1])
    nothing = object()

    def answer(module: nn.Module, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kept = next(waiting[module], nothing)
        return own(*args, **kwargs) if kept is nothing else rebuild(kept, lend)

    # calls inside a module that answers do not happen again, so they do not count
    place = len(memory.answers[memory.layer]) - 1 if memory.answers else memory.call
    calls = itertools.count()

    def splice(_: str, args: tuple[Any, ...], output: Any) -> Any:
        if next(calls) != place:
            return None
        original = activations_in(output)[memory.level]
        if memory.in_place and any(is_alias_of(given, original) for given in tensors(args)):
            original.copy_(activations)
            return None
        return rebuild(output, lambda tensor: activations if tensor is original else tensor)

    with (
        torch.set_grad_enabled(activations.requires_grad),
        instead_of_forward(waiting, answer),
        after_forward({"": memory.layer}, splice),
    ):
        return forward(lend)


def replayer(
    memory: Memory,
    forward: Callable[[Lend], Any],
    activations: Tensor,
    score: Callable[[int, Any, int], Float[Tensor, "rows T"]],
    expected: Float[Tensor, "B T"],
    tolerance: Tensor,
    rows_at_once: int = 4,
) -> tuple[Replay, int | None]:
    """The cheapest way to run on changed activations that gives the original's results on the unchanged ones.

    A way is tried on copies of each image beside each other, and beside companions that are something else, so that a
    model whose rows depend on each other is noticed: `companions`. Rows are lent as views of one, which take no memory,
    or as copies if the model writes to them. If neither will do, the whole model runs; or batches of the caller's size,
    for a model that takes no other; where rows depend on each other, one at a time. These are slow, and there is a
    `ReplayWarning`, which also says so where no way gives the original's results.

    Args:
        memory: of the layer's call.
        forward: runs the model on inputs lent.
        activations: (B, ...), what the layer returned.
        score: (image, outputs, rows) -> the scores of the rows, by what is asked of that image.
        expected: the original scores.
        tolerance: how far rounding alone may move a score.
        rows_at_once: how many rows a trial may have.

    Returns:
        The way, and how many rows may run at once; None for any number.
    """
    batch = activations.shape[0]

    def way(memory: Memory, spread: Callable[[Tensor, int], Tensor]) -> Replay:
        def run(image: int, changed: Tensor) -> Any:
            def lend(tensor: Tensor) -> Tensor:
                of_batch = tensor.ndim > 0 and tensor.shape[0] == batch
                return spread(tensor[image : image + 1], len(changed)) if of_batch else tensor

            return replay(memory, forward, lend, changed)

        return run

    def filled(run: Replay) -> Replay:
        """The same in batches of as many rows as the caller's, and no other: the last row fills up."""

        def run_filled(image: int, changed: Tensor) -> Any:
            own = len(changed)
            rows = torch.cat([changed, changed[-1:].expand(batch - own, *changed.shape[1:])])
            return rebuild(run(image, rows), lambda made: made[:own] if made.ndim and len(made) == batch else made)

        return run_filled

    def agrees(run: Replay, most: int) -> bool:
        for image in range(batch):
            own = activations[image : image + 1]
            for rows, unchanged in [(own.clone(), slice(None))] if most == 1 else companions(own, most):
                found = score(image, run(image, rows), len(rows))[unchanged]
                if not bool(((found - expected[image]).abs() <= tolerance).all()):
                    return False
        return True

    def fault(run: Replay, most: int = rows_at_once) -> str:
        try:
            return "" if agrees(run, most) else "another score for unchanged activations"
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # what the model itself raises, it raises again when the whole of it runs below
            return f"{type(error).__name__}: {error}".splitlines()[0]

    watched: list[Tensor] = []

    def watch(row: Tensor, rows: int) -> Tensor:
        watched.append(row.clone())
        return watched[-1].expand(rows, *row.shape[1:])

    # some operations write to a view of one row in silence: that shows in the version of what was lent, if it has one
    if not fault(way(memory, watch)) and not any(row.is_inference() or row._version for row in watched):
        return way(memory, _view), None
    copied, in_place = way(memory, _copy), way(replace(memory, in_place=True), _copy)
    if not (reason := fault(copied)):
        return copied, None
    if not fault(in_place):
        return in_place, None
    whole = way(Memory(memory.layer, memory.call, level=memory.level), _copy)
    name = type(memory.layer).__name__
    slow = f"{name} cannot be replayed ({reason}): the whole model runs for every change, which is slow."
    if not fault(whole):
        warn(f"{slow} A forward that keeps state does this.", ReplayWarning)
        return whole, None
    for run in (filled(copied), filled(whole)):
        if not fault(run, min(batch, rows_at_once)):
            return run, batch
    for run in (copied, in_place, whole):
        if not fault(run, 1):
            warn_of_mixing(f"the rows behind {name}")
            return run, 1
    warn(
        f"{slow} That too gives {fault(whole, 1)}: the map may be wrong. "
        "A forward that draws at random or counts its calls does this. A method of gradients runs it once: choose "
        "layer_cam.",
        ReplayWarning,
    )
    return whole, 1


def companions(own: Tensor, rows: int = 4) -> list[tuple[Tensor, slice]]:
    """Batches by which a model is tried whose rows may depend on each other, and which of their rows are `own`.

    Args:
        own: one row, (1, ...).
        rows: how many rows a batch may have, 2 to 4.
    """
    others = (own.flip(-1) * 2 + 1, -own, own.flip(-1)) if own.is_floating_point() else (own.flip(-1),) * 3
    several = others[: rows - 1]
    return [(own.repeat_interleave(rows, 0), slice(None)), (torch.cat([*several, own]), slice(rows - 1, None))]


def warn_of_mixing(what: str) -> None:
    """Warn that rows run one at a time."""
    warn(
        f"{what} depend on each other in this model: each runs alone, which is slow. "
        "BatchNorm without running statistics, attention over the batch or experts with a capacity do this.",
        ReplayWarning,
    )


def _view(row: Tensor, rows: int) -> Tensor:
    return row.expand(rows, *row.shape[1:]) if rows > 1 else row.clone()


def _copy(row: Tensor, rows: int) -> Tensor:
    return row.repeat_interleave(rows, 0)


def rounding(outputs: Any, activations: Tensor) -> Tensor:
    """How far rounding alone may move a score: a share of the largest value that the model returned."""
    floats = [tensor.detach() for tensor in tensors(outputs) if tensor.is_floating_point() and tensor.numel()]
    coarsest = max(torch.finfo(tensor.dtype).eps for tensor in [activations, *floats])
    largest = torch.stack([tensor.abs().max() for tensor in floats]).max()
    return torch.mul(largest, coarsest**0.6)  # 7e-5 of it in float32: many layers add up
