"""Choose the method and layer whose maps the model's own score agrees with best."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from seewhy.evaluation._score import asking
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
_KEEP = 3  # one candidate in this many goes on to the next round


@dataclass(frozen=True, eq=False)
class Choice:
    """The method and layers that measured best on a model.

    Attributes:
        method: its name.
        layers: the names of the layers to look at; none for a method that looks at no layer.
        explainer: ready to use.
        evaluation: how the finalists and the floor do, on the images that did not choose where there are enough.
        reason: why, in a sentence with figures.
        forwards: how many forwards of an image the measuring took.
        scores: by candidate, the mean of its last round.
        beats_floor: whether it can be told from a random map and a Gaussian in the middle.
    """

    method: str
    layers: tuple[str, ...]
    explainer: Explainer
    evaluation: Evaluation
    reason: str
    forwards: int
    scores: Mapping[str, float]
    beats_floor: bool

    def __str__(self) -> str:
        return f"{self.reason}\n\n{self.evaluation.table()}"


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
    prepared = (
        model.prepare(_listed(inputs))[0] if isinstance(model, Loaded) and not isinstance(inputs, Tensor) else inputs
    )
    draws = generator or Generator().manual_seed(0)
    with asking(model, prepared, target, of="probability") as asked:
        images, definite = asked.images, asked.target
        found = _maps(model, prepared, definite, candidates, batch_size, generator)
        if not found:
            raise InputError(
                "no candidate gives a map of this model.", got=", ".join(candidates or ("the usual ones",))
            )
        half = len(images) // 2 if len(images) >= 16 else len(images)
        choosing = slice(0, min(half, 8))
        chance = floor(images[:, 0], draws)
        entries = _distinct(found) + [_Candidate(name, (), entry.maps) for name, entry in chance.items()]
        meter = Meter(asked.score, images, choosing, batch_size)
        spend = 50 * len(images[choosing]) if budget is None else budget
        finalists, scores = _halved(entries, meter, spend)
    best = next(entry for entry in finalists if entry.name not in FLOOR)
    reported = slice(half, None) if len(images) >= 16 else slice(0, None)
    evaluation = evaluate(
        model,
        _rows(prepared, reported, len(images)),
        _rows(definite, reported, len(images)),
        methods=(),
        maps={entry.name: entry.maps[reported] for entry in finalists if entry.name not in FLOOR},
        metrics=tuple(dict.fromkeys((metric, "insertion", "deletion", "road"))),
        batch_size=batch_size,
        generator=generator,
    )
    gaps = [evaluation.difference(best.name, name, metric) for name in FLOOR]
    beats = all(math.isnan(gap.low) or gap.low > 0 for gap in gaps) and scores[best.name] > max(
        (scores[name] for name in FLOOR if name in scores), default=-math.inf
    )
    explainer = Explainer(
        model, best.method, layers=list(best.layers) or None, generator=generator, batch_size=batch_size
    )
    return Choice(
        best.method, best.layers, explainer, evaluation, _reason(best, entries, scores, meter, beats), meter.forwards,
        scores, beats,
    )  # fmt: skip


def _listed(inputs: Any) -> Any:
    return inputs if isinstance(inputs, list | tuple) else [inputs]


def _rows(structure: Any, rows: slice, batch: int) -> Any:
    """The part of every tensor with a row for each image."""
    return rebuild(structure, lambda tensor: tensor[rows] if tensor.ndim and len(tensor) == batch else tensor)


def _reason(
    best: _Candidate, entries: Sequence[_Candidate], scores: Mapping[str, float], meter: Meter, beats: bool
) -> str:
    floors = {name: scores[name] for name in FLOOR if name in scores}
    over = ", ".join(f"{name} {value:.2f}" for name, value in floors.items())
    figures = (
        f"{best.name}: insertion minus deletion of the probability {scores[best.name]:.2f}, the best of "
        f"{len(entries) - len(FLOOR)} candidates on {meter.images} image(s), {meter.forwards} forwards"
    )
    if not beats:
        return f"no map of this model can be told from chance here; the best is {figures} (chance: {over or 'dropped early'})"
    return f"{figures} (chance: {over or 'dropped early'})"


def _halved(entries: Sequence[_Candidate], meter: Meter, budget: int) -> tuple[list[_Candidate], dict[str, float]]:
    """Successive halving: all candidates on few images, the best third on more, until few are left.

    Returns the finalists, the best first, and each candidate's mean in its last round. The floor takes part.
    """
    alive, scores = list(entries), dict[str, float]()
    rounds = max(1, math.ceil(math.log(max(len(alive), 2), _KEEP)))
    for number in range(rounds):
        affordable = budget // (rounds * len(alive) * 2)
        images = min(meter.images, max(2 if meter.images > 1 else 1, affordable // 3))
        shares = _SHARES[:: max(1, math.ceil(len(_SHARES) * images / max(1, affordable)))]
        found = meter.measure([entry.maps for entry in alive], shares, images).mean(1)
        scores |= {entry.name: float(value) for entry, value in zip(alive, found, strict=True)}
        order = found.argsort(descending=True).tolist()
        keep = len(alive) if number == rounds - 1 else max(2, math.ceil(len(alive) / _KEEP))
        alive = [alive[position] for position in order[:keep]]
    if all(entry.name in FLOOR for entry in alive):
        alive += [max((entry for entry in entries if entry.name not in FLOOR), key=lambda entry: scores[entry.name])]
    return alive, scores


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

    if wanted is not None:
        groups = [
            ((name.partition("@")[0],), [layer for layer in name.partition("@")[2].split("+") if layer])
            for name in wanted
        ]
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
    """The labels of the last call, and of those a third and two thirds before it where there are many."""
    steps = (0, len(calls) // 3, 2 * len(calls) // 3) if len(calls) > 6 else (0,)
    return {calls[step].label for step in steps}
