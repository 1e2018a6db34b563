"""Choose the method and layer whose maps the model's own score agrees with best."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from seewhy import methods as registry
from seewhy import targets
from seewhy.engine.session import session
from seewhy.errors import InputError, MapWarning, SeewhyError
from seewhy.evaluation._competitors import FLOOR, floor, shown
from seewhy.evaluation._evaluate import Evaluation, evaluate
from seewhy.evaluation._meter import Meter
from seewhy.evaluation._score import asking, prepare
from seewhy.explainer import Explainer
from seewhy.geometry import choose_layer
from seewhy.geometry.observe import Seen, observe
from seewhy.hooks.nested import rebuild
from seewhy.images import arrays
from seewhy.models.loaded import Loaded

# formulas that cost one forward and at most one backward, tried at every resolution
_AT_LAYERS = ("grad_cam", "grad_cam_plus_plus", "x_grad_cam", "layer_cam", "hires_cam")
_OVER_LAYERS = ("refine_cam", "refine_layer_cam")
_OF_ATTENTION = ("attention_relevance", "le_grad", "agcam", "grad_eclip")
_REPLAYED = ("ablation_cam", "recipro_cam")
_SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)  # of the pixels, the hottest first: marks are small
_ALIKE = 0.99  # correlation of ranks above which two candidates are one
_IMAGES = 8  # that choose, at most
_KEEP = 3  # one candidate in this many goes on to the next round


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


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A method and where it looks, with its maps of the images."""

    method: str
    layers: tuple[str, ...]
    maps: Float[Tensor, "B *size"]

    @property
    def name(self) -> str:
        return f"{self.method}@{'+'.join(self.layers)}" if self.layers else self.method


def choose(
    model: nn.Module | Loaded,
    inputs: Any,
    target: Any = None,
    *,
    candidates: Sequence[str] | None = None,
    metric: str = "insertion_minus_deletion",
    budget: int | None = None,
    batch_size: int = 32,
    generator: Generator | None = None,
) -> Choice:
    """Find the method and layer that measure best on a model, by what the model's own score does.

        choice = seewhy.choose(model, images)
        explanation = choice.explainer(images)

    Each candidate's hottest pixels are inserted into a blurred image and deleted from the image. The candidate for
    which the probability rises most and falls most is the best. Hopeless candidates are dropped early. The choice is
    one for all images: choosing anew for each is worse.

    Args:
        model: any module, or what `seewhy.load` returned.
        inputs: some eight images or more, as for `explain`. Of sixteen or more one half chooses, the other is reported.
        target: what is explained; None is the predicted class.
        candidates: "method" or "method@layer"; None is the cheap methods at the last layer of every resolution, their
            products, and for transformers those of attention.
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
    with asking(model, prepared, target, of="probability") as asked:
        images, definite = asked.images, asked.target
        found = _distinct(_maps(model, prepared, definite, candidates, batch_size, generator))
        if not found:
            tried = ", ".join(candidates or ("the usual ones",))
            raise InputError("no candidate gives a map of this model.", got=tried)
        half = len(images) // 2 if len(images) >= 16 else len(images)
        meter = Meter(asked.score, images, batch_size)
        chance = [_Candidate(name, (), entry.maps) for name, entry in floor(images[:, 0], draws).items()]
        chosen_on = min(half, _IMAGES)
        finalists, measured = _halved(found, chance, meter, chosen_on, 50 * chosen_on if budget is None else budget)
    best, scores = finalists[0], {name: float(values.mean()) for name, values in measured.items()}
    beats = all(_above_zero(_paired(measured, best.name, name)) for name in FLOOR)
    layers = list(best.layers) or None
    explainer = Explainer(model, best.method, layers=layers, generator=generator, batch_size=batch_size)
    reported = slice(half if len(images) >= 16 else 0, None)
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
    reason = _reason(best, len(found), chosen_on, scores, meter, beats)
    return Choice(best.method, best.layers, explainer, reason, meter.forwards, scores, beats, report)


def _rows(structure: Any, rows: slice, batch: int) -> Any:
    """The part of every tensor with a row for each image."""
    return rebuild(structure, lambda tensor: tensor[rows] if tensor.ndim and len(tensor) == batch else tensor)


def _reason(best: _Candidate, count: int, images: int, scores: Mapping[str, float], meter: Meter, beats: bool) -> str:
    """The choice in a sentence with figures."""
    chance = ", ".join(f"{name} {scores[name]:.2f}" for name in FLOOR)
    figures = (
        f"{best.name}: insertion minus deletion of the probability {scores[best.name]:.2f} (by chance: {chance}), the "
        f"best of {count} candidates on {images} image(s), for {meter.forwards} forwards of an image"
    )
    return figures if beats else f"no map of this model can be told from chance here; the best is {figures}"


def _halved(
    candidates: Sequence[_Candidate], chance: Sequence[_Candidate], meter: Meter, images: int, budget: int
) -> tuple[list[_Candidate], dict[str, Float[Tensor, " trials"]]]:
    """Successive halving (Jamieson and Talwalkar 2016): all candidates in few trials, the best third in more.

    A trial is an image and a share of its pixels; all candidates that are left meet the same trials.

    Returns:
        The finalists, the best first, and what was measured of each candidate and of the floor, by name.
    """
    alive = list(candidates)
    trials = [(number % images, _SHARES[number % len(_SHARES)]) for number in range(images * len(_SHARES))]
    measured: dict[str, Tensor] = {}
    rounds = max(1, math.ceil(math.log(max(len(alive), 2), _KEEP)))
    for number in range(rounds):
        affordable = budget // (rounds * (len(alive) + len(chance)) * 2)
        now, trials = trials[: max(1, affordable)], trials[max(1, affordable) :]
        if now:
            entries = [*alive, *chance]
            found = meter.measure([entry.maps for entry in entries], now)
            for entry, values in zip(entries, found, strict=True):
                measured[entry.name] = torch.cat([measured.get(entry.name, values[:0]), values])
        alive.sort(key=lambda entry: -float(measured[entry.name].mean()))
        if number < rounds - 1:
            alive = alive[: max(2, math.ceil(len(alive) / _KEEP))]
    return alive, measured


def _paired(measured: Mapping[str, Tensor], one: str, other: str) -> Float[Tensor, " trials"]:
    return measured[one] - measured[other]


def _above_zero(differences: Float[Tensor, " trials"]) -> bool:
    """Whether the mean is above 0 by more than two standard errors."""
    if len(differences) < 2:
        return bool((differences > 0).all())
    return bool(differences.mean() > 2 * differences.std() / len(differences) ** 0.5)


def _distinct(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Candidates without those whose maps rank the pixels as an earlier one's do."""
    kept: list[_Candidate] = []
    ranks: list[Tensor] = []
    for entry in candidates:
        coarse = arrays.resize(entry.maps, tuple(min(side, 28) for side in entry.maps.shape[1:]), "area").flatten(1)
        order = coarse.argsort(1).argsort(1).float()
        order = torch.nn.functional.normalize(order - order.mean(1, keepdim=True), dim=1)
        if all(float((order * other).sum(1).mean()) < _ALIKE for other in ranks):
            kept.append(entry)
            ranks.append(order)
    return kept


