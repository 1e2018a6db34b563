"""What `choose` chooses from: methods at layers, with their maps; those that rank the pixels alike are one."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from seewhy import methods as registry
from seewhy import targets
from seewhy.engine.session import session
from seewhy.errors import MapWarning, SeewhyError
from seewhy.evaluation._competitors import Competitor, name_of, shown
from seewhy.explainer import Explainer
from seewhy.geometry import choose_layer
from seewhy.geometry.observe import Seen, observe
from seewhy.images import arrays
from seewhy.models.loaded import Loaded

# In this order: of two that cannot be told apart the first is taken, and benchmarks/results/choosing.md shows which are
# the best on most models. `local_integrated_gradients` takes some 25 forwards of an image, the others three.
_BY_THEMSELVES = (
    "local_libra_grad",
    "local_integrated_gradients",
    "attention_relevance",
    "agcam",
    "refine_cam",
)
_AT_LAYERS = ("x_grad_cam", "layer_cam", "grad_cam")
_ALIKE = 0.99  # correlation of ranks above which two candidates are one


@dataclass(frozen=True, eq=False)
class Candidate:
    """A method and where it looks, with its maps of the images."""

    method: Competitor
    layers: tuple[str, ...]
    maps: Float[Tensor, "B *size"]

    @property
    def name(self) -> str:
        name = name_of(self.method)
        return f"{name}@{'+'.join(self.layers)}" if self.layers else name


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates without those whose maps rank the pixels as an earlier one's do."""
    kept: list[Candidate] = []
    ranks: list[Tensor] = []
    for entry in candidates:
        coarse = arrays.resize(entry.maps, tuple(min(side, 28) for side in entry.maps.shape[1:]), "area").flatten(1)
        order = coarse.argsort(1).argsort(1).float()
        order = torch.nn.functional.normalize(order - order.mean(1, keepdim=True), dim=1)
        if all(float((order * other).sum(1).mean()) < _ALIKE for other in ranks):
            kept.append(entry)
            ranks.append(order)
    return kept


def candidates(
    model: nn.Module | Loaded,
    inputs: Any,
    target: targets.Target,
    wanted: Sequence[Competitor] | None,
    batch_size: int,
    generator: Generator | None,
) -> list[Candidate]:
    """The candidates that give maps, the one that is expected to be the best first. Those of one forward share it.

    Args:
        model: what is explained.
        inputs: a batch.
        target: what is explained of it, definite.
        wanted: "method" or "method@layer", several layers with "+"; or callables; None are the usual ones.
        batch_size: how many changed rows a perturbation method runs at once.
        generator: of the methods that draw.
    """

    def explained(names: Sequence[Competitor], layers: Sequence[str] | None) -> Iterable[tuple[Competitor, Any]]:
        options: dict[str, Any] = {"layers": list(layers)} if layers else {}
        explainer = Explainer(model, list(names), generator=generator, batch_size=batch_size, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MapWarning)
            return zip(names, explainer.each(inputs, target).values(), strict=True)

    groups: list[tuple[Sequence[Competitor], Sequence[str]]]
    if wanted is not None:
        pairs = [name.partition("@") if isinstance(name, str) else (name, "", "") for name in wanted]
        groups = [((name,), [layer for layer in layers.split("+") if layer]) for name, _, layers in pairs]
    else:
        groups = [
            *(((name,), ()) for name in _BY_THEMSELVES),
            (_AT_LAYERS, resolutions(model, inputs)),
        ]
    found: list[Candidate] = []
    for names, where in groups:
        try:
            explanations = list(explained(names, where))
        except SeewhyError:
            continue
        for name, explanation in explanations:
            method = registry.get(name)
            if wanted is None and method.layered and where:
                found += [
                    Candidate(name, (layer,), shown(replace(explanation, maps={layer: grid})))
                    for layer, grid in explanation.maps.items()
                ]
            else:
                looked_at = tuple(explanation.maps) if method.layered else ()
                found.append(Candidate(name, looked_at, shown(explanation)))
    return [entry for entry in found if _says_something(entry.maps)]


def _says_something(maps: Float[Tensor, "B *size"]) -> bool:
    flat = maps.flatten(1)
    return bool(flat.isfinite().all()) and bool((flat.amax(1) > flat.amin(1)).any())


def resolutions(model: nn.Module | Loaded, inputs: Any) -> list[str]:
    """The names of the layers to try: the last of every resolution, and of a long stage two earlier ones."""
    module = model.module if isinstance(model, Loaded) else model
    with session(module, inputs) as run:
        observed = observe(run)
        answers = {output.shape[1] for output in targets.answers(observed.outputs) if output.ndim > 3}
        candidates = [
            call
            for call in choose_layer.candidates(observed.seen, run.call.space, answers)
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
