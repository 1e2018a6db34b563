"""One forward of a model, recorded and scored, and where in the model it is looked at."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from seewhy import targets
from seewhy._types import CallLabel, Fold
from seewhy.engine.libra import Libra
from seewhy.engine.probe import Limits, Probe
from seewhy.engine.session import Session
from seewhy.engine.tape import Tape
from seewhy.errors import OutputError
from seewhy.geometry.grid import Grid
from seewhy.geometry.observe import Seen
from seewhy.geometry.placement import Placement
from seewhy.hooks.nested import rebuild, tensors
from seewhy.inputs import Inputs

Value = TypeVar("Value")
Gradients = Literal["plain", "libra"]


@dataclass(frozen=True)
class Settings:
    """What the caller said on how evidence is gathered.

    Attributes:
        grid: how the layers lie over the input: the size of their grid, or a function to (B, C, *grid); None finds out.
        generator: of the methods that draw.
        limits: how changed rows are run.
        gradients: "plain", or "libra" for those of `Libra`.
    """

    grid: Fold | tuple[int, ...] | None
    generator: Generator
    limits: Limits
    gradients: Gradients = "plain"

    @property
    def balance(self) -> AbstractContextManager[Any]:
        """What a forward is recorded in, so that its gradients are those that were asked for."""
        return Libra() if self.gradients == "libra" else nullcontext()


@dataclass(frozen=True)
class Plan:
    """Where to look in a model, for inputs of one shape.

    Attributes:
        layers: the names of the layers to record.
        chosen: the calls of them to look at; all of them where the caller named the layers.
        stages: the last call of every resolution, for the methods that look at these.
        reason: why these were chosen, in a sentence.
        grids: how the calls lie over the input, as far as it has been worked out.
        placements: where the grids lie that do not cover the whole input as it is.
        own: calls that lie otherwise for each image, so that the plan holds for none but the one it was made for.
        nowhere: of calls that the caller named and that have no places, what there is to say of it.
        added: whether the calls are parallel, each with a part of what speaks for the score: their maps add up.
        seen: what one forward shows of all layers, once that has been asked for.
        sequences: how sequences of tokens lie over it, by their length, once that has been worked out.
        attention: which calls of attention are those over the image's tokens, once that has been worked out.
        classifiers: which of the linear layers of a forward is given a layer's global average, once that was seen.
    """

    layers: tuple[str, ...]
    chosen: tuple[CallLabel, ...] = ()
    stages: tuple[CallLabel, ...] = ()
    reason: str = ""
    grids: dict[CallLabel, Grid] = field(default_factory=dict)
    placements: dict[CallLabel, Placement] = field(default_factory=dict)
    own: list[CallLabel] = field(default_factory=list)
    nowhere: dict[CallLabel, str] = field(default_factory=dict)
    added: bool = False
    seen: list[Seen] = field(default_factory=list)
    sequences: dict[int, Grid] = field(default_factory=dict)
    attention: list[Any] = field(default_factory=list)
    classifiers: dict[CallLabel, int] = field(default_factory=dict)

    def holds(self, label: CallLabel) -> bool:
        """Whether this call is looked at."""
        looked_at = {found.call for found in self.chosen + self.stages}
        return label.name in self.layers and (not looked_at or label in looked_at)

    @property
    def note(self) -> str:
        """What there is to say of the choice, and of the places of what the caller chose."""
        return " ".join(filter(None, (self.reason, *self.nowhere.values())))

    @property
    def frames(self) -> dict[CallLabel, list[CallLabel]]:
        """For each call whose rows are frames of one image: these, in their order. So for calls that saw one each."""
        rows: dict[CallLabel, list[tuple[int, CallLabel]]] = {}
        for label, grid in self.grids.items():
            if grid.rows is not None and grid.rows.frame is not None:
                whole = label.call if grid.rows.count > 1 else label._replace(number=None)
                rows.setdefault(whole, []).append((grid.rows.frame, label))
        return {whole: [label for _, label in sorted(found)] for whole, found in rows.items()}


@dataclass(frozen=True)
class Forward:
    """One forward, recorded and scored.

    Attributes:
        run: the session it ran in.
        call: what the model was called with.
        plan: where it is looked at.
        tape: what it left, in the graph.
        target: what is explained, made definite.
        scores: (B,) or (B, T), in the graph.
        watched: what each provider's watch yielded.
        settings: what the caller said.
        record: (call, target, plan) -> another forward of the session.
        fold_of: (plan, label, what the layer returned, call) -> what takes it to (B, C, *grid).
    """

    run: Session
    call: Inputs
    plan: Plan
    tape: Tape
    target: targets.Target
    scores: Tensor
    watched: Mapping[Any, Any]
    settings: Settings
    record: Callable[[Inputs, Any, Plan], Forward]
    fold_of: Callable[[Plan, CallLabel, Tensor, Inputs], Fold]
    _kept: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def outputs(self) -> Any:
        """What the model returned."""
        return self.tape.outputs

    @property
    def columns(self) -> Float[Tensor, "B T"]:
        """The scores (B, T); T = 1 for (B,)."""
        return self.scores if self.scores.ndim == 2 else self.scores[:, None]

    @property
    def activations(self) -> dict[CallLabel, Tensor]:
        """What the calls returned that are looked at."""
        return {label: kept for label, kept in self.tape.activations.items() if self.plan.holds(label)}

    @property
    def probabilities(self) -> Tensor | None:
        """(B,) or (B, T), of the classes explained; None where the target is about something else."""
        return targets.probabilities(self.target, self.outputs)

    def once(self, function: Callable[..., Value], *arguments: Hashable) -> Value:
        """`function(forward, *arguments)`, computed once: for all layers, targets and providers that ask for it."""
        key = function, arguments
        if key not in self._kept:
            self._kept[key] = function(self, *arguments)
        found: Value = self._kept[key]
        return found

    def fold(self, label: CallLabel) -> Fold:
        """What takes this call's tensors to (B, C, *grid)."""
        return self.once(_fold, label)

    def again(self, call: Inputs, target: targets.Target | None = None) -> Forward:
        """Another call of the model, recorded at the same places; for the same target unless another one is given."""
        return self.record(call, self.target if target is None else target, self.plan)

    def at(self, plan: Plan) -> Forward:
        """The same forward, looked at as another plan says."""
        return replace(self, plan=plan, _kept={})

    def asked(self, ask: Callable[[targets.Target, Any], targets.Target] | None) -> Forward:
        """The same forward with the target that `ask` makes of this one."""
        if ask is None:
            return self
        return self.of(ask(self.target, self.outputs))

    def of(self, target: targets.Target) -> Forward:
        """The same forward with another target."""
        scores = targets.checked(target(self.outputs), self.call.batch)
        return replace(self, target=target, scores=scores, _kept={})

    def rescored(self, outputs: Any) -> Forward:
        """The same target on other outputs."""
        return replace(self, tape=replace(self.tape, outputs=outputs)).of(self.target)

    def activation(self, label: CallLabel) -> Tensor:
        """What a call returned, in its own layout and in the graph, with all of its rows."""
        return self.tape.activations[label.call]

    def parallel(self, labels: tuple[CallLabel, ...]) -> bool:
        """Whether none of these calls, in the order they ran, is made of the one before it."""
        kept = [self.activation(label) for label in labels]
        return not any(
            torch.autograd.grad(after.sum(), before, retain_graph=True, allow_unused=True)[0] is not None
            for before, after in pairwise(kept)
        )


