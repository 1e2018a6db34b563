"""A figure of an explanation: photograph, heatmap and overlay side by side, a row per map."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from seewhy.errors import InputError
from seewhy.images.photo import Photo
from seewhy.render._colormap import default_colormap, find_colormap
from seewhy.render._layout import HEADING, barred, counted, headed, outlined, title_of, told_blank
from seewhy.render._overlay import Drawing, Interpolation, drawings, painted
from seewhy.render._words import strip
from seewhy.targets import Spoken, outline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from seewhy._types import Frame
    from seewhy.results.explanation import Explanation, Scaling

_PANEL = 2.6  # inches
_BAR = 0.7  # inches, of the colour bar and its numbers
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
    interpolation: Interpolation = "bilinear",
    contours: Sequence[float] = (),
    caption: str = "",
    width: float | None = None,
    max_rows: int = 8,
) -> Figure:
    """Photograph, heatmap with its values, and overlay side by side: a row for each image and target.

    Of the words of an answer it is the strip of `seewhy.render.strip`.

    The heatmap stands alone where there are no photographs. A box that is explained is drawn. The colour bar shows the
    map's own values: 0 to 1, with scaling "none" the signed ones, symmetric about 0, which is marked. A map with
    nothing in it is left blank, and its panel says why. The heading says how many places the map has: what lies between
    them is smoothed.

    Args:
        explanation: of any images, volumes or signals.
        photos: as for `overlays`. Of signals and spectrograms it is these, (B, C, L) or (B, *size); None takes what was
            explained, if it is still there.
        colormap: as for `overlays`.
        alpha: the share of the colours in the overlay, from 0 to 1; the rest is photograph.
        scaling: as for `overlays`.
        target: the number of one target; None draws all of them.
        slice_index: the slice along D to draw of a volume; None is the one with most heat.
        frame: as for `overlays`.
        axes: ("time",), ("time", "frequency") or ("frequency", "time") draws time to the right and frequency upwards,
            over the signal or spectrogram. None is what the explanation knows.
        planes: of volumes, three slices through the hottest place, one along each axis, over the photographs' own.
        interpolation: "nearest" shows the places of the map as cells; see `overlay`. Of pictures.
        contours: levels, shares of the map's reach in (0, 1), at which lines are drawn. Of pictures.
        caption: a line below the figure.
        width: of the figure in inches, 3.3 for a column of a paper: panels shrink, letters do not. None is by the
            number of panels. Of pictures.
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
    options |= {"max_rows": max_rows, "caption": caption}
    if axes := axes or explanation.axes:
        from seewhy.render._time import in_time

        return in_time(explanation, photos, axes, **options)
    if planes:
        from seewhy.render._planes import in_planes

        return in_planes(explanation, photos, **options)
    every = drawings(
        explanation, photos, scaling=scaling, target=target, slice_index=slice_index, interpolation=interpolation,
        frame=frame,
    )  # fmt: skip
    rows = [_reduced(drawn) for drawn in itertools.islice(every, max_rows)]
    if not rows:
        raise InputError("there is nothing to draw.", got="an explanation of no images")
    columns = 1 if rows[0].photo is None else 3
    shapes = [height / wide for wide, height in map(_size, rows)]
    if width is not None and width < 1:
        raise InputError("a figure needs a width.", got=f"width={width}", expected="1 inch or more")
    panel = _PANEL / min(max(sum(shapes) / len(shapes), 0.5), 2)  # wide photographs get wide panels
    wide = panel * columns + _BAR if width is None else width
    heights = [(wide - _BAR) / columns * min(max(shape, 0.2), 2) for shape in shapes]
    drawing = Canvas((wide, sum(heights) + 0.3 * len(rows) + 0.4 + 0.2 * bool(caption)), "compressed")
    grid = drawing.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    look: dict[str, Any] = {"alpha": alpha, "interpolation": interpolation, "contours": contours}
    for panels, drawn in zip(grid, rows, strict=True):
        _row(panels, drawn, colours, look, outline(explanation.targets, drawn.image, drawn.target))
        title = title_of(explanation, drawn.image, drawn.target, drawn.depth)
        panels[0].set_title(title, loc="left", fontsize=HEADING, parse_math=False)  # "$" is a letter
    maps = explanation.scores.numel() if target is None else len(explanation)
    headed(drawing, explanation, counted(len(rows), maps, caption))
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


def _row(
    axes: Sequence[Axes], drawn: Drawing, colours: Colormap, look: dict[str, Any], box: tuple[float, ...] | None
) -> None:
    from matplotlib.patches import Rectangle

    for panel in axes:
        panel.set(xticks=[], yticks=[])
    width, height = _size(drawn)
    x0, y0, x1, y1 = drawn.frame if drawn.frame and drawn.photo is not None else (0, 0, width, height)
    low, high = drawn.limits
    if drawn.photo is not None:
        axes[0].imshow(drawn.photo)
        axes[2].imshow(painted(drawn, colormap=colours, **look))
    heat = axes[len(axes) // 2]
    heat.set(xlim=(0, width), ylim=(height, 0), facecolor="0.92", aspect="equal")
    if drawn.blank:
        told_blank(heat, drawn.blank)
    else:
        values = (low + drawn.heat * (high - low)).numpy()
        shown = heat.imshow(values, cmap=colours, vmin=low, vmax=high, extent=(x0, x1, y1, y0))
        heat.set(xlim=(0, width), ylim=(height, 0))
        if look["contours"]:
            outlined(heat, drawn, look["contours"])
        barred(shown, cax=heat.inset_axes((1.03, 0, 0.05, 1)))
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
