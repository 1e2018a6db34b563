"""One forward; the gradients of the chosen layers, and nothing recorded below them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, is_dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from seewhy import _torch
from seewhy.errors import GradientError, MethodError
from seewhy.hooks.attach import after_forward
from seewhy.hooks.nested import rebuild, tensors


class Call(NamedTuple):
    """What one call of a layer returned; for a layer that returns several, one of them: its `level` is "[0]", say."""

    layer: str
    level: str
    activation: Tensor


@dataclass(frozen=True)
class Tape:
    """What one forward left: its outputs, and the activations of every call of the chosen layers, in order.

    Both are still in the graph; a tape is short-lived, and the graph goes with it.
    """

    outputs: Any
    calls: list[Call]

    @property
    def activations(self) -> dict[str, Tensor]:
        """By layer: "layer4"; "relu#0", "relu#1" for a layer that ran more than once; "fpn[0]" for a level."""
        labels = call_labels([call.layer + call.level for call in self.calls])
        return {label: call.activation for label, call in zip(labels, self.calls, strict=True)}


def call_labels(names: Sequence[str]) -> list[str]:
    """A label for each call, from the names of the layers called: the name, and its number where there are several."""
    totals, counts = Counter(names), Counter[str]()
    labels = []
    for name in names:
        labels.append(name if totals[name] == 1 else f"{name}#{counts[name]}")
        counts[name] += 1
    return labels


def activations_in(output: Any) -> dict[str, Tensor]:
    """The activations in what a layer returned: the first floating point tensor, in whatever nesting, as "".

    Of a plain dict, such as a feature pyramid returns, each level of more than one place: "[0]", "[1]". (A dataclass
    that is a mapping too, as transformers has them, holds stages of one activation rather than several.)
    """
    if isinstance(output, Mapping) and not is_dataclass(output):
        levels = {f"[{key}]": value for key, value in output.items() if _is_activation(value)}
        return {key: level for key, level in levels.items() if level.shape[2:].numel() > 1}
    first = next(filter(_is_activation, tensors(output)), None)
    return {} if first is None else {"": first}


def activation_in(output: Any) -> Tensor | None:
    """The first of them."""
    return next(iter(activations_in(output).values()), None)


def _is_activation(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def gradients(
    scores: Float[Tensor, "B T"],
    activations: Mapping[str, Tensor],
    *,
    keep_graph: bool = False,
    differentiable: bool = False,
) -> Iterator[dict[str, Tensor]]:
    """For each column of `scores` its gradient at each of a tape's `activations`; zeros where it does not depend on it.

    The images of a batch do not see each other, so one backward pass of the sum gives each its own gradient.
    `keep_graph` allows for more of them afterwards, `differentiable` gradients are in a graph themselves.
    Raises `GradientError` if the score depends on none of them.
    """
    if not scores.requires_grad:
        raise GradientError(
            f"the score does not depend on {', '.join(activations)}.",
            got="a score without a gradient",
            expected="a score that torch operations compute from the output of the layer",
            do="choose another layer, or look for detach(), argmax() or numpy between the layer and the score",
        )
    columns = scores.unbind(1)
    for number, column in enumerate(columns):
        keep = keep_graph or differentiable or number + 1 < len(columns)
        found = torch.autograd.grad(
            column.sum(),
            list(activations.values()),
            retain_graph=keep,
            create_graph=differentiable,
            allow_unused=True,
        )
        yield {
            name: torch.zeros_like(activation) if grad is None else grad
            for (name, activation), grad in zip(activations.items(), found, strict=True)
        }


def along(gradient: Tensor, activation: Tensor) -> Tensor:
    """The Hessian of the score times `activation`, by a second backward pass through its differentiable `gradient`.

    Zeros where the score is linear in the activation.
    """
    product = (gradient * activation.detach()).sum()
    if not product.requires_grad:
        return torch.zeros_like(activation)
    (found,) = torch.autograd.grad(product, [activation], retain_graph=True, materialize_grads=True)
    return found


_ACTIVATION_FUNCTIONS = (
    "Relu", "Gelu", "Silu", "LeakyRelu", "PreluKernel", "RreluWithNoise", "Elu", "Celu", "Hardtanh", "Hardswish",
    "Threshold", "Softplus", "Mish",
)  # fmt: skip


@contextmanager
def guided(scores: Tensor) -> Iterator[None]:
    """While the block lasts, gradients of `scores` enter an activation function from above only where positive.

    The functions are found in the graph, whatever called them: a module, `F.relu`, `torch.relu`, `tensor.relu_()`.
    Raises `MethodError` if there is none: then it would be the plain gradient under another name.
    """
    with ExitStack() as stack:
        found = 0
        for node in _graph(scores):
            if node.name().rstrip("0123456789").removesuffix("Backward") in _ACTIVATION_FUNCTIONS:
                stack.callback(node.register_prehook(_positive).remove)
                found += 1
        if not found:
            raise MethodError(
                "guided backpropagation needs an activation function on the way from the input to the score.",
                got="a graph without any",
                expected=", ".join(_ACTIVATION_FUNCTIONS),
                do='method="hires_cam" where the model is linear',
            )
        yield


def _positive(grads: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    return tuple(None if grad is None else grad.clamp(min=0) for grad in grads)


def _graph(scores: Tensor) -> Iterator[Node]:
    """Every node of the graph behind `scores`, once."""
    waiting, seen = [scores.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting.extend(after for after, _ in node.next_functions)


def record(forward: Callable[[], Any], layers: Mapping[str, nn.Module], *, from_start: bool = False) -> Tape:
    """Run `forward` once, under no_grad up to the first of `layers` that returns, recording from there on.

    What a layer returned is kept as a private copy, and a copy of that goes on into the model: no in-place operation,
    before or after, reaches what was kept. The parameters' flags, and a no_grad inside the model, change nothing.
    Call it inside `guard`. A layer that did not run is absent from the tape's activations. `from_start` records all
    of it, for gradients of the input, or of anything else that `forward` makes a leaf.
    """
    if from_start:
        return _run(forward, layers, _StillRecording(), recording=True)
    tape = _run(forward, layers, nullcontext())
    if tape.calls and not any(output.requires_grad for output in tensors(tape.outputs)):
        # part of the model runs under its own no_grad: a frozen backbone, say
        return _run(forward, layers, _StillRecording())
    return tape


@contextmanager
def replacing(layers: Mapping[str, nn.Module], label: str, activation: Tensor) -> Iterator[None]:
    """While the block lasts, one forward's call `label` of `layers` returns `activation` in place of its own."""
    numbers = Counter[str]()

    def answer(name: str, _: tuple[Any, ...], output: Any) -> Any:
        for level, old in activations_in(output).items():
            key = name + level
            called = f"{key}#{numbers[key]}"
            numbers[key] += 1
            if label in (key, called):
                return rebuild(output, partial(_instead, old, activation))
        return None

    with after_forward(layers, answer):
        yield


