"""A sheet: the same images by several methods, or for several targets, side by side with names and scores."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from seewhy.errors import InputError
from seewhy.images.photo import Photo
from seewhy.render._colormap import default_colormap
from seewhy.render._layout import SMALL, TEXT, grid_of
from seewhy.render._overlay import Drawing, Interpolation, drawings, heat_image, painted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from seewhy._types import Frame
    from seewhy.results.explanation import Explanation, Scaling

_PANEL = 1.3  # inches
_LETTERS = 14  # of a cell's text in an inch


def sheet(
    explanations: Explanation | Mapping[str, Explanation] | Sequence[Explanation],
    photos: Photo | Sequence[Photo] | None = None,
    *,
    colormap: str | Colormap | None = None,
    alpha: float = 0.5,
    scaling: Scaling = "per_image",
    interpolation: Interpolation = "bilinear",
    contours: Sequence[float] = (),
    frame: Frame | Sequence[Frame] | None = None,
    caption: str = "",
    width: float | None = None,
    max_rows: int = 12,
) -> Figure:
    """A row for each image, and in it a picture for each method and target.

        seewhy.render.sheet(seewhy.explain(model, photos, method=["grad_cam", "layer_cam"])).savefig("sheet.pdf")

    Args:
        explanations: by name, of the same images; a list takes the names of the methods; one alone is a sheet of its
            targets.
        photos: as for `overlays`.
        colormap: as for `overlays`.
        alpha: the share of the colours, from 0 to 1; the rest is photograph.
        scaling: as for `overlays`.
        interpolation: as for `overlay`.
        contours: levels, shares of the map's reach in (0, 1), at which lines are drawn.
        frame: as for `overlays`.
        caption: a line below.
        width: of the figure in inches, 7 for a page of a paper: pictures shrink, letters do not. None is by the number
            of columns.
        max_rows: how many images.

    Returns:
        A matplotlib figure that a notebook shows; its `savefig` writes PNG, PDF and SVG.

    Raises:
        InputError: for no explanation, and for explanations of different numbers of images.
    """
    from seewhy.render._canvas import Canvas

    named = _named(explanations)
    counts = {len(one) for one in named.values()}
    if len(counts) != 1 or 0 in counts:
        raise InputError(
            "a sheet is of the same images by several methods.",
            got="no explanation" if not counts else f"explanations of {' and '.join(map(str, sorted(counts)))} images",
        )
    options: dict[str, Any] = {"scaling": scaling, "interpolation": interpolation, "frame": frame}
    look: dict[str, Any] = {"alpha": alpha, "interpolation": interpolation, "contours": contours}
    look["colormap"] = default_colormap(scaling) if colormap is None else colormap
    rows: list[list[tuple[str, Drawing]]] = [[] for _ in range(min(*counts, max_rows))]
    for name, explanation in named.items():
        for drawn in drawings(explanation[: len(rows)], _first(photos, len(rows)), **options):
            rows[drawn.image].append((name, drawn))
    columns = len(rows[0]) + (rows[0][0][1].photo is not None)
    first = rows[0][0][1]
    height, across = first.heat.shape if first.photo is None else first.photo.shape[:2]
    wide = _PANEL * columns if width is None else width
    panel = wide / columns
    cell = panel * min(max(height / across, 0.3), 2)
    drawing = Canvas((wide, (cell + 0.3) * len(rows) + 0.3 + 0.2 * bool(caption)), "constrained")
    grid = drawing.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    letters = max(6, int(panel * _LETTERS))
    for number, (axes, row) in enumerate(zip(grid, rows, strict=True)):
        _row(axes, row, named, look, letters, head=number == 0)
    left = f"{len(rows)} of {max(counts)} images shown" if len(rows) < max(counts) else ""
    if text := " ".join(filter(None, (caption, left))):
        drawing.supxlabel(textwrap.fill(text, int(wide * _LETTERS)), fontsize=TEXT, parse_math=False)
    return drawing


def _row(
    axes: Sequence[Axes],
    row: Sequence[tuple[str, Drawing]],
    named: Mapping[str, Explanation],
    look: Mapping[str, Any],
    letters: int,
    *,
    head: bool,
) -> None:
    """The photograph, if there is one, and a picture for each map with what it is about."""
    panels = list(axes)
    if (photo := row[0][1].photo) is not None:
        plain = panels.pop(0)
        plain.imshow(photo)
        explanation = named[row[0][0]]
        if explanation.files:
            name = explanation.files[row[0][1].image].replace("\\", "/").rsplit("/", 1)[-1]
            plain.set_title(textwrap.shorten(name, letters, placeholder="..."), fontsize=SMALL, parse_math=False)
    for axis, (name, drawn) in zip(panels, row, strict=True):
        explanation = named[name]
        options = {key: value for key, value in look.items() if key == "colormap" or drawn.photo is not None}
        axis.imshow(painted(drawn, **options) if drawn.photo is not None else heat_image(drawn.heat, look["colormap"]))
        place = (drawn.image,) if drawn.target is None else (drawn.image, drawn.target)
        about = textwrap.shorten(explanation.name(drawn.image, drawn.target), letters, placeholder="...")
        score = f"{float(explanation.scores[place]):.3g}"
        lines = [*(_wrapped(f"{name}{grid_of(explanation)}", letters) if head else ()), f"{about} {score}".strip()]
        axis.set_title("\n".join(lines), fontsize=SMALL, parse_math=False)


def _wrapped(text: str, letters: int) -> list[str]:
    """Lines of at most so many letters; names of methods are parted behind an underscore."""
    return [line.replace("_ ", "_") for line in textwrap.wrap(text.replace("_", "_ "), letters)]


def _named(explanations: Any) -> dict[str, Explanation]:
    """The explanations by name; those of the same method are numbered."""
    if isinstance(explanations, Mapping):
        return dict(explanations)
    given = [explanations] if hasattr(explanations, "maps") else list(explanations)
    found: dict[str, Explanation] = {}
    for explanation in given:
        names = chain([explanation.method], (f"{explanation.method} {number}" for number in range(2, len(given) + 2)))
        found[next(name for name in names if name not in found)] = explanation
    return found


def _first(photos: Any, count: int) -> Any:
    """As many photographs as there are rows."""
    return photos[:count] if isinstance(photos, list | tuple) else photos
