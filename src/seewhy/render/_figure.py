"""A figure of an explanation: photograph, heatmap and overlay side by side, a row per map."""

from __future__ import annotations

import dataclasses
import io
import itertools
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seewhy.errors import InputError
from seewhy.images.photo import Photo
from seewhy.render._overlay import Drawing, default_colormap, drawings, find_colormap, overlay
from seewhy.targets import classes, outline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

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
    max_rows: int = 8,
) -> Figure:
    """Photograph, heatmap with its values, and overlay of each map; the heatmap alone where there are no photographs.

    A row per image and target, image by image, `max_rows` at most; a box that is explained is drawn. The colour bar
    shows the map's own values: 0 to 1, or with scaling "none" the signed ones, symmetric about 0. Photos and options
    are those of `Explanation.overlay`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if max_rows < 1:
        raise InputError("a figure needs a row.", got=f"max_rows={max_rows}", expected="1 or more")
    colours = find_colormap(default_colormap(scaling) if colormap is None else colormap)
    every = drawings(explanation, photos, scaling=scaling, target=target, slice_index=slice_index)
    rows = [_reduced(drawn) for drawn in itertools.islice(every, max_rows)]
    if not rows:
        raise InputError("there is nothing to draw.", got="an explanation of no images")
    columns = 1 if rows[0].photo is None else 3
    shapes = [height / width for width, height in map(_size, rows)]
    panel = _PANEL / min(max(sum(shapes) / len(shapes), 0.5), 2)  # wide photographs get wide panels
    heights = [panel * min(max(shape, 0.2), 2) for shape in shapes]
    wide = panel * columns + 0.7
    drawing = Figure(figsize=(wide, sum(heights) + 0.3 * len(rows) + 0.4), dpi=100, layout="compressed")
    FigureCanvasAgg(drawing)
    grid = drawing.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for axes, drawn in zip(grid, rows, strict=True):
        _row(axes, drawn, colours, alpha, outline(explanation.targets, drawn.image, drawn.target))
        axes[0].set_title(_title(explanation, drawn), loc="left", fontsize=9)
    layers = ", ".join(explanation.layers)
    drawing.suptitle(textwrap.fill(f"{explanation.method} at {layers}", int(wide * 11)), fontsize=10)
    maps = explanation.scores.numel() if target is None else len(explanation)
    if maps > len(rows):
        drawing.supxlabel(f"{len(rows)} of {maps} maps shown", fontsize=8)
    return drawing


def png(explanation: Explanation) -> bytes:
    """The figure as a PNG file, for notebooks."""
    buffer = io.BytesIO()
    figure(explanation).savefig(buffer, format="png")
    return buffer.getvalue()


def _row(axes: Sequence[Axes], drawn: Drawing, colours: Colormap, alpha: float, box: tuple[float, ...] | None) -> None:
    from matplotlib.patches import Rectangle

    for panel in axes:
        panel.set(xticks=[], yticks=[])
    width, height = _size(drawn)
    x0, y0, x1, y1 = drawn.frame if drawn.frame and drawn.photo is not None else (0, 0, width, height)
    low, high = drawn.limits
    if drawn.photo is not None:
        axes[0].imshow(drawn.photo)
        axes[2].imshow(overlay(drawn.photo, drawn.heat, colormap=colours, alpha=alpha, frame=drawn.frame))
    heat = axes[len(axes) // 2]
    values = low + drawn.heat * (high - low)
    span = (low, high) if high > low else (-1.0, 1.0)  # all zero, signed
    shown = heat.imshow(values.numpy(), cmap=colours, vmin=span[0], vmax=span[1], extent=(x0, x1, y1, y0))
    heat.set(xlim=(0, width), ylim=(height, 0), facecolor="0.92")
    if box is not None:
        left, right = (x0 + side * (x1 - x0) for side in box[::2])
        top, bottom = (y0 + side * (y1 - y0) for side in box[1::2])
        for panel in axes:
            panel.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="white"))
    bar = heat.figure.colorbar(shown, cax=heat.inset_axes((1.03, 0, 0.05, 1)))
    bar.ax.tick_params(labelsize=7)


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


def _title(explanation: Explanation, drawn: Drawing) -> str:
    """The class or the prompt as far as it is known, the score, and the slice of a volume."""
    index = _class_index(explanation.targets, drawn)
    parts = []
    if index is not None:
        labels = explanation.labels
        named = labels is not None and 0 <= index < len(labels)
        parts.append(f"{textwrap.shorten(labels[index], 40)} ({index})" if labels and named else f"class {index}")
    elif prompt := getattr(explanation.targets, "prompt", None):
        parts.append(textwrap.shorten(prompt, 40))
    elif drawn.target is not None:
        parts.append(f"target {drawn.target}")
    score = explanation.scores[drawn.image] if drawn.target is None else explanation.scores[drawn.image, drawn.target]
    parts.append(f"score {float(score):.4g}")
    if drawn.depth is not None:
        parts.append(f"slice {drawn.depth}")
    return ", ".join(parts)


def _class_index(targets: object, drawn: Drawing) -> int | None:
    """The class that a map explains, where `targets` is about classes, an int or a tensor of indices."""
    index = classes(targets) if dataclasses.is_dataclass(targets) else targets
    if isinstance(index, int) and not isinstance(index, bool):
        return index
    if not isinstance(index, Tensor) or index.is_floating_point() or index.dtype == torch.bool:
        return None
    places = (drawn.image, drawn.target)[: index.ndim]
    return None if None in places or index.ndim > 2 else int(index[places])
