"""A figure of an explanation: photograph, heatmap and overlay side by side, a row per map."""

from __future__ import annotations

import io
import itertools
import textwrap
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from seewhy.errors import InputError
from seewhy.images.photo import Photo
from seewhy.render._colormap import default_colormap, find_colormap
from seewhy.render._overlay import Drawing, drawings, painted
from seewhy.render._words import strip
from seewhy.targets import Spoken, outline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from seewhy._types import Frame
    from seewhy.results.explanation import Explanation, Scaling

_PANEL = 2.6  # inches
_LONGEST = 1024  # pixels: a photograph's longer side in a panel


def figure(
    explanation: Explanation,
    photos: Photo | Sequence[Photo] | None = None,
    *,
    colormap: str | Colormap | None = None,
    alpha: float = 0.5,
    scaling: Scaling = "per_image",
    target: int | None = None,
    slice_index: int | None = None,
    frame: Frame | Sequence[Frame] | None = None,
    axes: tuple[str, ...] | None = None,
    planes: bool = False,
    max_rows: int = 8,
) -> Figure:
    """Photograph, heatmap with its values, and overlay side by side: a row for each image and target.

    Of the words of an answer it is the strip of `seewhy.render.strip`.

    The heatmap stands alone where there are no photographs. A box that is explained is drawn. The colour bar shows the
    map's own values: 0 to 1, with scaling "none" the signed ones, symmetric about 0. A map with nothing in it is left
    blank, and its panel says why.

    Args:
        explanation: of any images, volumes or signals.
        photos: as for `overlays`, as are colormap, alpha, scaling, target, slice_index and frame. Of signals and
            spectrograms it is these, (B, C, L) or (B, *size); None takes what was explained, if it is still there.
        axes: ("time",), ("time", "frequency") or ("frequency", "time") draws time to the right and frequency upwards,
            over the signal or spectrogram. None is what the explanation knows.
        planes: of volumes, three slices through the hottest place, one along each axis, over the photographs' own.
        max_rows: how many rows to draw; the figure says how many there are.

    Returns:
        A matplotlib figure that a notebook shows.

    Raises:
        InputError: where one of the arguments does not fit the explanation.
    """
    from seewhy.render._canvas import Canvas

    if max_rows < 1:
        raise InputError("a figure needs a row.", got=f"max_rows={max_rows}", expected="1 or more")
    if isinstance(explanation.targets, Spoken) and explanation.scores.ndim == 2 and target is None:
        chosen = default_colormap(scaling) if colormap is None else colormap
        return strip(
            explanation, photos, colormap=chosen, alpha=alpha, scaling=scaling, slice_index=slice_index, frame=frame
        )
    colours = find_colormap(default_colormap(scaling) if colormap is None else colormap)
    options: dict[str, Any] = {"colours": colours, "alpha": alpha, "scaling": scaling, "target": target}
    options |= {"max_rows": max_rows, "title": partial(_title, explanation)}
    if axes := axes or explanation.axes:
        from seewhy.render._time import in_time

        return in_time(explanation, photos, axes, **options)
    if planes:
        from seewhy.render._planes import in_planes

        return in_planes(explanation, photos, **options)
    every = drawings(explanation, photos, scaling=scaling, target=target, slice_index=slice_index, frame=frame)
    rows = [_reduced(drawn) for drawn in itertools.islice(every, max_rows)]
    if not rows:
        raise InputError("there is nothing to draw.", got="an explanation of no images")
    columns = 1 if rows[0].photo is None else 3
    shapes = [height / width for width, height in map(_size, rows)]
    panel = _PANEL / min(max(sum(shapes) / len(shapes), 0.5), 2)  # wide photographs get wide panels
    heights = [panel * min(max(shape, 0.2), 2) for shape in shapes]
    wide = panel * columns + 0.7
    drawing = Canvas((wide, sum(heights) + 0.3 * len(rows) + 0.4), "compressed")
    grid = drawing.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for panels, drawn in zip(grid, rows, strict=True):
        _row(panels, drawn, colours, alpha, outline(explanation.targets, drawn.image, drawn.target))
        title = _title(explanation, drawn.image, drawn.target, drawn.depth)
        panels[0].set_title(title, loc="left", fontsize=9, parse_math=False)  # "$" is a letter
    layers = ", ".join(explanation.layers)
    drawing.suptitle(textwrap.fill(f"{explanation.method} at {layers}", int(wide * 11)), fontsize=10)
    maps = explanation.scores.numel() if target is None else len(explanation)
    if maps > len(rows):
        drawing.supxlabel(f"{len(rows)} of {maps} maps shown", fontsize=8)
    return drawing


