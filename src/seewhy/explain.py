"""The one place where the parts meet: a model, inputs, a target and a method become an Explanation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Generator, Tensor, nn

from seewhy import grid as grids
from seewhy import layers as choosing
from seewhy import targets
from seewhy.capture.guard import guard, unwrap
from seewhy.capture.nested import rebuild
from seewhy.capture.tape import gradients, record
from seewhy.errors import GradientError, InputError, InputTypeError, LayerError, MapWarning, MethodError
from seewhy.explanation import Explanation
from seewhy.inputs import Inputs
from seewhy.methods import combine, registry
from seewhy.models.loaded import Loaded, own_labels

Fold = Callable[[Tensor], Tensor]


def explain(
    model: nn.Module | Loaded,
    inputs: Any,
    target: targets.Classes | targets.Target = None,
    **options: Any,
) -> Explanation:
    """Why `model` answered as it did on `inputs`: `Explainer(model, **options)(inputs, target)`."""
    return Explainer(model, **options)(inputs, target)


class Explainer:
    """Explains one model with one method. The layer is worked out once per input shape, then reused.

    model: any `nn.Module`, in whatever mode; or what `seewhy.load` returned.
    method: a name from `seewhy.methods.available()`.
    layers: names, patterns or modules, one or several; None chooses the last with space that the score depends on.
    grid: a function from the layer's output to (B, C, *space), for layouts that are not recognised.
    fuse: how several layers become one heatmap: "mean", "max" or "product".
    eigen_smooth: the first principal component of the weighted activations instead of their sum.
    augment_smooth: the mean over six views, mirrored and of other brightness; costs six times as much.
    generator: random numbers for the methods that draw; the same seed for every call unless given.
    labels: a name per class, so that targets can be given by label.

    Raises `MethodError`, `LayerError` for what does not exist, when it is made; on a call also `TargetError`,
    `OutputError` and `GradientError`. What the model raises comes through unchanged.
    """

    def __init__(
        self,
        model: nn.Module | Loaded,
        method: str = "grad_cam",
        *,
        layers: choosing.Layers | None = None,
        grid: Fold | None = None,
        fuse: combine.Fuse = "mean",
        eigen_smooth: bool = False,
        augment_smooth: bool = False,
        generator: Generator | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        self.loaded = model if isinstance(model, Loaded) else None
        module = model.module if isinstance(model, Loaded) else model
        if not isinstance(module, nn.Module):
            raise InputTypeError("the model is not an nn.Module.", got=type(module).__name__)
        self.model = unwrap(module)
        self.method = registry.get(method)
        self.place = None if layers is None else _Place(choosing.find(self.model, layers))
        self.grid = grid
        self.fuse = fuse
        self.augment_smooth = augment_smooth
        self.generator = generator
        self.labels = labels if labels is not None else self.loaded.labels if self.loaded else own_labels(self.model)
        self._features: dict[tuple[targets.Encode, str], Tensor] = {}
        self._places: dict[tuple[int, ...], _Place] = {}
        if fuse not in ("mean", "max", "product"):
            raise InputError("unknown way to fuse layers.", got=repr(fuse), expected='"mean", "max" or "product"')
        if eigen_smooth and not self.method.reduces:
            raise MethodError(f"{self.method.name} has no weighted activations for eigen_smooth to work on.")
        self._reduce = {"reduce": combine.principal_component} if eigen_smooth else {}

    def __call__(self, inputs: Any, target: targets.Classes | targets.Target = None) -> Explanation:
        """Explain a batch.

        inputs: a tensor (B, C, *space); a tuple of arguments or a dict of keywords for the model; or, for a model from
        `seewhy.load`, a photograph or a list of them (PIL images or file names).
        target: what to explain; see `seewhy.targets`. None is the predicted class.
        """
        photos, frames = None, None
        if self.loaded is not None and _are_photos(inputs):
            inputs, photos, frames = self.loaded.prepare(inputs if isinstance(inputs, list | tuple) else [inputs])
        call = Inputs.of(inputs)
        with guard(self.model):
            call = call.laid_out(self.model)
            place, forward = self._first(call, target)
            maps = self._smoothed(place, forward) if self.augment_smooth else self._maps(forward)
        explanation = Explanation(
            maps=maps,
            scores=forward.scores.detach(),
            probabilities=None if forward.probabilities is None else forward.probabilities.detach(),
            outputs=rebuild(forward.outputs, Tensor.detach),
            targets=forward.target,
            method=self.method.name,
            size=call.size,
            extents=None if call.canvas is None else call.canvas.extents,
            fuse=self.fuse,
            labels=self.labels,
            frames=frames,
            photos=photos,
            note=place.reason,
        )
        _warn_of_blanks(explanation)
        return explanation

    def _first(self, call: Inputs, target: Any) -> tuple[_Place, _Forward]:
        """The forward on the caller's inputs, and the place it was recorded at: the layers given, or the best one.

        The best is worked out once per input shape, by looking at one forward, and from the last layer with space
        backwards for one that the score's gradient reaches. What was recorded there is used, not recorded again.
        """
        if place := self.place or self._places.get(call.signature):
            return place, self._forward(call, target, place)
        candidates = choosing.candidates(choosing.look(self.model, call), call.space)
        for group in choosing.growing(candidates):
            modules = {seen.name: self.model.get_submodule(seen.name) for seen in group}
            forward = self._forward(call, target, _Place(modules))
            reached = forward.reached()
            for seen in group:
                if seen.label in reached:
                    reason = choosing.reason(seen, candidates)
                    place = self._places[call.signature] = _Place({seen.name: modules[seen.name]}, seen.label, reason)
                    return place, replace(forward, activations={seen.label: forward.activations[seen.label]})
        raise GradientError(
            "the score's gradient is zero at every layer with space.",
            got=", ".join(seen.label for seen in candidates[:3]) + (" and so on" if len(candidates) > 3 else ""),
            expected="a score that the layers before it have a say in",
            do="look for a head with all-zero weights (untrained), a detach(), a saturated output; or pass layers=",
        )

    def _forward(self, call: Inputs, target: Any, place: _Place) -> _Forward:
        """Run the model once, recording from the first layer of `place` on, and score its output."""
        linear = choosing.linear_layers(self.model) if "weights" in self.method.needs else {}
        with choosing.inputs_of(linear) as classifiers:
            tape = record(lambda: call.run(self.model), place.modules)
        ran = {recorded.layer for recorded in tape.calls}
        if idle := [name for name in place.modules if name not in ran]:
            raise LayerError(
                f"{', '.join(idle)} did not run in this forward.",
                expected="a layer that the model calls, as layer(x), and that returns a floating point tensor",
                do="`seewhy layers` lists the layers that ran",
            )
        resolved = targets.resolve(target, tape.outputs, self._context(call))
        scores = targets.checked(resolved(tape.outputs), call.batch)
        activations = {label: kept for label, kept in tape.activations.items() if place.label in (None, label)}
        likely = targets.probabilities(resolved, tape.outputs)
        return _Forward(call, tape.outputs, activations, resolved, scores, likely, classifiers)

    def _context(self, call: Inputs) -> targets.Context:
        return targets.Context(
            batch=call.batch,
            sizes=call.sizes,
            labels=self.labels,
            embeds=getattr(self.model, "num_classes", None) == 0,  # timm's models without a head
            encode=self.loaded.embed_text if self.loaded else None,
            features=self._features,
        )

    def _maps(self, forward: _Forward) -> dict[str, Tensor]:
        """The method's map at each layer for every target: (B, [T,] *grid), signed."""
        needs = self.method.needs
        folds = {label: self._fold(label, kept, forward.call) for label, kept in forward.activations.items()}
        activations = {label: fold(forward.activations[label].detach()) for label, fold in folds.items()}
        generator = self.generator or Generator().manual_seed(0)
        slopes: Iterable[dict[str, Tensor]] = repeat({})
        if "gradients" in needs:
            slopes = gradients(forward.columns, forward.activations, keep_graph="weights" in needs)
        drawn: dict[str, list[Tensor]] = {label: [] for label in folds}
        for column, slope in zip(forward.columns.unbind(1), slopes, strict=False):
            for label, fold in folds.items():
                values: dict[str, Any] = {"activations": activations[label], "generator": generator}
                if "gradients" in needs:
                    values["gradients"] = fold(slope[label])
                if "weights" in needs:
                    values["weights"] = forward.weights(label, activations[label], column)
                drawn[label].append(self.method.function(**{need: values[need] for need in needs}, **self._reduce))
        several = forward.scores.ndim == 2
        return {label: torch.stack(maps, 1) if several else maps[0] for label, maps in drawn.items()}

    def _fold(self, label: str, kept: Tensor, call: Inputs) -> Callable[[Tensor], Tensor]:
        """What takes this layer's tensors to (B, C, *grid), in float32 at least."""
        shape = tuple(kept.shape)
        if self.grid is not None:
            fold = self.grid
        elif shape[0] == call.batch and (found := grids.read(shape, call.space)):
            fold = found.fold
        else:
            raise LayerError(
                f"the output of {label} does not lie over the input.",
                got=f"shape {shape} for {call.batch} inputs of size {call.space}",
                expected="(B, C, *grid), with a grid of more than one place and the input's aspect ratio",
                do="pass an earlier layer, or grid=, a function from this output to (B, C, *grid)",
            )
        return lambda tensor: fold(tensor).to(torch.promote_types(tensor.dtype, torch.float32))

    def _smoothed(self, place: _Place, forward: _Forward) -> dict[str, Tensor]:
        """The mean of the maps over all views of the inputs, each put back in place; the target stays as it was."""
        seen = self._maps(forward)
        others = combine.views()[1:]
        for view in others:
            target = targets.mirrored(forward.target) if view.mirrored else forward.target
            again = self._forward(forward.call.seen_as(view.apply), target, place)
            seen = {label: seen[label] + view.undo(drawn) for label, drawn in self._maps(again).items()}
        return {label: total / (1 + len(others)) for label, total in seen.items()}


