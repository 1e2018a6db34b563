"""The method that is taken where none is named. docs/methods/choosing.md has the figures that the rule rests on."""

from __future__ import annotations

from collections.abc import Iterable

from seewhy.geometry.grid import Grid
from seewhy.targets import Category, Contrast, Finer, Probability, Target

DEFAULT = "default"
PLAIN = "grad_cam"
FOR_CLASS_TOKENS = "attention_relevance"

_CLASSES = (Category, Contrast, Finer, Probability)


def reads_class_token(target: Target, grids: Iterable[Grid]) -> bool:
    """Whether it is classes of images, not volumes, that are read from a token before those of the places.

    Args:
        target: what is explained, definite.
        grids: of the layers that `PLAIN` looks at.
    """
    return isinstance(target, _CLASSES) and any(grid.prefix and len(grid.space) == 2 for grid in grids)
