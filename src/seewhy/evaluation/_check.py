"""Whether one map can be told from chance."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from seewhy._types import CallLabel
from seewhy.engine.session import session
from seewhy.errors import InputError, MapWarning, SeewhyError, warn
from seewhy.evaluation._competitors import shown
from seewhy.evaluation._meter import Meter
from seewhy.evaluation._score import asking, prepare
from seewhy.explainer import Explainer
from seewhy.hooks.attach import after_forward
from seewhy.metrics import rank_correlation
from seewhy.models.loaded import Loaded
from seewhy.results import Explanation
from seewhy.results.checks import few

_SHARE = 0.1  # of the pixels that are removed


@dataclass(frozen=True, eq=False)
class Check:
    """How far each map is from chance.

    Attributes:
        p_value: (B,) the share of maps with the same values in other places whose hottest pixels cost the score at
            least as much when they are removed; the smallest value that k of them can show is 1 / (k + 1).
        lost: (B,) the score lost when the map's hottest tenth is removed.
        by_chance: (B,) the mean of what the others lose.
        redrawn: (B,) rank correlation with the map of the model with its last layer redrawn; None where that gives no
            map. Near 1 the map shows the picture rather than what the model learned of it.
        forwards: how many forwards of an image it took.
    """

    p_value: Float[Tensor, " B"]
    lost: Float[Tensor, " B"]
    by_chance: Float[Tensor, " B"]
    redrawn: Float[Tensor, " B"] | None
    forwards: int

    def __str__(self) -> str:
        lines = [
            f"image {number}: p = {p:.2f} (removing its hottest tenth costs {lost:.3f}, elsewhere {chance:.3f})"
            for number, (p, lost, chance) in enumerate(
                zip(self.p_value.tolist(), self.lost.tolist(), self.by_chance.tolist(), strict=True)
            )
        ]
        return "\n".join([*lines, f"{self.forwards} forwards of an image"])


def check(
    explanation: Explanation,
    model: nn.Module | Loaded,
    inputs: Any,
    *,
    others: int = 30,
    redraw: bool = True,
    generator: Generator | None = None,
) -> Check:
    """Compare each map with maps of the same values and smoothness in other places.

    The others are the map itself, shifted around the image and mirrored, and the maps of the other images. A map that
    cannot be told from them gets a `MapWarning`.

    Args:
        explanation: what is checked, with one target per image.
        model: what was explained.
        inputs: of the explanation.
        others: how many maps it is compared with.
        redraw: whether the map is compared with that of the model with its last layer redrawn.
        generator: of the shifts; None draws the same in every call.

    Returns:
        A p-value for each map, and what it is made of.

    Warns:
        MapWarning: for maps whose p-value is above 0.05.

    Raises:
        InputError: if the inputs are not those of the explanation, or `others` is below 1.
    """
    if others < 1:
        raise InputError("a map is compared with others.", got=f"others={others}", expected="30 or more")
    prepared = prepare(model, inputs)
    maps = shown(explanation)
    draws = generator or Generator().manual_seed(0)
    with asking(model, prepared, explanation.targets, of="logit", on=explanation.input) as asked:
        if len(asked.images) != len(maps):
            raise InputError("these are other inputs.", got=f"{len(asked.images)} images", expected=f"{len(maps)}")
        meter = Meter(asked.score, asked.images, 32)
        elsewhere = [_elsewhere(maps, number, draws) for number in range(others)]
        lost = meter.low + meter.reach - meter.left([maps, *elsewhere], _SHARE)
    own, chance = lost[0], lost[1:]
    p_value = (1 + (chance >= own).sum(0)) / (others + 1)
    if doubtful := (p_value > 0.05).nonzero().flatten().tolist():
        warn(f"the {explanation.method} map of image {few(doubtful)} cannot be told from chance (p > 0.05).")
    again = _redrawn(model, prepared, explanation, draws) if redraw else None
    correlation = None if again is None else rank_correlation(maps, again)
    return Check(p_value, own, chance.mean(0), correlation, meter.forwards)


def _elsewhere(maps: Float[Tensor, "B *size"], number: int, generator: Generator) -> Float[Tensor, "B *size"]:
    """The maps in other places: every third those of other images, all shifted around, every second mirrored."""
    found = maps.roll(1 + number // 3 % max(1, len(maps) - 1), 0) if number % 3 == 2 and len(maps) > 1 else maps
    dims = tuple(range(1, maps.ndim))
    shifts = [
        int(torch.randint(side // 4, max(side // 4 + 1, 3 * side // 4 + 1), (), generator=generator))
        for side in maps.shape[1:]
    ]
    found = found.roll(shifts, dims)
    return found.flip(-1) if number % 2 else found


def _redrawn(
    model: nn.Module | Loaded, inputs: Any, explanation: Explanation, generator: Generator
) -> Float[Tensor, "B *size"] | None:
    """The maps of a copy of the model whose last layer with weights is drawn anew; None where there are none."""
    module = copy.deepcopy(model.module if isinstance(model, Loaded) else model)
    ran: list[nn.Module] = []
    with session(module, inputs) as run:
        parts = run.model.named_modules()
        leaves = {name: part for name, part in parts if any(True for _ in part.parameters(recurse=False))}
        with torch.no_grad(), after_forward(leaves, lambda name, _, __: ran.append(leaves[name])):
            run.run()
    if not ran:
        return None
    with torch.no_grad():
        for parameter in ran[-1].parameters(recurse=False):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * parameter.std(correction=0) + parameter.mean())
    names = dict.fromkeys(CallLabel.parse(layer).name for layer in explanation.layers)
    layers = list(names) if explanation.layers[0] not in ("input", "attention") else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MapWarning)
        try:
            method = explanation.origin.method if explanation.origin else explanation.method
            again = Explainer(module, method, layers=layers)(inputs, explanation.targets)
            return shown(again.images[explanation.input])
        except SeewhyError:
            return None