def _maps(
    model: nn.Module | Loaded,
    inputs: Any,
    target: targets.Target,
    wanted: Sequence[str] | None,
    batch_size: int,
    generator: Generator | None,
) -> list[_Candidate]:
    """The maps of all candidates; what refuses the model takes no part. Candidates of one forward share it."""

    def explained(names: Sequence[str], layers: Sequence[str] | None) -> Iterable[tuple[str, Any]]:
        options: dict[str, Any] = {"layers": list(layers)} if layers else {}
        explainer = Explainer(model, list(names), generator=generator, batch_size=batch_size, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MapWarning)
            return explainer.each(inputs, target).items()

    groups: list[tuple[Sequence[str], Sequence[str]]]
    if wanted is not None:
        pairs = [name.partition("@") for name in wanted]
        groups = [((name,), [layer for layer in layers.split("+") if layer]) for name, _, layers in pairs]
    else:
        layers = resolutions(model, inputs)
        groups = [
            (_AT_LAYERS, layers),
            *(((name,), ()) for name in _OVER_LAYERS),
            *(((name,), ()) for name in _OF_ATTENTION),
            *(((name,), layers[-1:]) for name in _REPLAYED),
        ]
    found: list[_Candidate] = []
    for names, where in groups:
        try:
            explanations = list(explained(names, where))
        except SeewhyError:
            continue
        for name, explanation in explanations:
            method = registry.get(name)
            if wanted is None and method.layered and where:
                found += [
                    _Candidate(name, (layer,), shown(replace(explanation, maps={layer: grid})))
                    for layer, grid in explanation.maps.items()
                ]
            else:
                looked_at = tuple(explanation.maps) if method.layered else ()
                found.append(_Candidate(name, looked_at, shown(explanation)))
    return [entry for entry in found if _says_something(entry.maps)]


def _says_something(maps: Float[Tensor, "B *size"]) -> bool:
    flat = maps.flatten(1)
    return bool(flat.isfinite().all()) and bool((flat.amax(1) > flat.amin(1)).any())


def resolutions(model: nn.Module | Loaded, inputs: Any) -> list[str]:
    """The names of the layers to try: the last of every resolution, and of a long stage two earlier ones."""
    module = model.module if isinstance(model, Loaded) else model
    with session(module, inputs) as run:
        seen, outputs = observe(run)
        answers = {output.shape[1] for output in targets.answers(outputs) if output.ndim > 3}
        candidates = [
            call
            for call in choose_layer.candidates(seen, run.call.space, answers)
            if not call.within and not call.widths & answers and call.label.number is None and not call.label.level
        ]
    by_grid: dict[tuple[int, ...], list[Seen]] = {}
    for call in candidates:
        assert call.grid is not None
        by_grid.setdefault(call.grid.space, []).append(call)
    chosen = {position for calls in by_grid.values() for position in _spread(calls)}
    return [str(call.label) for call in reversed(candidates) if call.label in chosen]


def _spread(calls: Sequence[Seen]) -> set[Any]:
    """The labels of the last call of a grid; of a transformer's blocks also of those a third and two thirds before."""
    tokens = len(calls[0].shape) == 3
    steps = (0, len(calls) // 3, 2 * len(calls) // 3) if tokens else (0,)
    return {calls[step].label for step in steps}