def _instead(old: Tensor, new: Tensor, tensor: Tensor) -> Tensor:
    return new if tensor is old else tensor


def _run(
    forward: Callable[[], Any],
    layers: Mapping[str, nn.Module],
    mode: AbstractContextManager[Any],
    *,
    recording: bool = False,
) -> Tape:
    calls: list[Call] = []

    def splice(name: str, _: tuple[Any, ...], output: Any) -> Any:
        going_on: dict[int, Tensor] = {}
        for level, activation in activations_in(output).items():
            torch.set_grad_enabled(True)  # for the rest of this forward; the context below sets it back
            kept = activation.clone() if activation.requires_grad else activation.detach().clone().requires_grad_()
            calls.append(Call(name, level, kept))
            going_on[id(activation)] = kept.clone()
        return rebuild(output, lambda tensor: going_on.get(id(tensor), tensor)) if going_on else None

    with torch.set_grad_enabled(recording), after_forward(layers, splice), mode:
        outputs = forward()
    return Tape(outputs, calls)


class _StillRecording(TorchFunctionMode):
    """Once recording is on, a model's own `no_grad` does not turn it off. Costs a Python call per operation."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _torch.set_grad_enabled and torch.is_grad_enabled():
            args = (True,)
        return func(*args, **(kwargs or {}))
