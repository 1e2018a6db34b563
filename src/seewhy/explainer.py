"""The one place where the parts meet: a model, inputs, a target and a method become an Explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args, overload

import torch
from jaxtyping import Float
from PIL import Image
from torch import Generator, Tensor, nn

from seewhy import targets
from seewhy._types import Frame
from seewhy.engine.guard import guard
from seewhy.engine.probe import Precision, Probe
from seewhy.engine.tape import gradients, replacing
from seewhy.errors import InputError, InputTypeError, LayerError, MethodError
from seewhy.evidence.forward import Fold, Forward, at_least_float32, evidence
from seewhy.evidence.recording import Place, Recorder
from seewhy.evidence.tokens import by_layer
from seewhy.geometry import grid as grids
from seewhy.hooks.nested import rebuild
from seewhy.hooks.select import Layers, find
from seewhy.hooks.wrappers import unwrap
from seewhy.inputs.call import Inputs
from seewhy.methods import channels, registry, smooth
from seewhy.methods.cam.decomposition import factorize
from seewhy.methods.fuse import Fuse, unknown_fuse
from seewhy.methods.registry import Method
from seewhy.models.loaded import Loaded, own_labels
from seewhy.results import Concepts, Explanation
from seewhy.results.checks import warn_of_blanks


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
    precision: "bf16" runs changed inputs in bfloat16, if the hardware computes in it; scores agree to 2 or 3 digits.
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
        fuse: Fuse | None = None,
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
        self.fuse = fuse
        self.augment_smooth = augment_smooth
        self.generator = generator
        self.batch_size, self.precision, self.progress = batch_size, precision, progress
        self.labels = labels if labels is not None else self.loaded.labels if self.loaded else own_labels(self.model)
        if fuse not in (None, *get_args(Fuse)):
            raise unknown_fuse(fuse)
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
            self.methods = [registry.get(found, reduce=channels.principal_component) for found in self.methods]
        named = None if layers is None else find(self.model, layers)
        context = partial(
            targets.Context,
            labels=self.labels,
            embeds=getattr(self.model, "num_classes", None) == 0,  # timm's models without a head
            encode=self.loaded.embed_text if self.loaded else None,
            features={},
        )
        self.recorder = Recorder(self.model, self.methods, named, grid, context)

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
            place, forward = self.recorder.first(call, target)
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
            warn_of_blanks(explanation)
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
            place, forward = self.recorder.first(call, None)
            if len(forward.activations) != 1:
                raise LayerError("concepts are those of one layer.", got=", ".join(forward.activations), do="layers=")
            ((label, kept),) = forward.activations.items()
            fold = self.recorder.fold(label, kept, call)
            maps, vectors = factorize(fold(kept.detach()), count)
            strongest = vectors * maps.movedim(1, 0).flatten(1).amax(1)[:, None]
            scores = self._scores_of(place, forward, label, strongest, fold)
        return Concepts(maps, vectors, scores, label, call.size, self.labels, frames, photos)

    def _scores_of(
        self, place: Place, forward: Forward, label: str, vectors: Float[Tensor, "K C"], fold: Fold
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

    def _maps(self, place: Place, asked: Mapping[Any, Forward]) -> dict[str, dict[str, Tensor]]:
        """Each method's map at each layer for every target: (B, [T,] *grid), signed."""
        drawn: dict[str, dict[str, Tensor]] = {}
        for number, (ask, forward) in enumerate(asked.items(), 1):
            methods = [found for found in self.methods if found.ask == ask]
            drawn |= self._drawn(place, forward, methods, last=number == len(asked))
        return drawn

    def _drawn(
        self, place: Place, forward: Forward, methods: Sequence[Method], *, last: bool
    ) -> dict[str, dict[str, Tensor]]:
        """The maps of methods that explain the same scores; the graph is kept unless this is the `last` use of it."""
        needs = {need for found in methods for need in found.needs}
        folds = {label: self.recorder.fold(label, kept, forward.call) for label, kept in forward.activations.items()}
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
        self, place: Place, forward: Forward, generator: Generator, samples: int, noise: float
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
            again = self.recorder.forward(forward.call.seen_as(view), forward.target, place)
            folds = {label: self.recorder.fold(label, kept, again.call) for label, kept in again.activations.items()}
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
            lambda attended: self.recorder.tokens(attended, forward.call),
        )

    def _smoothed(self, place: Place, asked: Mapping[Any, Forward]) -> dict[str, dict[str, Tensor]]:
        """The mean of the maps over all views of the inputs, each put back in place.

        The targets stay as they were; where they say where in the image, a mirrored view has their mirror images.
        """
        totals = self._maps(place, asked)
        views = smooth.views()
        for view in views[1:]:
            turned = targets.mirrored if view.mirrored else _as_it_is
            first = next(iter(asked.values()))
            again = self.recorder.forward(first.call.seen_as(view.apply), turned(first.target), place)
            drawn = self._maps(place, {ask: again.scored(turned(forward.target)) for ask, forward in asked.items()})
            totals = {
                name: {label: total + view.undo(drawn[name][label]) for label, total in layers.items()}
                for name, layers in totals.items()
            }
        return {name: {label: total / len(views) for label, total in layers.items()} for name, layers in totals.items()}


def _as_it_is(target: targets.Target) -> targets.Target:
    return target


def _are_photos(inputs: Any) -> bool:
    first = inputs[0] if isinstance(inputs, list | tuple) and inputs else inputs
    return isinstance(first, str | Path | Image.Image)
