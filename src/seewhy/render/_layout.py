"""What every figure says alike: which maps there are, the heading, the colour bar, what is blank, how many are left."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from seewhy.render._overlay import Drawing, limits, numbers_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    from seewhy.results.explanation import Explanation, Scaling

LETTERS = 11  # of a heading in an inch
HEADING, TEXT, SMALL = 9, 8, 7  # points


class Shown(NamedTuple):
    """One map by itself.

    Attributes:
        image: the number of the image.
        target: the number of the target; None where there is one per image.
        heat: (*size) in [0, 1].
        limits: the values that 0 and 1 stand for.
        blank: why there is nothing to draw, "" where there is something.
        title: what it is about.
    """

    image: int
    target: int | None
    heat: Tensor
    limits: tuple[float, float]
    blank: str
    title: str


def shown(explanation: Explanation, scaling: Scaling, target: int | None, most: int) -> tuple[list[Shown], int]:
    """The first `most` maps, image by image and target by target; and how many there are."""
    values = explanation.scaled(scaling).detach().cpu()
    space = len(explanation.size)
    pairs = [(image, number) for image in range(len(values)) for number in numbers_of(values, space, target)]
    found = []
    for image, number in pairs[:most]:
        span, heat = limits(values[image] if number is None else values[image, number], signed=scaling == "none")
        blank = explanation.blank(image, number, scaling)
        found.append(Shown(image, number, heat, span, blank, title_of(explanation, image, number)))
    return found, len(pairs)


def title_of(explanation: Explanation, image: int, target: int | None = None, depth: int | None = None) -> str:
    """What is explained as far as it is known, which side of a single output, the score, the slice of a volume."""
    name = textwrap.shorten(explanation.name(image, target), 40)
    place = (image,) if target is None else (image, target)
    if side := explanation.side(image, target):
        name += f" ({side} side)"
    elif explanation.index is not None and name != f"class {int(explanation.index[place])}":
        name += f" ({int(explanation.index[place])})"
    elif not name and target is not None:
        name = f"target {target}"
    parts = [name, f"score {float(explanation.scores[place]):.4g}", "" if depth is None else f"slice {depth}"]
    return ", ".join(filter(None, parts))


def headed(drawing: Figure, explanation: Explanation, caption: str = "") -> None:
    """Above: method, layers, and how many places the maps have. Below: the caller's words, and how many are left."""
    text = f"{explanation.method} at {', '.join(explanation.layers)}{grid_of(explanation)}"
    drawing.suptitle(_filled(drawing, text), fontsize=HEADING)
    if caption:
        drawing.supxlabel(_filled(drawing, caption), fontsize=TEXT, parse_math=False)


def counted(count: int, total: int, caption: str = "") -> str:
    """The words below a figure: the caller's, and how many of the maps are in it, where not all are."""
    return " ".join(filter(None, (caption, f"{count} of {total} maps shown" if count < total else "")))


def grid_of(explanation: Explanation) -> str:
    """For a heading ", 7 x 7 places", where a picture is far finer than its map: what lies between them is smoothed."""
    space = len(explanation.size)
    grids = sorted({tuple(grid.shape[-space:]) for grid in explanation.maps.values()})
    if all(2 * side >= whole for side, whole in zip(grids[0], explanation.size, strict=True)):
        return ""
    sides = [" x ".join(map(str, grid)) for grid in dict.fromkeys((grids[0], grids[-1]))]
    return f", {' to '.join(sides)} places"


def barred(shown: ScalarMappable, axes: Axes | Sequence[Axes] | None = None, cax: Axes | None = None) -> None:
    """The colour bar of a map; zero is marked where the map has two signs."""
    host = cax or (axes if not isinstance(axes, Sequence) else axes[0])
    assert host is not None
    beside = {} if cax else {"ax": axes, "fraction": 0.02, "pad": 0.01}
    bar = host.figure.colorbar(shown, cax=cax, **beside)  # type: ignore[arg-type]
    bar.ax.tick_params(labelsize=SMALL)
    low, high = shown.get_clim()
    if low is not None and high is not None and low < 0 < high:
        bar.set_ticks(
            [low, low / 2, 0, high / 2, high], labels=[f"{tick:.2g}" for tick in (low, low / 2, 0, high / 2, high)]
        )
        bar.ax.axhline(0, color="black", linewidth=1)


def told_blank(panel: Axes, blank: str, letters: int = 18) -> None:
    """A panel without a map says why."""
    text = textwrap.fill(f"blank map: {blank}", letters)
    panel.text(0.5, 0.5, text, transform=panel.transAxes, ha="center", va="center", fontsize=HEADING)


def outlined(panel: Axes, drawn: Drawing, levels: Sequence[float]) -> None:
    """Lines where a map by itself crosses the levels, shares of its reach; the panel is in the photograph's pixels."""
    height, width = drawn.heat.shape if drawn.photo is None else drawn.photo.shape[:2]
    x0, y0, x1, y1 = drawn.frame if drawn.frame and drawn.photo is not None else (0, 0, width, height)
    rows, columns = drawn.heat.shape
    across, down = (np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows
    panel.contour(
        x0 + across * (x1 - x0), y0 + down * (y1 - y0), drawn.heat.numpy(), levels=sorted(levels), colors="white",
        linewidths=0.8,
    )  # fmt: skip


def _filled(drawing: Figure, text: str) -> str:
    return textwrap.fill(text, max(12, int(drawing.get_figwidth() * LETTERS)))
