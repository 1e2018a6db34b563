"""One forward on the caller's inputs: where it is recorded, and how what was recorded lies over the inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from seewhy import targets
from seewhy.engine.attention import Attention, attend
from seewhy.engine.replay import remember
from seewhy.engine.tape import record
from seewhy.errors import GradientError, InputError, LayerError
from seewhy.evidence import classifier
from seewhy.evidence.biases import biases as biases_of
from seewhy.evidence.forward import Fold, Forward, at_least_float32
from seewhy.evidence.tokens import Tokens, over_the_image, sequences
from seewhy.geometry import choose_layer as choosing
from seewhy.geometry import grid as grids
from seewhy.geometry import observe as layout
from seewhy.hooks.select import check_ran
from seewhy.inputs.call import Inputs
from seewhy.methods.registry import Method

_INPUT = "input"  # what a map that lies on the input itself goes by
_ATTENTION = "attention"  # what a map of all attention over the image's tokens goes by
_FROM_INPUT = {"input_gradients", "guided_gradients", "bias_gradients"}


@dataclass(frozen=True)
class Place:
    """Where to look: the modules to record; of their calls those `chosen`, and `stages`, or all; why there."""

    modules: Mapping[str, nn.Module]
    chosen: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    reason: str = ""

    def holds(self, label: str, name: str) -> bool:
        """Whether the call `label` of the module `name` is looked at."""
        return name in self.modules and (not self.chosen or label in self.chosen + self.stages)

    def labels(self, method: Method) -> tuple[str, ...]:
        """The calls that `method` looks at; none where the caller named the modules, and all of their calls count."""
        if not method.layered:
            return (_ATTENTION if method.attends else _INPUT,)
        return self.stages if method.staged else self.chosen


class Recorder:
    """Records a model's forwards for some methods. Where to, and grids, are worked out once per input shape.

    layers: those to look at, by name; None chooses. grid: as for `Explainer`. context: what targets know of the model;
    for a call add `batch` and `sizes`.
    """

    def __init__(
        self,
        model: nn.Module,
        methods: Sequence[Method],
        layers: Mapping[str, nn.Module] | None,
        grid: Fold | tuple[int, ...] | None,
        context: Callable[..., targets.Context],
    ) -> None:
        self.model, self.methods, self.grid, self.context = model, methods, grid, context
        self.given = None if layers is None else Place(layers)
        self._places: dict[tuple[int, ...], Place] = {}
        self._grids: dict[tuple[tuple[int, ...], str], grids.Grid] = {}
        self._sequences: dict[tuple[int, ...], dict[int, grids.Grid]] = {}

    def first(self, call: Inputs, target: Any) -> tuple[Place, Forward]:
        """The forward on the caller's inputs, and the place it was recorded at: the layers given, or the best one.

        The best is worked out once per input shape, by looking at one forward, and from the last layer with space
        backwards for one that the score's gradient reaches. What was recorded there is used, not recorded again,
        unless a method looks at the resolutions before it too.
        """
        place = self.given or self._places.get(call.signature)
        if place is None and not any(found.layered for found in self.methods):
            place = Place({})
        if place:
            return place, self.forward(call, target, place)
        candidates = choosing.candidates(layout.look(self.model, call), call.space)
        for group in choosing.growing(candidates):
            modules = {seen.name: self.model.get_submodule(seen.name) for seen in group}
            forward = self.forward(call, target, Place(modules))
            self._grids |= {(call.signature, seen.label): seen.grid for seen in group if seen.grid is not None}
            reached = forward.reached({seen.label: seen.grid.fold for seen in group if seen.grid is not None})
            for seen in group:
                if seen.label in reached:
                    levels = choosing.pyramid(seen, candidates)
                    chosen = levels if forward.parallel([level.label for level in levels]) else [seen]
                    staged = any(found.staged for found in self.methods)
                    stages = choosing.stages(candidates[candidates.index(seen) :]) if staged else []
                    place = self._places[call.signature] = Place(
                        {at.name: self.model.get_submodule(at.name) for at in (*chosen, *stages)},
                        tuple(level.label for level in chosen),
                        tuple(stage.label for stage in stages),
                        choosing.reason(seen, candidates),
                    )
                    if staged:
                        return place, self.forward(call, forward.target, place)
                    return place, replace(
                        forward, activations={label: forward.activations[label] for label in place.chosen}
                    )
        raise GradientError(
            "the score's gradient is zero at every layer with space.",
            got=", ".join(seen.label for seen in candidates[:3]) + (" and so on" if len(candidates) > 3 else ""),
            expected="a score that the layers before it have a say in",
            do="look for a head with all-zero weights (untrained), a detach(), a saturated output; or pass layers=",
        )

    def forward(self, call: Inputs, target: Any, place: Place) -> Forward:
        """Run the model once, recording from the first layer of `place` on, or from the input, and score its output."""
        needs = {need for found in self.methods for need in found.needs}
        linear = classifier.linear_layers(self.model) if "weights" in needs else {}
        biases = biases_of(self.model) if "bias_gradients" in needs else {}
        biased = {name: self.model.get_submodule(name) for name in biases}
        replaying = remember(self.model, place.modules) if "replay" in needs else nullcontext(dict)
        attends = "places" in needs
        # with no layer to record from, the graph still tells what kind the scores are
        image = call.image.clone() if needs & _FROM_INPUT or not (place.modules or attends) else None
        if image is not None and not image.is_floating_point():
            raise InputError(
                "an input of integers has no gradient.",
                got=image.dtype,
                expected="floating point",
                do="convert it before the model does, or choose a method that looks at a layer",
            )

        def run() -> Any:  # copies go in: the model may write to them
            leaf = None if image is None else image.requires_grad_().clone()
            return call.with_rows(Tensor.clone, leaf).run(self.model)

        # fused attention cannot be differentiated twice
        attention = sdpa_kernel(SDPBackend.MATH) if "curvatures" in needs else nullcontext()
        attending: AbstractContextManager[list[Attention]] = nullcontext([])
        if attends:
            attending = attend(self.model, call.batch)
        with classifier.inputs_of(linear) as classifiers, replaying as memories, attention, attending as attended:
            tape = record(run, {**biased, **place.modules}, from_start=attends or image is not None)
        check_ran(place.modules, [made.layer for made in tape.calls])
        resolved = targets.resolve(target, tape.outputs, self.context(batch=call.batch, sizes=call.sizes))
        scores = targets.checked(resolved(tape.outputs), call.batch)
        calls = zip(tape.activations, tape.calls, strict=True)
        activations = {label: made.activation for label, made in calls if place.holds(label, made.layer)}
        added = [
            (made.activation, biases[made.layer])
            for made in tape.calls
            if made.layer in biases and made.activation.ndim == 2 + len(call.space)
        ]
        likely = targets.probabilities(resolved, tape.outputs)
        tokens = self.tokens(attended, call) if attends else None
        return Forward(
            call, tape.outputs, activations, resolved, scores, likely, classifiers, memories(), image, added, tokens
        )

    def tokens(self, attended: Sequence[Attention], call: Inputs) -> Tokens:
        """The attention over the image's tokens; how these lie over it is given, or worked out once per input shape."""
        if self.grid is None and call.signature not in self._sequences:
            self._sequences[call.signature] = sequences(self.model, call)
        folds: dict[int, Fold] = {}
        for length in {seen.columns for seen in attended}:
            if callable(self.grid):
                folds[length] = self.grid
            elif self.grid is not None:
                given = grids.readings((call.batch, length, 1), call.space, call.batch, grid=self.grid)
                folds.update((length, found.fold) for found in given)
            elif found := self._sequences[call.signature].get(length):
                folds[length] = found.fold
        return over_the_image(attended, call.batch, folds)

    def fold(self, label: str, kept: Tensor, call: Inputs) -> Callable[[Tensor], Tensor]:
        """What takes this layer's tensors to (B, C, *grid), in float32 at least."""
        fold = self.grid if callable(self.grid) else self._grid(label, tuple(kept.shape), call).fold
        return lambda tensor: at_least_float32(fold(tensor))

    def _grid(self, label: str, shape: tuple[int, ...], call: Inputs) -> grids.Grid:
        """The layer's grid, worked out once per input shape: from its own shape, or by looking at one forward."""
        key = call.signature, label
        if key not in self._grids:
            given = self.grid if isinstance(self.grid, tuple) else None
            found = grids.readings(shape, call.space, call.batch, grid=given)
            if given is None and (len(found) != 1 or len(shape) == 3):
                found = [
                    grid for seen in layout.look(self.model, call) if seen.label == label for grid in seen.readings
                ]
            self._grids[key] = _only(found, label, shape, call)
        return self._grids[key]


def _only(found: Sequence[grids.Grid], label: str, shape: tuple[int, ...], call: Inputs) -> grids.Grid:
    """The one grid that a layer's output can have; an error says what was found instead."""
    if len(found) == 1:
        return found[0]
    if found:
        raise choosing.several_ways(label, found, shape, call.space)
    raise LayerError(
        f"the output of {label} does not lie over the input.",
        got=f"shape {shape} for {call.batch} inputs of size {call.space}",
        expected="a map or a sequence of tokens with more than one place and the input's aspect ratio",
        do="pass grid=, the size of the grid or a function from this output to (B, C, *grid), or another layer",
    )