@dataclass(frozen=True)
class _Place:
    """Where to look: the modules to record; of their calls the one called `label`, or all; and why there."""

    modules: Mapping[str, nn.Module]
    label: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class _Forward:
    """One forward, recorded and scored; everything but `call` is still in the graph."""

    call: Inputs
    outputs: Any
    activations: dict[str, Tensor]
    target: targets.Target
    scores: Tensor
    probabilities: Tensor | None
    classifiers: Sequence[tuple[nn.Module, Tensor]]

    @property
    def columns(self) -> Tensor:
        """Scores (B, T), T = 1 for (B,)."""
        return self.scores if self.scores.ndim == 2 else self.scores[:, None]

    def reached(self) -> set[str]:
        """The labels of the activations at which the first target's gradient is not zero."""
        slopes = next(gradients(self.columns[:, :1], self.activations, keep_graph=True))
        return {label for label, slope in slopes.items() if bool(slope.any())}

    def weights(self, label: str, activations: Tensor, column: Tensor) -> Tensor:
        """The classifier's weights (B, C) on the layer's channels for one target's scores (B,)."""
        logits = targets.scores_tensor(self.outputs)
        selectors = torch.autograd.grad(column.sum(), logits, retain_graph=True)[0].flatten(1)
        return choosing.classifier_weights(self.classifiers, label, activations, selectors)


