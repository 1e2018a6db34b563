"""Explains one model with one method, or several, again and again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial
from typing import Any

import torch
from PIL import Image
from torch import Generator, Tensor, nn

from seewhy import targets
from seewhy._late import late
from seewhy._types import Fold, Frame
from seewhy.engine.per_model import PerModel
from seewhy.engine.probe import Limits, Precision
from seewhy.engine.session import Session, session
from seewhy.errors import (
    GradientError,
    InputError,
    InputTypeError,
    LayerError,
    MethodError,
    ReplayWarning,
    SeewhyError,
    warn,
)
from seewhy.evidence import Forward, Gradients, Recorder, Settings, doubts, logits, question, see_each_other, shares
from seewhy.explainer._concepts import Discovery, discovered
from seewhy.explainer._maps import Drawing
from seewhy.explainer._options import check_methods, check_values, has_a_window
from seewhy.geometry.observe import Seen, observe
from seewhy.hooks.nested import rebuild, tensors
from seewhy.hooks.select import Layers, find
from seewhy.hooks.wrappers import unwrap
from seewhy.inputs import Inputs
from seewhy.methods import channels, default, registry
from seewhy.methods.fuse import Fuse
from seewhy.methods.registry import Attribution, Method
from seewhy.models.accepted import as_module, with_preprocessing
from seewhy.models.loaded import Loaded, are_photos, own_labels
from seewhy.models.yolo import reading
from seewhy.results import Concepts, Explanation, Explanations, cat
from seewhy.results.checks import warn_of_blanks, warn_of_gaps, without
from seewhy.results.origin import Origin
from seewhy.results.windowed import Pool, Windows, explained
from seewhy.targets.outputs import Output

_PLAIN_REASON = f"{default.PLAIN}, the default where no class is read behind layer norms;"
_BALANCED_REASON = f"{default.FOR_LAYER_NORMS}, the default for classes of a network with layer norms"

# by the shape of the inputs: the method, layers and reason that "auto" found for a model
_choices: PerModel[dict[tuple[int, ...], tuple[str, tuple[str, ...], str]]] = PerModel(dict)
# by the shape of the inputs and the kind of target: whether the default takes the method for layer norms
_balanced: PerModel[dict[tuple[Any, ...], bool]] = PerModel(dict)

_Recorded = tuple[Forward, dict[str, Explanation]]  # a recorded forward, and what each method made of it
_Explained = tuple[list[Method], dict[str, Explanation]]  # the methods, and the explanation by each, by its name


class Explainer:
    """Explains one model with one method, or several.

    Where to look in the model is worked out once for a shape of input and a kind of target, then reused.

    Args:
        model: any `nn.Module`, in whatever mode, or what `seewhy.load` returned.
        method: a name from `seewhy.methods.available()`, a function (model, inputs, target) -> maps (B, *space), or
            several of them for `each`. "default" is `local_libra_grad` for the classes of a network with layer norms
            (transformers, ConvNeXt), and `grad_cam` for everything else and where `layers`, `grid`, `eigen_smooth` or
            options are given.
            "auto" measures methods and layers on the inputs of the first call, and keeps the best: see `seewhy.choose`.
        layers: names, patterns or modules, one or several. None chooses the last layer with space that the score
            depends on.
        grid: for layouts that are not recognised: the (h, w) or (d, h, w) of the layer's tokens, or a linear function
            from the layer's output to (B, C, *space). Tokens beyond these, of a class say, are left out: those that no
            change of the image reaches, or the first ones where that cannot be seen.
        fuse: how several layers become one heatmap: "mean", "max", "product", "local_product", in which the fine ones
            outline what the coarse ones point at, or "sum", unscaled, for parallel layers. None is the method's own
            way, and the sum of parallel layers that the library found.
        eigen_smooth: the first principal component of the weighted activations instead of their sum.
        augment_smooth: the mean over six views, mirrored and of other brightness; costs six times as much.
        generator: random numbers for the methods that draw; None is the same seed for every call. All maps of a call
            start from the same state: a map does not depend on what else was asked for.
        labels: a name per class, so that targets can be given by label.
        output: which part of the model's output counts: its place in a tuple, its key, or a function that takes it out.
            None is all of it.
        batch_size: how many changed inputs or activations a perturbation method runs at once; bounds its memory.
        precision: "bf16" runs changed inputs in bfloat16, if the hardware computes in it; scores agree to 2 or 3
            digits.
        gradients: "libra" runs a method of gradients on those of LibraGrad (arXiv:2411.16760): through attention, norms
            and gates they keep the account of what each part added to the score; see `libra_grad`.
        progress: a bar for methods that run the model often.
        window: for volumes and pictures that are larger than the model takes: the size of windows that slide over a
            tensor (B, C, *space), or MONAI's `SlidingWindowInferer`. Their maps are blended, by a Gaussian's weight,
            and memory is that of one window. Of a `Region` with a mask it is the map of the stitched output. For a
            method with such an option of its own (occlusion) it is that.
        overlap: the share of a window that the next one covers again; None is 0.5, or the inferer's own.
        pool: how the windows' class scores become the image's, "mean" or "max". Of "max" the map is that of the window
            of the largest score.
        **options: what the method itself takes by keyword, `masks=500` for "rise" say: see `seewhy.methods.get`.

    Raises:
        MethodError: if the method does not exist, or does not go with the options.
        LayerError: if a layer does not exist; on a call, if none has space.
        TargetError: on a call, if the target does not fit the output.
        OutputError: on a call, if no class scores are found in the output.
        GradientError: on a call, if no gradient leads from the score to a layer.
    """

    def __init__(
        self,
        model: nn.Module | Loaded,
        method: str | Method | Attribution | Sequence[str | Method | Attribution] = default.DEFAULT,
        *,
        layers: Layers | None = None,
        grid: Fold | tuple[int, ...] | None = None,
        fuse: Fuse | None = None,
        eigen_smooth: bool = False,
        augment_smooth: bool = False,
        generator: Generator | None = None,
        labels: Sequence[str] | None = None,
        output: Output = None,
        batch_size: int = 32,
        precision: Precision = "full",
        gradients: Gradients = "plain",
        progress: bool = False,
        window: Any = None,
        overlap: float | None = None,
        pool: Pool = "mean",
        **options: Any,
    ) -> None:
        if window is not None and isinstance(method, str | Method) and has_a_window(method):
            options, window = {**options, "window": window}, None
        self.windows = None if window is None else Windows.of(window, overlap, pool)
        found = with_preprocessing(model)
        self.loaded = found if isinstance(found, Loaded) else None
        self.model = unwrap(as_module(model))
        self.auto = method == "auto"
        told = bool(options) or layers is not None or grid is not None or eigen_smooth or gradients != "plain"
        self.named = method != default.DEFAULT
        self.by_default = not (self.named or told)
        names: list[Any] = list(method) if isinstance(method, list | tuple) else [method]
        names = [default.PLAIN] if method == default.DEFAULT else names
        self.methods = [] if self.auto else [registry.get(name, **options) for name in names]
        chosen = reading(self.model) if output is None else output
        self._select: Callable[[Any], Any] = partial(targets.select, output=chosen)
        self.labels = labels if labels is not None else self.loaded.labels if self.loaded else own_labels(self.model)
        check_values(fuse=fuse, batch_size=batch_size, precision=precision, gradients=gradients)
        if self.auto and told:
            raise MethodError('"auto" chooses the method, its layers and its options.', do="leave the others out")
        if not (self.methods or self.auto):
            raise MethodError("no method was given.", got="an empty list", do='method="grad_cam"')
        check_methods(
            self.model, self.methods, gradients=gradients, eigen_smooth=eigen_smooth, layers=layers is not None
        )
        if eigen_smooth:
            self.methods = [registry.get(found, reduce=channels.principal_component) for found in self.methods]
        named = None if layers is None else find(self.model, layers)
        self._drawing = Drawing(self.methods, fuse, augment_smooth, generator is not None, self.labels)
        settings = Settings(
            tuple(grid) if isinstance(grid, list) else grid,
            generator or Generator().manual_seed(0),
            Limits(batch_size, progress, precision),
            gradients,
        )
        known = partial(
            targets.Context,
            labels=self.labels,
            embeds=getattr(self.model, "num_classes", None) == 0,  # timm's models without a head
            encode=self.loaded.embed_text if self.loaded else None,
            shares=cache(partial(shares, self.model, batch_size)),
            regression=getattr(getattr(self.model, "config", None), "problem_type", None) == "regression",
            num_classes=targets.declared_classes(self.model),
            differentiable=any(found.differentiates for found in self.methods),
            features={},
        )
        self._first = 0  # the number of the first image, for warnings
        self.recorder = Recorder(self.methods, named, settings, lambda call: known(batch=call.batch, sizes=call.sizes))
        self._choosing = {"batch_size": batch_size, "generator": generator}
        self._options: dict[str, Any] = self._choosing | {
            "fuse": fuse,
            "augment_smooth": augment_smooth,
            "labels": labels,
            "output": output,
            "precision": precision,
            "gradients": gradients,
            "progress": progress,
        }

    def __call__(self, inputs: Any, target: targets.Classes | targets.Target = None) -> Explanation:
        """Explain a batch with the one method there is; see `each`.

        Args:
            inputs: as for `explain`.
            target: what to explain; see `seewhy.targets`. None is the predicted class.

        Returns:
            The explanation.

        Raises:
            MethodError: where there are several methods.
            SeewhyError: one of `seewhy.errors`, as the class says.
        """
        if len(self.methods) > 1:
            raise MethodError(
                "there are several methods, and so several explanations.",
                got=", ".join(found.name for found in self.methods),
                do="explainer.each(inputs, target), which gives them by name",
            )
        (explanation,) = self.each(inputs, target).values()
        return explanation

    def each(self, inputs: Any, target: targets.Classes | targets.Target = None) -> Explanations:
        """Explain a batch with every method, from one forward wherever they share it.

        Args:
            inputs: as for `explain`.
            target: what to explain; see `seewhy.targets`. None is the predicted class.

        Returns:
            An explanation by the name of each method: a dict that a notebook shows as a picture.
        """
        if isinstance(target, targets.Token):
            return self._spoken(inputs, target)
        if self.windows is not None:
            return self._by_windows(self.windows, inputs, target)
        if self.auto:
            return Explanations(auto=self._chosen(inputs, target))
        return self._each(inputs, target, *self.prepared(inputs))

    def _spoken(self, inputs: Any, target: targets.Token) -> Explanations:
        """The explanations of the tokens of an answer, at the layers of the model of language."""
        if self.auto or self.windows is not None:
            got = '"auto"' if self.auto else "window="
            raise MethodError(f"{got} is for the classes of pictures.", got="seewhy.Token", do=f"leave {got} out")
        asked = question(self.model, inputs, target, self.recorder, self.loaded and self.loaded.processor)
        explainer = copy.copy(self)
        explainer.recorder, explainer._select, explainer.by_default = asked.recorder, logits, False
        found = explainer._each(inputs, asked.target, asked.call, None, None)
        return Explanations(
            {name: replace(one, note=asked.note or one.note, photos=asked.photos) for name, one in found.items()}
        )

    def _each(
        self,
        passed: Any,
        target: Any,
        inputs: Any,
        photos: tuple[Image.Image, ...] | None,
        frames: tuple[Frame, ...] | None,
    ) -> Explanations:
        """See `each`, for inputs that are prepared."""
        with session(self.model, inputs, select=self._select) as run:
            taken, found = self._of_each_input(run, target)
        files = _files(passed) if photos else None
        explanations = Explanations()
        for method in taken:
            origin = Origin(self.loaded or self.model, None if photos else passed, run.call.batch, method)
            one = found[method.name]
            others = {name: replace(other, origin=origin) for name, other in one.others.items()}
            explanations[method.name if self.named else default.DEFAULT] = replace(
                one, frames=frames, photos=photos, files=files, origin=origin, others=others
            )
        return explanations

    def _of_each_input(self, run: Session, target: Any) -> _Explained:
        """The explanations on the image among the inputs; of several on the first, which holds the others'."""
        if run.call.count < 2:
            return self._of_input(run, target)
        refused: list[SeewhyError] = []
        made: list[tuple[str, _Explained]] = []
        for number, name in enumerate(run.call.names(run.model)):
            try:
                about = replace(run, call=replace(run.call, which=number))
                made.append((name, self._of_input(about, target)))
            except (GradientError, InputError, LayerError, MethodError) as error:  # no map lies on this one
                refused.append(error)
        if not made:
            raise refused[0]
        taken, _ = made[0][1]
        explanations = {}
        for method in taken:
            first, *others = (
                replace(found[method.name], input=name) for name, (_, found) in made if method.name in found
            )
            explanations[method.name] = replace(first, others={other.input: other for other in others})
        return taken, explanations

    def _of_input(self, run: Session, target: Any) -> _Explained:
        """The methods that are taken, and their explanations on the image that the call means."""
        try:
            taken, why, (forward, found) = (
                self._default(run, target) if self.by_default else (self.methods, "", self._recorded(run, target))
            )
        except LayerError as error:
            return self._in_turn(run, target, error)
        if forward.plan.own and run.call.batch > 1:
            raise LayerError(
                "what an image shows decides where the model looks in it, so that no two maps lie alike.",
                got=f"{run.call.batch} images, and {', '.join(map(str, forward.plan.own[:3]))}",
                expected="one image at a time",
                do="[seewhy.explain(model, image[None]) for image in images], or a method on the input, such as rise",
            )
        if see_each_other(forward):
            warn(
                "the images of a batch depend on each other in this model: each is explained alone. BatchNorm without "
                "running statistics, attention over the batch, experts with a capacity and models that run their batch "
                "in another order do this.",
                ReplayWarning,
            )
            alone = self._one_by_one(forward.call, target, forward.target, forward.outputs)
            return taken, {method.name: one for method, one in zip(taken, alone.values(), strict=True)}
        drawing = self._drawing if taken is self.methods else self._for_layer_norms._drawing
        for method in taken:
            again = partial(_maps_of, drawing, method.name)
            doubted = doubts(method, found[method.name].maps, forward, again)
            found[method.name] = without(found[method.name], doubted)
            warn_of_blanks(found[method.name], first=self._first)
            warn_of_gaps(found[method.name], first=self._first)
        return taken, {name: _noted(one, why) for name, one in found.items()}

    def explained(self, forward: Forward) -> dict[str, Explanation]:
        """What each method makes of a recorded forward, by its name: a closed computation, which `export` traces.

        Args:
            forward: recorded for these methods, inside a session.

        Returns:
            Explanations that know nothing of the caller's photographs and model.
        """
        return self._drawing.explained(forward)

    def _by_windows(self, windows: Windows, inputs: Any, target: Any) -> Explanations:
        """The explanations of large images, a window at a time."""
        if not isinstance(inputs, Tensor) or inputs.ndim < 3:
            raise InputTypeError(
                "windows slide over a tensor of images.", got=type(inputs).__name__, expected="(B, C, *space)"
            )
        within = copy.copy(self)
        within.windows = None

        def scores(part: Tensor) -> Tensor:
            with session(self.model, part, select=self._select) as run, torch.no_grad():
                return targets.class_scores(run.run()).values.cpu()

        return Explanations(explained(windows, inputs, target, within.each, scores))

    def _recorded(self, run: Session, target: Any) -> _Recorded:
        """A forward recorded where the methods look, and what they made of it."""
        remembered = self.recorder.has_plan(run, target)
        forward = self.recorder.first(run, target)
        found = self.explained(forward)
        if remembered and _some_blank(found.values(), len(run.call.space)):  # the plan was made for another target
            forward = self.recorder.first(run, target, afresh=True)
            found = self.explained(forward)
        return forward, found

    def _default(self, run: Session, target: Any) -> tuple[list[Method], str, _Recorded]:
        """What the default takes, why, and what that made."""
        kept, key = _balanced.of(run.model), (*run.call.signature, run.call.which, type(target))
        if kept.setdefault(key, default.normalises_places(run.model, run.call.space)):
            balanced = self._for_layer_norms
            try:
                recorded = balanced._recorded(run, target)
                if default.is_of_classes(recorded[0].target):
                    return balanced.methods, _BALANCED_REASON, recorded
            except (GradientError, InputError):  # nothing leads from the score to the image
                pass
            kept[key] = False
        return self.methods, _PLAIN_REASON, self._recorded(run, target)

    @cached_property
    def _for_layer_norms(self) -> Explainer:
        return Explainer(self.loaded or self.model, default.FOR_LAYER_NORMS, **self._options)

    def _in_turn(self, run: Session, target: Any, error: LayerError) -> _Explained:
        """The explanations of each image alone, where no layer has a row for each: a model may run them in turn.

        Raises:
            LayerError: `error`, that of the batch, if this does not help.
        """
        batch = run.call.batch
        if batch == 1 or run.call.canvas is not None:
            raise error
        with run.aside():
            observed = observe(run)
        if not _in_parts(observed.seen, batch, self.recorder.layers):
            raise error
        outputs = observed.outputs
        definite = self.recorder.resolved(target, outputs, run.call)
        try:
            alone = self._one_by_one(run.call, target, definite, outputs)
        except SeewhyError:
            raise error from None
        why = "the model runs the images of a batch in parts: each is explained alone;"
        by_name = {one.method: _noted(one, why) for one in alone.values()}
        plain = all(method.name in by_name for method in self.methods)
        return self.methods if plain else self._for_layer_norms.methods, by_name

    def _one_by_one(self, call: Inputs, target: Any, definite: Any, outputs: Any) -> dict[str, Explanation]:
        """The explanations of each image alone, joined.

        Args:
            call: of the batch.
            target: as the caller said it.
            definite: the same, made definite for the batch.
            outputs: what the model returned for the batch.
        """
        asked, outputs = targets.as_target(definite), rebuild(outputs, Tensor.detach)
        explainer = copy.copy(self)
        found = []
        for row in range(call.batch):
            alone, explainer._first = call.with_rows(partial(_row, row)), self._first + row
            found.append(explainer.each(alone, None if target is None else asked.of_row(row, outputs, call.batch)))
        if target is None:
            return {name: cat([one[name] for one in found]) for name in found[0]}
        joined = {name: cat([replace(one[name], targets=None) for one in found]) for name in found[0]}
        return {name: replace(one, targets=asked) for name, one in joined.items()}

    def _chosen(self, inputs: Any, target: Any) -> Explanation:
        """The explanation by the method and layers that measure best: chosen once for a model and shape of inputs."""
        model = self.loaded or self.model
        kept, key = _choices.of(self.model), _shape(self.prepared(inputs)[0])
        if key not in kept:
            choice = late("choose")(model, inputs, target, **self._choosing)
            kept[key] = choice.method, choice.layers, choice.reason
        method, layers, reason = kept[key]
        explainer = Explainer(model, method, layers=list(layers) or None, **self._options)
        return replace(explainer(inputs, target), note=reason)

    def concepts(
        self,
        inputs: Any,
        count: int = 5,
        *,
        method: Discovery = "factorization",
        target: targets.Classes | targets.Target = None,
        **options: Any,
    ) -> Concepts:
        """Show the activations of a layer as `count` concepts: where each one is, and which classes it speaks for.

        Args:
            inputs: as for `explain`. For "craft", images of one class.
            count: how many concepts.
            method: "factorization" is deep feature factorization (Collins et al. 2018, arXiv:1806.10206), of all images
                together; it costs a forward for the images and one for the concepts. "craft" is of crops, and tells how
                important each concept is for the target: see `seewhy.explainer._concepts.craft`.
            target: for "craft", as for `explain`; one for each image.
            **options: of "craft". crop: the side of a crop, in pixels of the input; designs: how many shares of each
                concept are tried; share: of the crops by which a concept is taken apart.

        Returns:
            The concepts. Their scores are those that the model gives where the layer returns a concept everywhere, as
            strong as it is at its strongest place. What else there is in the layer's output is of the first image.

        Raises:
            LayerError: for more than one layer. "craft" takes several, and takes each concept of the last one apart at
                the one before.
            MethodError: for another method, and a target or options without "craft".
        """
        inputs, photos, frames = self.prepared(inputs)
        with session(self.model, inputs, select=self._select) as run:
            found = discovered(self.recorder, run, count, method, target, options)
        return found.seen_in(self.labels, frames, photos)

    def prepared(self, inputs: Any) -> tuple[Any, tuple[Image.Image, ...] | None, tuple[Frame, ...] | None]:
        """What the model is called with for these inputs.

        Args:
            inputs: as for `explain`.

        Returns:
            The inputs as the model takes them. Where photographs were passed, also these, upright and RGB, and for each
            the rectangle (x0, y0, x1, y1), in pixels, that its input shows; else None twice.

        Raises:
            InputError: for a file that is no picture, and inputs that differ in shape.
            InputTypeError: for what is no photograph.
        """
        if self.loaded is None or not are_photos(inputs):
            return inputs, None, None
        return self.loaded.prepare(_listed(inputs))


