"""The activations in what a layer returned, and how the calls of a forward are told apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor

from seewhy._types import CallLabel
from seewhy.hooks.nested import tensors


def activations_in(output: Any) -> dict[str, Tensor]:
    """The activations in a layer's output, by level.

    Args:
        output: what the layer returned, in whatever nesting.

    Returns:
        The first floating point tensor, under "". A plain dict, such as a feature pyramid returns, gives each entry
        that has more than one place: under "[0]", "[1]". (A dataclass that is a mapping too, as transformers has them,
        holds stages of one activation rather than several.)
    """
    if isinstance(output, Mapping) and not is_dataclass(output):
        levels = {f"[{key}]": value for key, value in output.items() if _is_activation(value)}
        return {key: level for key, level in levels.items() if level.shape[2:].numel() > 1}
    first = next(filter(_is_activation, tensors(output)), None)
    return {} if first is None else {"": first}


def activation_in(output: Any) -> Tensor | None:
    """The first of the activations in a layer's output; None if there is none."""
    return next(iter(activations_in(output).values()), None)


def call_labels(calls: Sequence[tuple[str, str]]) -> list[CallLabel]:
    """A label for each activation of a forward, from (layer, level) in the order of the calls."""
    totals, counts = Counter(calls), Counter[tuple[str, str]]()
    labels = []
    for call in calls:
        labels.append(CallLabel(*call, None if totals[call] == 1 else counts[call]))
        counts[call] += 1
    return labels


def _is_activation(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
