"""Views of the same image: their maps, put back in place, are averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class View(NamedTuple):
    """One way to look at the same image: what is done to it, and what puts a map back in place."""

    apply: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor], Tensor]
    mirrored: bool


def _mirror(tensor: Tensor) -> Tensor:
    return tensor.flip(-1)


def views() -> list[View]:
    """The views of `augment_smooth`: the image and its mirror, each at 0.9, 1.0 and 1.1 times its values."""

    def at(brightness: float, turn: Callable[[Tensor], Tensor]) -> View:
        return View(lambda image: turn(image) * brightness, turn, turn is _mirror)

    return [at(brightness, turn) for turn in (lambda tensor: tensor, _mirror) for brightness in (1.0, 0.9, 1.1)]
