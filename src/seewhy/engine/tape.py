"""One forward; the gradients of the chosen layers, and nothing recorded below them."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from seewhy import _torch
from seewhy._types import CallLabel
from seewhy.errors import GradientError, LayerError, MethodError
from seewhy.hooks.activations import activations_in, call_labels
from seewhy.hooks.aliases import Aliases
from seewhy.hooks.attach import Finish, Passed, after_forward, around
from seewhy.hooks.graph import behind
from seewhy.hooks.nested import rebuild, tensors

Key = TypeVar("Key")


@dataclass(frozen=True)
class Tape:
    """What one forward left behind, still in the graph. A tape is short-lived, and the graph goes with it.

    Attributes:
        outputs: what the model returned.
        activations: what every call of the chosen layers returned, in the order of the calls.
        image: the input that the recording began at; None where it began at a layer.
    """

    outputs: Any
    activations: dict[CallLabel, Tensor]
    image: Tensor | None = None


def gradients(
    scores: Float[Tensor, "B T"],
    leaves: Mapping[Key, Tensor],
    *,
    of: str = "",
    keep_graph: bool = False,
    differentiable: bool = False,
) -> Iterator[dict[Key, Tensor]]:
    """The gradient of each column of `scores` at each of `leaves`; zeros where the score does not depend on one.

    The images of a batch do not see each other, so one backward pass of the sum gives each image its own gradient.

    Args:
        scores: (B, T), of T targets for each image.
        leaves: tensors in the graph, under any keys.
        of: what the leaves are, for the error; their keys if it is not told.
        keep_graph: whether there will be more backward passes.
        differentiable: whether the gradients are in a graph themselves.

    Yields:
        For each target the gradients under the keys of `leaves`.

    Raises:
        GradientError: if the scores have no graph.
    """
    if not scores.requires_grad:
        raise GradientError(
            f"the score does not depend on {of or ', '.join(map(str, leaves))}.",
            got="a score without a gradient",
            expected="a score that torch operations compute from the output of the layer",
            do="choose another layer, or look for detach(), argmax() or numpy between the layer and the score",
        )
    columns = scores.unbind(1)
    for number, column in enumerate(columns):
        keep = keep_graph or differentiable or number + 1 < len(columns)
        found = torch.autograd.grad(
            column.sum(), list(leaves.values()), retain_graph=keep, create_graph=differentiable, allow_unused=True
        )
        yield {
            key: torch.zeros_like(leaf) if grad is None else grad
            for (key, leaf), grad in zip(leaves.items(), found, strict=True)
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
    kinds = ((node, node.name().rstrip("0123456789").removesuffix("Backward")) for node in behind(scores))
    functions = [node for node, kind in kinds if kind in _ACTIVATION_FUNCTIONS]
    if not functions:
        raise MethodError(
            "guided backpropagation needs an activation function on the way from the input to the score.",
            got="a graph without any",
            expected=", ".join(_ACTIVATION_FUNCTIONS),
            do='method="hires_cam" where the model is linear',
        )
    with ExitStack() as stack:
        for node in functions:
            stack.callback(node.register_prehook(_positive).remove)
        yield


def _positive(grads: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    return tuple(None if grad is None else grad.clamp(min=0) for grad in grads)


def record(
    forward: Callable[[], Any],
    layers: Mapping[str, nn.Module],
    held: StillRecording | None = None,
    *,
    from_start: bool = False,
) -> Tape:
    """Run `forward` once, without a graph up to the first of `layers` that returns, and with one from there on.

    What a layer returned is kept as a private copy, and a copy of that goes on into the model: no in-place operation,
    before or after, reaches what was kept. Where a layer returned its own input, and the model then wrote to it, a
    second run keeps these one tensor: what was kept is written there, in a graph that holds the whole forward. The
    parameters' `requires_grad` flags change nothing, nor does a `no_grad` or `inference_mode` inside the model, nor
    that it does with tensors what it may do without a graph, `numpy()` say: `held` sees to that. A layer that did not
    run is absent from the tape. Call it inside `guard`.

    Args:
        forward: runs the model.
        layers: the layers to record, by name.
        held: holds recording on; None for a model that has been seen to do without, which is helped if it does not now.
        from_start: record all of it, for gradients of the input, or of anything else that `forward` makes a leaf.
    """
    aliases = Aliases()
    if held is not None:
        tape: Tape | None = _run(forward, layers, held, aliases, recording=from_start)
    else:
        tape = _without_help(forward, layers, aliases, from_start)
    if tape is None:
        tape = _run(forward, layers, StillRecording(), aliases := Aliases(), recording=from_start)
    if aliases.written:
        return _run(forward, layers, StillRecording(), None, recording=True)
    return tape


def _without_help(
    forward: Callable[[], Any], layers: Mapping[str, nn.Module], aliases: Aliases, from_start: bool
) -> Tape | None:
    """The tape of a run that nothing watches; None where the model turned recording off after all."""
    try:
        tape = _run(forward, layers, None, aliases, recording=from_start)
    except RuntimeError as error:
        if any(part in str(error) for part in _OF_RECORDING):
            return None
        raise
    recorded = any(output.requires_grad for output in tensors(tape.outputs))
    return tape if recorded or not (tape.activations or from_start) else None


# what torch says to code that does with a tensor in a graph what only others can take
_OF_RECORDING = ("requires grad", "requires_grad", "deepcopy protocol", "nference tensors")


@contextmanager
def recording_from(name: str, layer: nn.Module) -> Iterator[None]:
    """While the block lasts, forwards are recorded from what this layer is given on, and not before."""

    def visit(_: str, passed: Passed) -> tuple[Passed, Finish]:
        torch.set_grad_enabled(True)  # for the rest of this forward; who records it sets it back
        first = next(tensors(passed))

        def own(tensor: Tensor) -> Tensor:
            return tensor.detach().requires_grad_() if tensor is first else tensor

        return rebuild(passed, own), _as_it_is

    with around({name: layer}, visit):
        yield


def _as_it_is(_: Any) -> None:
    """What a layer returns is left alone."""


@contextmanager
def replacing(layers: Mapping[str, nn.Module], label: CallLabel, activation: Tensor) -> Iterator[None]:
    """While the block lasts, the call `label` of one forward returns `activation` in place of its own.

    Raises `LayerError` where the model writes to what the layer was given and returned.
    """
    numbers, aliases = Counter[str](), Aliases()

    def answer(name: str, args: tuple[Any, ...], output: Any) -> Any:
        for level, old in activations_in(output).items():
            number = numbers[name + level]
            numbers[name + level] += 1
            if (name, level) == (label.name, label.level) and label.number in (None, number):
                instead = rebuild(output, partial(_instead, old, activation))
                aliases.note(name, args, args, output, instead)
                return instead
        return None

    with after_forward(layers, answer):
        yield
    aliases.check(())


def _instead(old: Tensor, new: Tensor, tensor: Tensor) -> Tensor:
    return new if tensor is old else tensor


def _run(
    forward: Callable[[], Any],
    layers: Mapping[str, nn.Module],
    held: StillRecording | None,
    aliases: Aliases | None,
    *,
    recording: bool = False,
) -> Tape:
    """Run `forward` once and record.

    Args:
        forward: runs the model.
        layers: the layers to record, by name.
        held: what holds recording on against the model.
        aliases: where to note layers that return what they are given; without it, these go on as that very tensor.
        recording: from the start.
    """
    calls: list[tuple[str, str]] = []
    found: list[Tensor] = []

    def splice(name: str, passed: Passed, output: Any) -> Any:
        going_on: dict[int, Tensor] = {}
        for level, activation in activations_in(output).items():
            if _torch.is_inside_func(activation):
                raise LayerError(
                    f"{name} runs inside a transform of torch.func, where nothing can be recorded.",
                    got="what it returned in a call of vmap, grad or the like",
                    do="choose a layer outside of it, or a method on the input, such as input_x_gradient or rise",
                )
            if held is None:
                torch.set_grad_enabled(True)  # for the rest of this forward; the context below sets it back
            else:
                held.begin()
            kept = activation.clone() if activation.requires_grad else activation.detach().clone().requires_grad_()
            calls.append((name, level))
            found.append(kept)
            if aliases is None and any(_torch.is_alias_of(given, activation) for given in tensors(passed)):
                _put(activation, kept)
            else:
                going_on[id(activation)] = kept.clone()
        if not going_on:
            return None
        instead = rebuild(output, lambda tensor: going_on.get(id(tensor), tensor))
        if aliases is not None:
            aliases.note(name, passed, passed, output, instead)
        return instead

    visit = around(layers, lambda name, passed: (passed, partial(splice, name, passed)))
    with torch.set_grad_enabled(recording), visit, held or nullcontext():
        if held is not None and recording:
            held.begin()
        outputs = forward()
    return Tape(outputs, dict(zip(call_labels(calls), found, strict=True)))


def _put(activation: Tensor, kept: Tensor) -> None:
    """Write what was kept to the tensor it is a copy of, so that the graph leads through it under all its names.

    The values stay, so that what autograd has saved of the tensor stays valid.
    """
    with _torch.same_version(activation):
        activation.copy_(kept)
    activation.grad_fn  # noqa: B018  # a view looks up its place in the graph when asked, and remembers the version


class Latest(saved_tensors_hooks):
    """While it is on, a graph keeps its tensors from the last span of each kind on; those before are let go.

    The graph itself stays whole, but a backward pass must end where the tensors do.
    """

    def __init__(self) -> None:
        super().__init__(self._keep, operator.itemgetter(0))
        self._spans: list[tuple[Hashable, str, list[list[Tensor]]]] = [(None, "", [])]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._spans.clear()  # the graph has what it needs, and goes when it does

    def begin(self, kind: Hashable, name: str) -> None:
        """A span begins. Those of one name, one after the other, are one span."""
        if (kind, name) == self._spans[-1][:2]:
            return
        self._spans.append((kind, name, []))
        last = {kind: number for number, (kind, _, _) in enumerate(self._spans[1:], 1)}
        first = min(last.values())
        for _, _, saved in self._spans[:first]:
            for held in saved:
                held.clear()
        del self._spans[1:first]
        self._spans[0][2].clear()

    def _keep(self, tensor: Tensor) -> list[Tensor]:
        saved = [tensor]
        self._spans[-1][2].append(saved)
        return saved


# what only tensors without a graph can
_WITHOUT_A_GRAPH = frozenset((Tensor.numpy, Tensor.__array__, Tensor.__deepcopy__, Tensor.__dlpack__))


class StillRecording(TorchFunctionMode):
    """Once recording is on, a model's own `no_grad` or `inference_mode` does not turn it off.

    What needs tensors without a graph gets them. Costs a Python call per operation.

    Attributes:
        helped: whether the model would have turned recording off, or could not have run in it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.helped = False
        self._recording = False
        self._left = ExitStack()  # of blocks of `inference_mode`, each by a block of ours inside it

    def __enter__(self) -> Self:
        enabled = torch.is_grad_enabled()
        self._left.enter_context(torch.inference_mode(False))  # the last to end: it puts back what all others change
        torch.set_grad_enabled(enabled)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._left.close()

    def begin(self) -> None:
        """Record from now on."""
        self._recording = True
        if torch.is_inference_mode_enabled():
            self._left.enter_context(torch.inference_mode(False))
        torch.set_grad_enabled(True)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self._recording:
            return func(*args, **kwargs)
        if torch.is_inference_mode_enabled():
            self.helped = True
            self.begin()
        if func is _torch.set_grad_enabled:
            self.helped = self.helped or not args[0]
            args = (True,)
        elif func in _WITHOUT_A_GRAPH:
            self.helped = True
            args = (args[0].detach(), *args[1:])
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            self.helped = True
            if "nference tensors" in str(error):  # made before recording began: copies can be in a graph
                return func(*rebuild(args, _ordinary), **rebuild(kwargs, _ordinary))
            if "leaf Variable" in str(error):  # it writes to a weight, as it may where nothing is recorded
                with torch.no_grad():
                    return func(*args, **kwargs)
            raise


def _ordinary(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.is_inference() else tensor
