"""A matplotlib figure that a notebook shows without pyplot. Only this file needs matplotlib to be imported."""

from __future__ import annotations

import io
from typing import Literal

from seewhy.errors import MissingExtra

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingExtra.of("matplotlib", "plot") from error


class Canvas(Figure):
    """A figure with a picture of its own for notebooks, which draw only figures that pyplot made."""

    def __init__(self, size: tuple[float, float], layout: Literal["constrained", "compressed"]) -> None:
        super().__init__(figsize=size, dpi=100, layout=layout)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
