"""What a provider is asked with: one target of a forward, and one of its layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any

from jaxtyping import Float
from torch import Tensor

from seewhy._types import CallLabel, Fold
from seewhy.engine.tape import gradients
from seewhy.evidence._forward import Forward
from seewhy.evidence._provider import provider


@dataclass(frozen=True)
class Request:
    """One target of a forward, and one layer.

    Attributes:
        forward: the recorded forward.
        number: which of its T targets.
        label: which call of which layer; None for what belongs to no layer.
    """

    forward: Forward
    number: int
    label: CallLabel | None = None
    _slopes: Mapping[int, Tensor] = field(default_factory=dict)
    _kept: dict[tuple[str, CallLabel | None], Any] = field(default_factory=dict)

    @property
    def column(self) -> Float[Tensor, " B"]:
        """The scores of this target, in the graph."""
        return self.forward.columns[:, self.number]

    @property
    def activation(self) -> Tensor:
        """What the layer returned, in its own layout and in the graph."""
        assert self.label is not None
        return self.forward.activation(self.label)

    @property
    def fold(self) -> Fold:
        """What takes the layer's tensors to (B, C, *grid)."""
        assert self.label is not None
        return self.forward.fold(self.label)

    def slope(self, leaf: Tensor) -> Tensor:
        """The gradient of this target's score at one of the leaves that the provider named."""
        return self._slopes[id(leaf)]

    def give(self, need: str) -> Any:
        """What the provider of `need` gives for this request; computed once."""
        found = provider(need)
        key = need, self.label if found.layered else None
        if key not in self._kept:
            self._kept[key] = found.give(self if found.layered else replace(self, label=None))
        return self._kept[key]

    def forget(self) -> None:
        """Drop what was given: some of it refers to the request, a cycle that would keep the graph alive."""
        self._kept.clear()

    def at(self, label: CallLabel) -> Request:
        """The same target at a layer."""
        return replace(self, label=label)


def requests(forward: Forward, needs: Set[str], *, keep_graph: bool) -> Iterator[Request]:
    """A request for each target of a forward.

    Args:
        forward: recorded for these needs.
        needs: what will be asked for. The gradients of all of it come from one backward pass for each target.
        keep_graph: whether there will be more backward passes through the forward afterwards.

    Raises:
        GradientError: if a gradient is needed and the score has none.
    """
    providers = [provider(need) for need in needs]
    leaves = {id(leaf): leaf for found in providers if found.leaves for leaf in found.leaves(forward)}
    slopes: Iterator[Mapping[int, Tensor]] = repeat({})
    if leaves:
        slopes = gradients(
            forward.columns,
            leaves,
            of=", ".join(map(str, forward.activations)) or "the input",
            keep_graph=keep_graph or any(found.keeps_graph for found in providers),
            differentiable=any(found.differentiable for found in providers),
        )
    for number, found in zip(range(forward.columns.shape[1]), slopes, strict=False):
        request = Request(forward, number, None, found)
        yield request
        request.forget()