def _fold(forward: Forward, label: CallLabel) -> Fold:
    fold = forward.fold_of(forward.plan, label, forward.activation(label), forward.call)
    return lambda tensor: at_least_float32(fold(tensor))


def probe(forward: Forward) -> Probe:
    """How to ask what the score becomes. Pass it to `Forward.once`."""
    outputs, batch, target = rebuild(forward.outputs, Tensor.detach), forward.call.batch, forward.target
    scores = at_least_float32(forward.columns.detach())  # no reference to the forward itself: it keeps the probe

    def score(found: Any, images: Tensor) -> Tensor:
        _check_rows(found, outputs, images.shape[0], batch)
        rows = targets.for_rows(target, found, images, outputs, batch)
        return (rows if rows.ndim == 2 else rows[:, None]).to(scores.dtype)

    run = replace(forward.run, call=forward.call)
    return Probe(run, outputs, score, scores, forward.settings.limits)


def _check_rows(found: Any, outputs: Any, count: int, batch: int) -> None:
    """Raise `OutputError` if a model answers to `count` images as if they were `batch`: from memory, say."""
    pairs = zip(tensors(found), tensors(outputs), strict=False)
    if count != batch and any(new.ndim and new.shape == old.shape and old.shape[0] == batch for new, old in pairs):
        raise OutputError(
            "the model does not answer to each image that it is given.",
            got=f"{batch} answers to {count} images",
            expected="an answer for each",
            do="look for a result that the model keeps from one call to the next; or batch_size=1",
        )


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 where it has that already."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
