"""An explanation as a program: the library's own computation, traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import GraphModule
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from seewhy import _torch, targets
from seewhy.engine.session import Session
from seewhy.errors import InputError, MethodError, SeewhyError, TargetError
from seewhy.evidence import Recorder
from seewhy.explainer import Explainer
from seewhy.exporting._card import INPUT, PREDICTED
from seewhy.hooks.nested import rebuild, tensors
from seewhy.results import Explanation

# what a program cannot hold, and why
_REFUSED = {
    **dict.fromkeys(("score", "scores", "token_scores"), "it runs the model again and again"),
    **dict.fromkeys(("neutral_replay", "references"), "it runs the model on other images, too"),
    **dict.fromkeys(("generator", "noisy_gradients"), "it draws random numbers"),
}


@dataclass(frozen=True)
class Traced:
    """A program, and what the library made of the example.

    Attributes:
        graph: from images (B, C, *space), for `INPUT` class indices (B,) too, to a tensor for each of `names`.
        names: of what it returns.
        layout: the model's outputs, with a name in place of each tensor.
        explanation: of the example.
        definite: what was explained, made definite for the example.
        examples: what the graph was traced with: two rows or more, if their number is open.
    """

    graph: GraphModule
    names: tuple[str, ...]
    layout: Any
    explanation: Explanation
    definite: targets.BaseTarget
    examples: tuple[Tensor, ...]


@dataclass(frozen=True)
class _Asked(targets.BaseTarget):
    """What a program explains, made definite when it sees the output. The output's values decide nothing else.

    given: the class of each image, where that is an input of the program. definite: the target as it is for the
    example.
    """

    rule: Any
    given: Tensor | None
    definite: targets.BaseTarget

    def __call__(self, outputs: Any) -> Tensor:
        raise NotImplementedError("it is resolved first")

    def resolved(self, outputs: Any, context: targets.Context) -> targets.BaseTarget:
        if self.rule in (PREDICTED, INPUT):
            kind = getattr(self.definite, "kind", None)
            index = targets.class_scores(outputs, kind).predicted if self.given is None else self.given
            return targets.Category(index, kind)
        same: targets.BaseTarget = rebuild(self.definite, lambda rows: rows[:1].expand(context.batch, *rows.shape[1:]))
        return same


def traced(
    explainer: Explainer,
    run: Session,
    target: Any,
    *,
    dynamic_batch: bool,
    forms: Mapping[Any, Callable[..., Any]],
) -> Traced:
    """What `explainer` computes in the session, as a graph of aten operations.

    One forward and the backward passes of the method run on tensors without values: the code that explains is the code
    that is exported.

    Args:
        explainer: with one method.
        run: a session of the model on the example.
        target: "predicted", "input", or what `seewhy.explain` takes.
        dynamic_batch: whether the number of images stays open.
        forms: what to trace in place of some aten operations.

    Raises:
        MethodError: for a method that cannot be a program, with the reason.
        TargetError: for a target that differs from image to image.
        InputError: for a model that is not called with one batch of images.
    """
    (method,) = explainer.methods
    if needed := [need for need in _REFUSED if need in method.needs]:
        raise MethodError(
            f"{method.name} cannot be exported: {_REFUSED[needed[0]]}.",
            got=", ".join(needed),
            expected="a method of one forward, and of gradients of it or of what follows a layer",
            do='method="grad_cam", or "layer_cam"',
        )
    if (
        not isinstance(run.call.images, Tensor)
        or run.call.canvas
        or len([*tensors((run.call.args, run.call.kwargs))]) > 1
    ):
        raise InputError(
            "a program takes one batch of images.",
            got="a model that is called with more than that, or lays its images out itself",
            expected="a tensor (B, C, *space)",
        )
    first = explainer.recorder.first(run, None if target in (PREDICTED, INPUT) else target)
    definite = targets.as_target(first.target)
    (explanation,) = explainer.explained(first).values()
    if target not in (PREDICTED, INPUT):
        _check_the_same(definite, target, first.outputs, explainer.recorder.context(run.call))
    images = run.call.image
    if dynamic_batch and len(images) == 1:
        images = images.expand(2, *images.shape[1:]).contiguous()  # a size of 1 is never taken for open
    given = [targets.classes_of(definite)[:1].expand(len(images)).clone()] if target == INPUT else []
    examples = (images, *given)
    settings = explainer.recorder.settings
    settings = replace(settings, limits=replace(settings.limits, traced=True))
    recorder = Recorder(explainer.methods, None, settings, lambda call: targets.Context(call.batch))
    found: list[Any] = []

    def program(images: Tensor, *classes: Tensor) -> tuple[Tensor, ...]:
        call = run.call.with_rows(lambda rows: rows, images)
        asked = _Asked(target, classes[0] if classes else None, definite)
        (made,) = explainer.explained(recorder.record(replace(run, call=call), call, asked, first.plan)).values()
        layout, outputs = named(made.outputs)
        outputs |= {"scores": made.scores, "heatmap": made.heatmap}
        outputs |= {f"maps.{layer}": grid for layer, grid in made.maps.items()}
        found[:] = layout, tuple(outputs)
        return tuple(tensor.detach() for tensor in outputs.values())

    graph = _graph(program, examples, dynamic_batch, forms, method.name)
    layout, names = found
    return Traced(graph, names, layout, explanation, definite, examples)


def named(outputs: Any) -> tuple[Any, dict[str, Tensor]]:
    """A model's outputs with a name in place of each tensor, and the tensors by these names.

    A single tensor is "outputs", others are "outputs.out", "outputs.0" and so on.
    """
    flat: dict[str, Tensor] = {}

    def walk(part: Any, name: str) -> Any:
        if isinstance(part, Tensor):
            flat[name] = part
            return name
        if isinstance(part, Mapping):
            return {str(key): walk(child, f"{name}.{key}") for key, child in part.items()}
        if isinstance(part, tuple | list):
            return [walk(child, f"{name}.{number}") for number, child in enumerate(part)]
        return None

    return walk(outputs, "outputs"), flat


def _check_the_same(definite: targets.BaseTarget, target: Any, outputs: Any, context: targets.Context) -> None:
    """Refuse what asks something else of another image: another class of each, or what the model finds in it."""
    try:
        again = targets.resolve(target, rebuild(outputs, lambda tensor: -tensor.detach()), context)
    except SeewhyError:  # it looks for something that other outputs do not have
        again = None
    pairs = list(zip(tensors(definite), tensors(again), strict=True)) if again else []
    same = all(torch.equal(rows, others) for rows, others in pairs)
    if again is None or not same or not all(bool((rows == rows[:1]).all()) for rows, _ in pairs):
        raise TargetError(
            "a program asks the same of every image, and this target does not.",
            got=type(definite).__name__,
            expected="one class, or a mask, a prompt or a function for all images",
            do='target="predicted", or target="input" and the classes to the program',
        )


def _graph(
    program: Callable[..., tuple[Tensor, ...]],
    examples: tuple[Tensor, ...],
    dynamic: bool,
    forms: Mapping[Any, Callable[..., Any]],
    method: str,
) -> GraphModule:
    """The operations that `program` runs, on tensors without values; the first size of all stays open if `dynamic`."""
    from torch.fx.experimental.proxy_tensor import make_fx  # this and the next bring sympy
    from torch.fx.experimental.symbolic_shapes import DimDynamic, GuardOnDataDependentSymNode, StatelessSymbolicContext

    mode = _torch.without_values()
    images = examples[0]
    fixed = [DimDynamic.STATIC] * (images.ndim - 1)
    first = DimDynamic.DYNAMIC if dynamic else DimDynamic.STATIC
    bare = mode.from_tensor(images, symbolic_context=StatelessSymbolicContext(dynamic_sizes=[first, *fixed]))
    classes = [bare.new_zeros(bare.shape[0], dtype=given.dtype) for given in examples[1:]]  # as many as images
    try:
        with mode, sdpa_kernel(SDPBackend.MATH), _without_fast_path(), _InRows():
            traces = make_fx(program, dict(forms), tracing_mode="symbolic", _allow_non_fake_inputs=True)
            return traces(bare, *classes)
    except GuardOnDataDependentSymNode as error:
        raise MethodError(
            f"{method} on this model cannot be exported: what is computed depends on values, not only on shapes.",
            got=str(error).splitlines()[0],
            expected="a forward, a target and a method that are the same operations for every image",
        ) from error


class _InRows(TorchFunctionMode):
    """Pools what lies in rows: of channels last, torch sets the strides of the result, and no program has strides."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.adaptive_avg_pool2d:
            args = (args[0].contiguous(), *args[1:])
        return func(*args, **(kwargs or {}))


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """Torch's own fused transformer layers have no gradient and no form in ONNX."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)
