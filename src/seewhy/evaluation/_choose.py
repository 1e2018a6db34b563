"""Choose the method and layer whose maps the model's own score agrees with best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from torch import Generator, nn

from seewhy.errors import InputError
from seewhy.evaluation import _candidates
from seewhy.evaluation._candidates import Candidate
from seewhy.evaluation._competitors import FLOOR, Competitor, floor, name_of
from seewhy.evaluation._evaluate import Evaluation, evaluate
from seewhy.evaluation._halving import Trial, better, halved
from seewhy.evaluation._meter import Meter
from seewhy.evaluation._score import asking, prepare
from seewhy.explainer import Explainer
from seewhy.hooks.nested import rebuild
from seewhy.models.loaded import Loaded

_SHARES = (0.02, 0.05, 0.1, 0.2)  # of the pixels, the hottest first
_IMAGES = 8  # that choose, at most
_HALF = 16  # images from which on one half chooses and the other is reported


@dataclass(frozen=True, eq=False)
class Choice:
    """The method and layers that measured best on a model.

    Attributes:
        method: its name.
        layers: the names of the layers to look at; none for a method that looks at no layer.
        explainer: ready to use.
        reason: why, in a sentence with figures.
        forwards: how many forwards of an image the measuring took.
        scores: by candidate, the mean of what was measured of it; those dropped early were measured less.
        beats_floor: whether it can be told from a random map and a Gaussian in the middle.
    """

    method: str
    layers: tuple[str, ...]
    explainer: Explainer
    reason: str
    forwards: int
    scores: Mapping[str, float]
    beats_floor: bool
    _evaluate: Callable[[], Evaluation]

    @cached_property
    def evaluation(self) -> Evaluation:
        """The finalists and the floor by several metrics, on the images that did not choose if there are enough.

        It is measured when it is first read: some 400 forwards of each image.
        """
        return self._evaluate()

    def __str__(self) -> str:
        return self.reason


def choose(
    model: nn.Module | Loaded,
    inputs: Any,
    target: Any = None,
    *,
    candidates: Sequence[Competitor] | None = None,
    metric: str = "insertion_minus_deletion",
    budget: int | None = None,
    batch_size: int = 32,
    generator: Generator | None = None,
) -> Choice:
    """Find the method and layer that measure best on a model, by what the model's own score does.

        choice = seewhy.choose(model, images)
        explanation = choice.explainer(images)

    Each candidate's hottest pixels are inserted into a blurred image and deleted from the image. What is measured is
    the share of the way from the blurred image's score to the image's that the first has gone, less that of the second.
    An image counts as much as blurring changes its score. docs/methods/choosing.md compares other measures. Hopeless
    candidates are dropped early. Of those that cannot be told apart the one that is best on most models is taken. The
    choice is one for all images: choosing anew for each is worse.

    Args:
        model: any module, or what `seewhy.load` returned.
        inputs: some eight images or more, as for `explain`. Where there are sixteen or more, one half chooses, and the
            other is reported.
        target: what is explained; None is the predicted class.
        candidates: "method", "method@layer" or functions, as for `evaluate`; None is `local_libra_grad`,
            `local_integrated_gradients`, `refine_cam`, two methods of attention, and the cheap ones at the last layer
            of every resolution. Making their maps takes some 40 forwards of each image beside the measuring.
        metric: what is reported of the finalists beside what chose them.
        budget: forwards of an image that the measuring may take; None is 50 for each of at most 8 images.
        batch_size: how many changed images run at once, at least.
        generator: of the methods that draw, and of the floor.

    Returns:
        The choice. Its reason says when nothing can be told from chance.

    Raises:
        InputError: if no candidate gives a map.
    """
    prepared = prepare(model, inputs)
    draws = generator or Generator().manual_seed(0)
    with asking(model, prepared, target, of="logit") as asked:
        images, definite = asked.images, asked.target
        found = _candidates.distinct(
            _candidates.candidates(model, prepared, definite, candidates, batch_size, generator)
        )
        if not found:
            tried = ", ".join(map(name_of, candidates or ("the usual ones",)))
            raise InputError("no candidate gives a map of this model.", got=tried)
        half = len(images) // 2 if len(images) >= _HALF else len(images)
        some = min(half, _IMAGES)
        meter = Meter(asked.score, images, batch_size)
        entries = [*found, *(Candidate(name, (), entry.maps) for name, entry in floor(images[:, 0], draws).items())]
        order, measured = halved(
            len(found),
            len(FLOOR),
            lambda numbers, trials: meter.measure([entries[number].maps for number in numbers], trials),
            _trials(some),
            ((50 * some if budget is None else budget) - meter.forwards) // 2,
        )
    finalists = [found[number] for number in order]
    best, best_measured = finalists[0], measured[order[0]]
    scores = {entry.name: float(values.mean()) for entry, values in zip(entries, measured, strict=True)}
    beats = all(better(best_measured, values[: len(best_measured)], errors=2) for values in measured[len(found) :])
    layers = list(best.layers) or None
    explainer = Explainer(model, best.method, layers=layers, generator=generator, batch_size=batch_size)
    reported = slice(half if half < len(images) else 0, None)
    report = partial(
        evaluate,
        model,
        _rows(prepared, reported, len(images)),
        _rows(definite, reported, len(images)),
        methods=(),
        maps={entry.name: entry.maps[reported] for entry in finalists},
        metrics=tuple(dict.fromkeys((metric, "insertion", "deletion", "road"))),
        batch_size=batch_size,
        generator=generator,
    )
    reason = _reason(best, len(found), some, scores, meter.forwards, beats)
    return Choice(name_of(best.method), best.layers, explainer, reason, meter.forwards, scores, beats, report)


def _trials(images: int) -> list[Trial]:
    """Every image with every share, so that the first of them are of all images and all shares."""
    return [(image, _SHARES[(image + turn) % len(_SHARES)]) for turn in range(len(_SHARES)) for image in range(images)]


def _rows(structure: Any, rows: slice, batch: int) -> Any:
    """The part of every tensor with a row for each image."""
    return rebuild(structure, lambda tensor: tensor[rows] if tensor.ndim and len(tensor) == batch else tensor)


def _reason(best: Candidate, count: int, images: int, scores: Mapping[str, float], forwards: int, beats: bool) -> str:
    """The choice in a sentence with figures."""
    chance = ", ".join(f"{name} {scores[name]:.2f}" for name in FLOOR)
    figures = (
        f"{best.name}: insertion minus deletion {scores[best.name]:.2f} (by chance: {chance}), the "
        f"best of {count} candidates on {images} image(s), for {forwards} forwards of an image"
    )
    return figures if beats else f"no map of this model can be told from chance here; the best is {figures}"