def _noted(explanation: Explanation, why: str) -> Explanation:
    """The same, with something before its note."""
    return replace(explanation, note=" ".join(filter(None, (why, explanation.note))))


def _in_parts(seen: Sequence[Seen], batch: int, layers: Sequence[str] | None) -> bool:
    """Whether some calls have no row for each image, and named layers have all of them in several calls."""
    rows = [sum(call.shape[0] for call in seen if call.shape and call.label.name == name) for name in layers or ()]
    return any(call.shape[0] % batch for call in seen if call.shape) and not any(count % batch for count in rows)


def _maps_of(drawing: Drawing, name: str, forward: Forward) -> Mapping[str, Tensor]:
    """The maps of one method, of another forward."""
    return drawing.explained(forward)[name].maps


def _shape(inputs: Any) -> tuple[int, ...]:
    """The shape of one of the images among the inputs."""
    return next((tuple(tensor.shape[-3:]) for tensor in tensors(inputs)), ())


def _row(row: int, tensor: Tensor) -> Tensor:
    return tensor[row : row + 1]


def _some_blank(explanations: Iterable[Explanation], dimensions: int) -> bool:
    """Whether some method's maps of an image and target are zero at all layers."""
    anywhere = [
        torch.stack([grid.flatten(-dimensions).any(-1) for grid in found.maps.values()]) for found in explanations
    ]
    return not all(bool(found.any(0).all()) for found in anywhere)


def _files(photos: Any) -> tuple[str, ...] | None:
    """The names of the photographs' files; None if one of them was not read from a file."""
    names = [getattr(photo, "filename", "") if isinstance(photo, Image.Image) else photo for photo in _listed(photos)]
    return tuple(map(str, names)) if all(names) else None


def _listed(inputs: Any) -> Sequence[Any]:
    return inputs if isinstance(inputs, list | tuple) and inputs else [inputs]
