"""What the studio does with one model, without a browser: look, explain, draw, cover, check, and write files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageFilter

from seewhy import methods, render, targets
from seewhy.apps.cli.asked import Asked, class_of, place_of
from seewhy.engine.session import plain_session
from seewhy.errors import InputError, MapWarning, OutputError, SeewhyError, TargetError
from seewhy.evaluation import evaluate
from seewhy.explainer import Explainer
from seewhy.inspect import summary
from seewhy.models import Loaded
from seewhy.results import Explanation
from seewhy.results.explanation import Scaling
from seewhy.targets.outputs import is_detections, tensors_called
from seewhy.targets.regions import place_scores

AUTO = "auto"  # the layer is chosen
_LIKELY = 5  # classes with bars
_BOXES = 12  # of a detector that are listed
_METRICS = ("insertion", "deletion")


@dataclass(frozen=True)
class Wish:
    """What somebody asks for.

    Attributes:
        methods: names, in the order of the pictures.
        target: a label, part of one, an index or a prompt; "" is the predicted class.
        layer: a name, or `AUTO`.
        pixel: (x, y) in the photograph, for models that give classes at every place.
        box: the number of a detected box.
    """

    methods: tuple[str, ...]
    target: str = ""
    layer: str = AUTO
    pixel: tuple[int, int] | None = None
    box: int | None = None


class Seen(NamedTuple):
    """What the model sees in a photograph.

    Attributes:
        likely: the most likely classes with their probabilities; none for models that give no class to an image.
        boxes: of a detector, each with its number before the colon.
    """

    likely: dict[str, float]
    boxes: list[str]


@dataclass(frozen=True, eq=False)
class Desk:
    """One model, and what can be asked of it. Nothing of a photograph stays here: callers keep what they were given."""

    loaded: Loaded

    @cached_property
    def layers(self) -> list[str]:
        """Names of the layers with space, and before them `AUTO`."""
        height, width = self.loaded.preprocess.size or (224, 224)
        inputs, _, _ = self.loaded.prepare([Image.new("RGB", (width, height), "gray")])
        return [AUTO, *dict.fromkeys(row.label for row in summary(self.loaded.module, inputs).rows if row.grid)]

    @property
    def labels(self) -> list[str]:
        """The names of the classes, each once; none where classes have no names."""
        return list(dict.fromkeys(self.loaded.labels or ()))

    def seen(self, photo: Image.Image) -> Seen:
        """What the model sees in a photograph, from one forward: likely classes, or the boxes of a detector."""
        outputs, context = self._outputs(photo)
        if self.loaded.embed_text is not None:
            return Seen({}, [])
        if is_detections(outputs) or tensors_called(outputs, ("pred_boxes",)):
            return Seen({}, self._boxes(outputs, context))
        try:
            scores = targets.class_scores(outputs)
        except OutputError:
            return Seen({}, [])
        if scores.values.ndim != 2 or scores.kind == "one value":
            return Seen({}, [])
        names = scores.names(self.loaded.labels)
        found, index = scores.likely[0].topk(min(_LIKELY, len(names)))
        return Seen({names[at]: value for at, value in zip(index.tolist(), found.tolist(), strict=True)}, [])

    def at(self, photo: Image.Image, pixel: tuple[int, int]) -> str:
        """The class that a segmenter sees at a pixel of the photograph; "" for models that score whole pictures."""
        outputs, _ = self._outputs(photo)
        try:
            scores = place_scores(outputs).values
        except OutputError:
            return ""
        across, down = place_of(pixel, self.loaded.preprocess.frame(photo.size))
        height, width = scores.shape[-2:]
        index = int(scores[0, :, int(down * height), int(across * width)].argmax())
        return targets.class_name(index, "scores", self.loaded.labels)

    def _outputs(self, photo: Image.Image) -> tuple[Any, targets.Context]:
        """What the model returns for a photograph."""
        inputs, _, _ = self.loaded.prepare([photo])
        with plain_session(self.loaded.module, inputs) as run:
            outputs = run.run()
        return outputs, targets.Context(1, [tuple(inputs.shape[-2:])], self.loaded.labels)

    def _boxes(self, outputs: Any, context: targets.Context) -> list[str]:
        """The first boxes of a detector in words, each with its number."""
        found = []
        for number in range(_BOXES):
            try:
                box = targets.Box(index=number).resolved(outputs, context)
            except TargetError:  # there are no more
                break
            sure = float(box(outputs).flatten()[0])
            found.append(f"{number}: {box.describe(self.loaded.labels) or 'object'}, score {sure:.2f}")
        return found

    def explain(self, photo: Image.Image, wish: Wish) -> dict[str, Explanation]:
        """An explanation by each method.

        Raises:
            SeewhyError: for a wish that does not fit the model, in words for who asked.
        """
        if not wish.methods:
            raise InputError("no method is chosen.", do="choose one or more")
        named = [methods.get(name) for name in wish.methods]
        somewhere = wish.layer != AUTO and any(found.layered for found in named)
        found: dict[str, Explanation] = {}
        for layered in (True, False):  # a layer is for the methods that look at one
            names = [one.name for one in named if one.layered is layered]
            if names:
                layers = wish.layer if somewhere and layered else None
                found |= Explainer(self.loaded, names, layers=layers).each([photo], self._asked(photo, wish))
        return {one.name: found[one.name] for one in named}

    def _asked(self, photo: Image.Image, wish: Wish) -> Any:
        if self.loaded.embed_text is not None:
            if not wish.target:
                raise InputError("the model compares pictures with words.", do="type what the picture may show")
            return targets.Text(wish.target)
        index = class_of(wish.target, self.loaded) if wish.target else None
        place = None if wish.pixel is None else place_of(wish.pixel, self.loaded.preprocess.frame(photo.size))
        return Asked(index, wish.box, place)

    def without(self, photo: Image.Image, covered: Image.Image, explanation: Explanation) -> tuple[float, float]:
        """The score as it is, and where `covered` (as large as the photograph) is white blurred beyond recognition."""
        if covered.size != photo.size:
            raise InputError("the brush's picture is not of the photograph's size.", got=covered.size)
        blurred = photo.filter(blur(photo))
        changed = Image.composite(blurred, photo, covered.convert("L"))
        inputs, _, _ = self.loaded.prepare([photo, changed])
        with plain_session(self.loaded.module, inputs) as run:
            before, after = run.run(run.call.with_rows(_first)), run.run(run.call.with_rows(_second))
        scores = [targets.checked(explanation.targets(outputs), 1).flatten()[0] for outputs in (before, after)]
        return float(scores[0]), float(scores[1])


def blur(photo: Image.Image) -> ImageFilter.GaussianBlur:
    """What leaves colours and takes everything else."""
    return ImageFilter.GaussianBlur(max(photo.size) / 12)


def _first(rows: torch.Tensor) -> torch.Tensor:
    return rows[:1].clone()


def _second(rows: torch.Tensor) -> torch.Tensor:
    return rows[1:].clone()


def pictures(
    explanations: Mapping[str, Explanation], *, signed: bool, colormap: str | None, alpha: float
) -> list[tuple[Image.Image, str]]:
    """Overlays with captions. No model runs."""
    scaling: Scaling = "none" if signed else "per_image"
    return [
        (render.overlays(found, scaling=scaling, colormap=colormap, alpha=alpha)[0], caption(found))
        for found in explanations.values()
    ]


def checked(loaded: Loaded, explanations: Mapping[str, Explanation]) -> list[tuple[str, ...]]:
    """For each method what the check says of its map in words, and insertion and deletion of the probability."""
    found = []
    for name, explanation in explanations.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MapWarning)  # the text says it
                p = float(explanation.check().p_value[0])
                rows = evaluate(
                    loaded, list(explanation.photos or ()), explanation.targets, methods=(), metrics=_METRICS,
                    maps={name: explanation.heatmap},
                )  # fmt: skip
            verdict = "better than chance" if p <= 0.05 else "cannot be told from chance"
            found.append(
                (name, f"{verdict}: p = {p:.2f}", *(f"{rows.row(name, metric).mean:.2f}" for metric in _METRICS))
            )
        except SeewhyError as error:
            found.append((name, str(error).splitlines()[0], "", ""))
    return found


def caption(explanation: Explanation) -> str:
    """What a picture shows, in a line."""
    name = explanation.name()
    score = float(explanation.scores.flatten()[0])
    where = "" if explanation.layers == ("input",) else " at " + ", ".join(explanation.layers)
    return f"{explanation.method}{where}: {name}, score {score:.2f}" if name else f"{explanation.method}{where}"


def files(explanations: Mapping[str, Explanation], folder: Path, **drawing: Any) -> Sequence[Path]:
    """A PNG, an SVG and an .npz for each method, and one page of all: written into `folder`."""
    written = []
    for name, found in explanations.items():
        written += [found.save(folder / f"{name}{ending}", **drawing) for ending in (".png", ".svg")]
        written.append(found.save(folder / f"{name}.npz"))
    return [*written, render.report(dict(explanations), folder / "why.html")]
