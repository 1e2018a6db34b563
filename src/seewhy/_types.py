"""Types that several rooms share, each defined once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
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


class Slopes(NamedTuple):
    """The gradients of the score at some changed images.

    Attributes:
        rows: the numbers of the rows.
        scores: of the rows.
        gradients: at their images.
    """

    rows: Int[Tensor, " n"]
    scores: Float[Tensor, " n"]
    gradients: Float[Tensor, "n C *space"]


# The same question as `Ask`, answered by the gradients at the rows, a batch at a time.
AskSlopes = Callable[[Int[Tensor, " N"], Callable[[Int[Tensor, " n"]], Tensor]], Iterator[Slopes]]


class CallLabel(NamedTuple):
    """Which activation of a forward is meant: the layer, which of its calls, and which part of its output.

    Attributes:
        name: the layer's name, "layer4.1".
        level: the entry of a dict that the layer returned, "[0]"; "" for a layer that returns one activation.
        number: the call's number, from 0; None for a layer that ran once.
        row: which of the rows that the layer has for each image, where a model makes several images of one (crops,
            frames, views) or puts several into one batch; None for a layer with one.
    """

    name: str
    level: str = ""
    number: int | None = None
    row: int | None = None

    @classmethod
    def parse(cls, text: str) -> CallLabel:
        """The label that `str` gave: "layer4", "relu#1", "fpn[0]", "fpn[0]#1", "tower:2"."""
        found = re.fullmatch(r"(.*?)(\[[^\[\]]*\])?(?:#(\d+))?(?::(\d+))?", text)
        assert found is not None  # every part may be empty
        name, level, number, row = found.groups()
        return cls(name, level or "", None if number is None else int(number), None if row is None else int(row))

    @property
    def call(self) -> CallLabel:
        """The call, with all of its rows."""
        return self._replace(row=None)

    def __str__(self) -> str:
        number = "" if self.number is None else f"#{self.number}"
        return f"{self.name}{self.level}{number}" + ("" if self.row is None else f":{self.row}")
