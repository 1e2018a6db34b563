"""The one place where the parts meet: a model, inputs, a target and a method become an Explanation."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args, overload

import torch
from jaxtyping import Float
from PIL import Image
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from seewhy import grid as grids
from seewhy import layers as choosing
from seewhy import layout, targets
from seewhy.capture.attention import Attention, attend
from seewhy.capture.guard import guard, unwrap
from seewhy.capture.nested import rebuild
from seewhy.capture.replay import remember
from seewhy.capture.select import Layers, check_ran, find
from seewhy.capture.tape import gradients, record, replacing
from seewhy.errors import GradientError, InputError, InputTypeError, LayerError, MethodError, warn
from seewhy.evidence import Forward, at_least_float32, evidence
from seewhy.explanation import Concepts, Explanation, Frame
from seewhy.inputs import Inputs
from seewhy.methods import combine, registry
from seewhy.methods.decomposition import factorize
from seewhy.methods.registry import Method
from seewhy.models.loaded import Loaded, own_labels
from seewhy.probe import Precision, Probe
from seewhy.tokens import Tokens, by_layer, over_the_image, sequences

Fold = Callable[[Tensor], Tensor]

_INPUT = "input"  # what a map that lies on the input itself goes by
_ATTENTION = "attention"  # what a map of all attention over the image's tokens goes by
_FROM_INPUT = {"input_gradients", "guided_gradients", "bias_gradients"}


@overload
def explain(
    model: nn.Module | Loaded,
    inputs: Any,
    target: targets.Classes | targets.Target = None,
    *,
    method: str | Method = ...,
    **options: Any,
) -> Explanation: ...
@overload
def explain(
    model: nn.Module | Loaded,
    inputs: Any,
    target: targets.Classes | targets.Target = None,
    *,
    method: list[str | Method] | list[str] | tuple[str | Method, ...],
    **options: Any,
) -> dict[str, Explanation]: ...
def explain(
    model: nn.Module | Loaded,
    inputs: Any,
    target: targets.Classes | targets.Target = None,
    *,
    method: str | Method | Sequence[str | Method] = "grad_cam",
    **options: Any,
) -> Explanation | dict[str, Explanation]:
    """Why `model` answered as it did on `inputs`: `Explainer(model, method, **options)(inputs, target)`.

    Several methods give a dict of explanations by their names, from one forward and, where they use the same
    gradients, one backward pass.
    """
    explainer = Explainer(model, method, **options)
    return explainer(inputs, target) if isinstance(method, str | Method) else explainer.each(inputs, target)


def concepts(model: nn.Module | Loaded, inputs: Any, count: int = 5, **options: Any) -> Concepts:
    """What `model` sees in `inputs`, in `count` concepts: `Explainer(model, **options).concepts(inputs, count)`."""
    return Explainer(model, **options).concepts(inputs, count)


class Explainer:
    """Explains one model with one method, or several. Layers are worked out once per input shape, then reused.

    model: any `nn.Module`, in whatever mode; or what `seewhy.load` returned.
    method: a name from `seewhy.methods.available()`, or several of them for `each`.
    layers: names, patterns or modules, one or several; None chooses the last with space that the score depends on.
    grid: for layouts that are not recognised: the (h, w) or (d, h, w) that the last of the layer's tokens have, or a
    linear function from the layer's output to (B, C, *space).
    fuse: how several layers become one heatmap: "mean", "max", "product", or "local_product", in which the fine ones
    outline what the coarse ones point at; the method's own way unless given.
    eigen_smooth: the first principal component of the weighted activations instead of their sum.
    augment_smooth: the mean over six views, mirrored and of other brightness; costs six times as much.
    generator: random numbers for the methods that draw; the same seed for every call unless given. All maps of a call
    start from the same state: a map does not depend on what else was asked for.
    labels: a name per class, so that targets can be given by label.
    batch_size: how many changed inputs or activations a perturbation method runs at once; bounds its memory.
    precision: "bf16" runs changed inputs in bfloat16, where the hardware is fast at it; scores agree to 2 or 3 digits.
    progress: a bar for methods that run the model often.
    options: what the method itself takes by keyword, `masks=500` for "rise" say: see `seewhy.methods.get`.

    Raises `MethodError`, `LayerError` for what does not exist, when it is made; on a call also `TargetError`,
    `OutputError` and `GradientError`. What the model raises comes through unchanged.
    """

    def __init__(
        self,
        model: nn.Module | Loaded,
        method: str | Method | Sequence[str | Method] = "grad_cam",
        *,
        layers: Layers | None = None,
        grid: Fold | tuple[int, ...] | None = None,
        fuse: combine.Fuse | None = None,
        eigen_smooth: bool = False,
        augment_smooth: bool = False,
        generator: Generator | None = None,
        labels: Sequence[str] | None = None,
        batch_size: int = 32,
        precision: Precision = "full",
        progress: bool = False,
        **options: Any,
    ) -> None:
        self.loaded = model if isinstance(model, Loaded) else None
        module = model.module if isinstance(model, Loaded) else model
        if not isinstance(module, nn.Module):
            raise InputTypeError("the model is not an nn.Module.", got=type(module).__name__)
        self.model = unwrap(module)
        names: list[Any] = list(method) if isinstance(method, list | tuple) else [method]
        self.methods = [registry.get(name, **options) for name in names]
        self.place = None if layers is None else _Place(find(self.model, layers))
        self.grid = grid
        self.fuse = fuse
        self.augment_smooth = augment_smooth
        self.generator = generator
        self.batch_size, self.precision, self.progress = batch_size, precision, progress
        self.labels = labels if labels is not None else self.loaded.labels if self.loaded else own_labels(self.model)
        self._features: dict[tuple[targets.Encode, str], Tensor] = {}
        self._places: dict[tuple[int, ...], _Place] = {}
        self._grids: dict[tuple[tuple[int, ...], str], grids.Grid] = {}
        self._sequences: dict[tuple[int, ...], dict[int, grids.Grid]] = {}
        if fuse not in (None, *get_args(combine.Fuse)):
            raise combine.unknown_fuse(fuse)
        if batch_size < 1:
            raise InputError("the batch size is not positive.", got=batch_size)
        if precision not in ("full", "bf16"):
            raise InputError("unknown precision.", got=repr(precision), expected='"full" or "bf16"')
        if not self.methods:
            raise MethodError("no method was given.", got="an empty list", do='method="grad_cam"')
        for found in self.methods:
            if eigen_smooth and not found.reduces:
                raise MethodError(f"{found.name} has no weighted activations for eigen_smooth to work on.")
            if layers is not None and not found.layered:
                where = "all attention" if found.attends else "the input"
                raise MethodError(
                    f"{found.name} looks at {where}, not at a layer.", got="layers=", do="leave layers out"
                )
        if eigen_smooth:
            self.methods = [registry.get(found, reduce=combine.principal_component) for found in self.methods]

    def __call__(self, inputs: Any, target: targets.Classes | targets.Target = None) -> Explanation:
        """Explain a batch with the one method there is; see `each`."""
        if len(self.methods) > 1:
            raise MethodError(
                "there are several methods, and so several explanations.",
                got=", ".join(found.name for found in self.methods),
                do="explainer.each(inputs, target), which gives them by name",
            )
        (explanation,) = self.each(inputs, target).values()
        return explanation

    def each(self, inputs: Any, target: targets.Classes | targets.Target = None) -> dict[str, Explanation]:
        """Explain a batch with every method: an explanation by each name, from one forward wherever they share it.

        inputs: a tensor (B, C, *space); a list of images (C, H, W), as detectors take them; a tuple of arguments or a
        dict of keywords for the model; or, for a model from `seewhy.load`, a photograph or a list of them (PIL images
        or file names).
        target: what to explain; see `seewhy.targets`. None is the predicted class.
        """
        with guard(self.model):  # copies of tensors made under inference_mode are ordinary ones in here
            call, photos, frames = self._prepared(inputs)
            self._check_alignment(call)
            place, forward = self._first(call, target)
            asked = {found.ask: forward.asked(found.ask) for found in self.methods}
            maps = self._smoothed(place, asked) if self.augment_smooth else self._maps(place, asked)
        outputs = rebuild(forward.outputs, Tensor.detach)
        explanations = {
            found.name: Explanation(
                maps=maps[found.name],
                scores=asked[found.ask].scores.detach(),
                probabilities=None if forward.probabilities is None else forward.probabilities.detach(),
                outputs=outputs,
                targets=asked[found.ask].target,
                method=found.name,
                size=call.size,
                extents=call.canvas.extents if call.canvas and (found.layered or found.attends) else None,
                fuse=self.fuse or found.fuse,
                labels=self.labels,
                frames=frames,
                photos=photos,
                note=place.reason if found.layered else "",
            )
            for found in self.methods
        }
        for explanation in explanations.values():
            _warn_of_blanks(explanation)
        return explanations

    def concepts(self, inputs: Any, count: int = 5) -> Concepts:
        """The activations of a layer as `count` concepts: where each one is, and which classes it speaks for.

        Deep feature factorization (Collins et al. 2018, arXiv:1806.10206), of all images together. The scores are those
        that the model gives where the layer returns a concept everywhere, as strong as it is at its strongest place;
        what else there is in the layer's output, or passes it by, is of the first image. Takes one forward for the
        images and one for the concepts. Raises `LayerError` for more than one layer.
        """
        with guard(self.model):
            call, photos, frames = self._prepared(inputs)
            place, forward = self._first(call, None)
            if len(forward.activations) != 1:
                raise LayerError("concepts are those of one layer.", got=", ".join(forward.activations), do="layers=")
            ((label, kept),) = forward.activations.items()
            fold = self._fold(label, kept, call)
            maps, vectors = factorize(fold(kept.detach()), count)
            strongest = vectors * maps.movedim(1, 0).flatten(1).amax(1)[:, None]
            scores = self._scores_of(place, forward, label, strongest, fold)
        return Concepts(maps, vectors, scores, label, call.size, self.labels, frames, photos)

    def _scores_of(
        self, place: _Place, forward: Forward, label: str, vectors: Float[Tensor, "K C"], fold: Fold
    ) -> Float[Tensor, "K classes"]:
        """The class scores where the layer's output is, at every place, one of `vectors`."""
        kept = forward.activations[label].detach()
        first = kept[:1].expand(len(vectors), *kept.shape[1:])
        folded = fold(first)
        spread = vectors.reshape(*vectors.shape, *[1] * (folded.ndim - 2)).expand(folded.shape)
        everywhere = first + grids.unfold(fold, spread - folded, first)
        with torch.no_grad(), replacing(place.modules, label, everywhere):
            outputs = forward.call.with_rows(lambda tensor: tensor[:1].repeat_interleave(len(vectors), 0)).run(
                self.model
            )
        return targets.class_scores(outputs).values

    def _prepared(self, inputs: Any) -> tuple[Inputs, tuple[Image.Image, ...] | None, tuple[Frame, ...] | None]:
        """A call of the model; and where photographs were passed, these and what the model sees of them."""
        photos, frames = None, None
        if self.loaded is not None and _are_photos(inputs):
            inputs, photos, frames = self.loaded.prepare(inputs if isinstance(inputs, list | tuple) else [inputs])
        return Inputs.of(inputs, self.model), photos, frames

    def _check_alignment(self, call: Inputs) -> None:
        """Refuse methods that lay a layer's maps over the images where the model pads or resizes these first."""
        for found in self.methods:
            if call.canvas is not None and {"activations", "score"} <= {*found.needs}:
                raise MethodError(
                    f"{found.name} masks the images with a layer's maps, and this model lays its images out anew.",
                    got=f"images of {call.size} on a canvas of {call.canvas.space}",
                    do="choose a method of gradients, such as layer_cam, or one without a layer, such as rise",
                )

    def _first(self, call: Inputs, target: Any) -> tuple[_Place, Forward]:
        """The forward on the caller's inputs, and the place it was recorded at: the layers given, or the best one.

        The best is worked out once per input shape, by looking at one forward, and from the last layer with space
        backwards for one that the score's gradient reaches. What was recorded there is used, not recorded again,
        unless a method looks at the resolutions before it too.
        """
        place = self.place or self._places.get(call.signature)
        if place is None and not any(found.layered for found in self.methods):
            place = _Place({})
        if place:
            return place, self._forward(call, target, place)
        candidates = choosing.candidates(layout.look(self.model, call), call.space)
        for group in choosing.growing(candidates):
            modules = {seen.name: self.model.get_submodule(seen.name) for seen in group}
            forward = self._forward(call, target, _Place(modules))
            self._grids |= {(call.signature, seen.label): seen.grid for seen in group if seen.grid is not None}
            reached = forward.reached({seen.label: seen.grid.fold for seen in group if seen.grid is not None})
            for seen in group:
                if seen.label in reached:
                    levels = choosing.pyramid(seen, candidates)
                    chosen = levels if forward.parallel([level.label for level in levels]) else [seen]
                    staged = any(found.staged for found in self.methods)
                    stages = choosing.stages(candidates[candidates.index(seen) :]) if staged else []
                    place = self._places[call.signature] = _Place(
                        {at.name: self.model.get_submodule(at.name) for at in (*chosen, *stages)},
                        tuple(level.label for level in chosen),
                        tuple(stage.label for stage in stages),
                        choosing.reason(seen, candidates),
                    )
                    if staged:
                        return place, self._forward(call, forward.target, place)
                    return place, replace(
                        forward, activations={label: forward.activations[label] for label in place.chosen}
                    )
        raise GradientError(
            "the score's gradient is zero at every layer with space.",
            got=", ".join(seen.label for seen in candidates[:3]) + (" and so on" if len(candidates) > 3 else ""),
            expected="a score that the layers before it have a say in",
            do="look for a head with all-zero weights (untrained), a detach(), a saturated output; or pass layers=",
        )

    def _forward(self, call: Inputs, target: Any, place: _Place) -> Forward:
        """Run the model once, recording from the first layer of `place` on, or from the input, and score its output."""
        needs = {need for found in self.methods for need in found.needs}
        linear = choosing.linear_layers(self.model) if "weights" in needs else {}
        biases = choosing.biases(self.model) if "bias_gradients" in needs else {}
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
        with choosing.inputs_of(linear) as classifiers, replaying as memories, attention, attending as attended:
            tape = record(run, {**biased, **place.modules}, from_start=attends or image is not None)
        check_ran(place.modules, [made.layer for made in tape.calls])
        resolved = targets.resolve(target, tape.outputs, self._context(call))
        scores = targets.checked(resolved(tape.outputs), call.batch)
        calls = zip(tape.activations, tape.calls, strict=True)
        activations = {label: made.activation for label, made in calls if place.holds(label, made.layer)}
        added = [
            (made.activation, biases[made.layer])
            for made in tape.calls
            if made.layer in biases and made.activation.ndim == 2 + len(call.space)
        ]
        likely = targets.probabilities(resolved, tape.outputs)
        tokens = self._tokens(attended, call) if attends else None
        return Forward(
            call, tape.outputs, activations, resolved, scores, likely, classifiers, memories(), image, added, tokens
        )

    def _tokens(self, attended: Sequence[Attention], call: Inputs) -> Tokens:
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

    def _context(self, call: Inputs) -> targets.Context:
        return targets.Context(
            batch=call.batch,
            sizes=call.sizes,
            labels=self.labels,
            embeds=getattr(self.model, "num_classes", None) == 0,  # timm's models without a head
            encode=self.loaded.embed_text if self.loaded else None,
            features=self._features,
        )

    def _maps(self, place: _Place, asked: Mapping[Any, Forward]) -> dict[str, dict[str, Tensor]]:
        """Each method's map at each layer for every target: (B, [T,] *grid), signed."""
        drawn: dict[str, dict[str, Tensor]] = {}
        for number, (ask, forward) in enumerate(asked.items(), 1):
            methods = [found for found in self.methods if found.ask == ask]
            drawn |= self._drawn(place, forward, methods, last=number == len(asked))
        return drawn

    def _drawn(
        self, place: _Place, forward: Forward, methods: Sequence[Method], *, last: bool
    ) -> dict[str, dict[str, Tensor]]:
        """The maps of methods that explain the same scores; the graph is kept unless this is the `last` use of it."""
        needs = {need for found in methods for need in found.needs}
        folds = {label: self._fold(label, kept, forward.call) for label, kept in forward.activations.items()}
        generator = self.generator or Generator().manual_seed(0)
        state = generator.get_state()
        probe = Probe(
            self.model,
            forward.call,
            rebuild(forward.outputs, Tensor.detach),
            forward.target,
            at_least_float32(forward.columns.detach()),
            self.batch_size,
            self.progress,
            self.precision,
        )
        noisy = partial(self._noisy, place, forward, generator)
        by_layer = partial(self._by_layer, forward)
        drawn: dict[str, dict[str, list[Tensor]]] = {found.name: {} for found in methods}
        for shared, seen in evidence(forward, needs, folds, probe, noisy, by_layer, keep_graph=not last):
            for found in methods:
                for label in place.labels(found) or tuple(folds):
                    generator.set_state(state)
                    values = {"generator": generator, **shared, **seen.get(label, {})}
                    drawn[found.name].setdefault(label, []).append(
                        found.function(**{need: values[need] for need in found.needs})
                    )
        if needs & {"generator", "noisy_gradients"}:  # the next call shall draw something else
            generator.set_state(state)
            generator.manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        several = forward.scores.ndim == 2
        return {
            name: {label: torch.stack(maps, 1) if several else maps[0] for label, maps in layers.items()}
            for name, layers in drawn.items()
        }

    def _noisy(
        self, place: _Place, forward: Forward, generator: Generator, samples: int, noise: float
    ) -> list[list[dict[str, Tensor]]]:
        """Of `samples` noisy inputs, for each target, the gradients (B, C, *grid) by layer.

        The noise is normal, its deviation `noise` times the range of each image's values; all images share the draw.
        """

        def view(image: Tensor) -> Tensor:
            drawn = torch.randn(image.shape[1:], generator=generator, device=generator.device).to(image)
            values = image.flatten(1)
            span = (values.amax(1) - values.amin(1)).reshape(-1, *[1] * (image.ndim - 1))
            return image + noise * span * drawn

        runs = []
        for _ in range(samples):
            again = self._forward(forward.call.seen_as(view), forward.target, place)
            folds = {label: self._fold(label, kept, again.call) for label, kept in again.activations.items()}
            slopes = gradients(again.columns, again.activations)
            runs.append([{label: fold(slope[label]) for label, fold in folds.items()} for slope in slopes])
        return runs

    def _by_layer(self, forward: Forward) -> list[list[Tensor]]:
        """See `tokens.by_layer`."""
        if forward.tokens is None:
            return []
        return by_layer(
            self.model,
            forward.call,
            forward.tokens,
            lambda outputs: replace(forward, outputs=outputs).scored(forward.target).columns,
            lambda attended: self._tokens(attended, forward.call),
        )

    def _fold(self, label: str, kept: Tensor, call: Inputs) -> Callable[[Tensor], Tensor]:
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

    def _smoothed(self, place: _Place, asked: Mapping[Any, Forward]) -> dict[str, dict[str, Tensor]]:
        """The mean of the maps over all views of the inputs, each put back in place.

        The targets stay as they were; where they say where in the image, a mirrored view has their mirror images.
        """
        totals = self._maps(place, asked)
        views = combine.views()
        for view in views[1:]:
            turned = targets.mirrored if view.mirrored else _as_it_is
            first = next(iter(asked.values()))
            again = self._forward(first.call.seen_as(view.apply), turned(first.target), place)
            drawn = self._maps(place, {ask: again.scored(turned(forward.target)) for ask, forward in asked.items()})
            totals = {
                name: {label: total + view.undo(drawn[name][label]) for label, total in layers.items()}
                for name, layers in totals.items()
            }
        return {name: {label: total / len(views) for label, total in layers.items()} for name, layers in totals.items()}


@dataclass(frozen=True)
class _Place:
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


def _as_it_is(target: targets.Target) -> targets.Target:
    return target


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
    pyramid = len({grid.shape for grid in explanation.maps.values()}) == len(explanation.maps)
    for label, grid in explanation.maps.items():
        places = grid.reshape(len(explanation), -1, math.prod(grid.shape[-len(explanation.size) :]))
        layers.setdefault(re.split(r"[\[#]", label)[0] if pyramid else label, []).append(places)
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
                warn(f"the {explanation.method} map of {label} {problem} for image {which}: {advice}.")
