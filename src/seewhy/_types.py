"""Types that several rooms share, each defined once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

# A layer's tensor, in the layer's own layout -> (B, C, *grid).
Fold = Callable[[Tensor], Tensor]

# The rectangle (x0, y0, x1, y1) of a photograph that the model saw, in pixels.
Frame = tuple[float, float, float, float]

# (image of each of N rows, maker of the rows with these numbers: (n,) -> (n, C, *space)) -> the scores (N,).
# Rows are made and run a batch at a time, so that only one batch of them exists at once.
Ask = Callable[[Int[Tensor, " N"], Callable[[Int[Tensor, " n"]], Tensor]], Float[Tensor, " N"]]


class CallLabel(NamedTuple):
    """Which activation of a forward is meant: the layer, which of its calls, and which part of what it returned.

    name: the layer's name, "layer4.1". number: the call's number, from 0; None for a layer that ran once. level: the
    key of a dict that the layer returned, "[0]"; "" for a layer that returns one activation.
    """

    name: str
    level: str = ""
    number: int | None = None

    def __str__(self) -> str:
        return f"{self.name}{self.level}" + ("" if self.number is None else f"#{self.number}")