def _are_photos(inputs: Any) -> bool:
    first = inputs[0] if isinstance(inputs, list | tuple) and inputs else inputs
    return isinstance(first, str | Path | Image.Image)


_BLANKS = (
    ("is not finite", "weights or activations overflow: try float32, or look for inf and nan in the input"),
    ("is zero everywhere", "no gradient reaches this layer for this target: try an earlier layer, or another target"),
    (
        "has nothing positive",
        "nothing here spoke for this target: try Contrast, an earlier layer, or read the signed .maps",
    ),
)


def _warn_of_blanks(explanation: Explanation) -> None:
    """A warning for each layer with maps that cannot mean anything: which images, why, and what to try.

    A pyramid is judged as a whole: a detector reads each box from the level that fits its size.
    """
    layers: dict[str, list[Tensor]] = {}
    for label, grid in explanation.maps.items():
        places = grid.reshape(len(explanation), -1, math.prod(grid.shape[-len(explanation.size) :]))
        layers.setdefault(label.partition("[")[0], []).append(places)
    verdicts = []
    for levels in layers.values():
        places = torch.cat(levels, -1)
        problems = (~places.isfinite().all(-1), ~places.any(-1), ~(places > 0).any(-1))
        verdict = torch.zeros(len(explanation), dtype=torch.long, device=places.device)
        for number, found in reversed(list(enumerate(problems, 1))):
            verdict = torch.where(found.any(-1), number, verdict)
        verdicts.append(verdict)
    for label, row in zip(layers, torch.stack(verdicts).tolist(), strict=True):
        for number, (problem, advice) in enumerate(_BLANKS, 1):
            if images := [image for image, told in enumerate(row) if told == number]:
                which = ", ".join(map(str, images[:5])) + (" and more" if len(images) > 5 else "")
                message = f"the {explanation.method} map of {label} {problem} for image {which}: {advice}."
                warnings.warn(message, MapWarning, stacklevel=4)