def png(explanation: Explanation) -> bytes:
    """The figure as a PNG file, for notebooks."""
    from seewhy.render import _canvas

    return _canvas.png(figure(explanation))


def stacked(explanations: Sequence[Explanation]) -> bytes:
    """The figures of several explanations one above the other, as a PNG file."""
    pictures = [Image.open(io.BytesIO(png(explanation))).convert("RGB") for explanation in explanations]
    sheet = Image.new("RGB", (max(each.width for each in pictures), sum(each.height for each in pictures)), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    file = io.BytesIO()
    sheet.save(file, format="PNG")
    return file.getvalue()


def _row(axes: Sequence[Axes], drawn: Drawing, colours: Colormap, alpha: float, box: tuple[float, ...] | None) -> None:
    from matplotlib.patches import Rectangle

    for panel in axes:
        panel.set(xticks=[], yticks=[])
    width, height = _size(drawn)
    x0, y0, x1, y1 = drawn.frame if drawn.frame and drawn.photo is not None else (0, 0, width, height)
    low, high = drawn.limits
    if drawn.photo is not None:
        axes[0].imshow(drawn.photo)
        axes[2].imshow(painted(drawn, colormap=colours, alpha=alpha))
    heat = axes[len(axes) // 2]
    heat.set(xlim=(0, width), ylim=(height, 0), facecolor="0.92", aspect="equal")
    if drawn.blank:
        text = textwrap.fill(f"blank map: {drawn.blank}", 18)
        heat.text(0.5, 0.5, text, transform=heat.transAxes, ha="center", va="center", fontsize=9)
    else:
        values = (low + drawn.heat * (high - low)).numpy()
        shown = heat.imshow(values, cmap=colours, vmin=low, vmax=high, extent=(x0, x1, y1, y0))
        heat.set(xlim=(0, width), ylim=(height, 0))
        bar = heat.figure.colorbar(shown, cax=heat.inset_axes((1.03, 0, 0.05, 1)))
        bar.ax.tick_params(labelsize=7)
    if box is not None:
        left, right = (x0 + side * (x1 - x0) for side in box[::2])
        top, bottom = (y0 + side * (y1 - y0) for side in box[1::2])
        for panel in axes:
            panel.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="white"))


def _size(drawn: Drawing) -> tuple[int, int]:
    """Width and height of what is drawn on."""
    height, width = drawn.heat.shape if drawn.photo is None else drawn.photo.shape[:2]
    return width, height


def _reduced(drawn: Drawing) -> Drawing:
    """The same with a photograph no larger than a panel can show, and its frame with it."""
    factor = _LONGEST / max(_size(drawn))
    if drawn.photo is None or factor >= 1:
        return drawn
    width, height = (max(1, round(side * factor)) for side in _size(drawn))
    x, y = width / _size(drawn)[0], height / _size(drawn)[1]
    frame = drawn.frame and (drawn.frame[0] * x, drawn.frame[1] * y, drawn.frame[2] * x, drawn.frame[3] * y)
    photo = np.asarray(Image.fromarray(drawn.photo).resize((width, height), Image.Resampling.BOX))
    return drawn._replace(photo=photo, frame=frame)


def _title(explanation: Explanation, image: int, target: int | None = None, depth: int | None = None) -> str:
    """What is explained as far as it is known, which side of a single output, the score, the slice of a volume."""
    name = textwrap.shorten(explanation.name(image, target), 40)
    place = (image,) if target is None else (image, target)
    if side := explanation.side(image, target):
        name += f" ({side} side)"
    elif explanation.index is not None and name != f"class {int(explanation.index[place])}":
        name += f" ({int(explanation.index[place])})"
    elif not name and target is not None:
        name = f"target {target}"
    parts = [
        name,
        f"score {float(explanation.scores[place]):.4g}",
        "" if depth is None else f"slice {depth}",
    ]
    return ", ".join(filter(None, parts))
