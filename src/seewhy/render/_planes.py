"""A figure of volumes: the three slices through the hottest place, one along each axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from seewhy.errors import InputError
from seewhy.images.photo import Photo
from seewhy.render._layout import HEADING, barred, counted, headed, shown, told_blank
from seewhy.render._overlay import listed

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from seewhy.results.explanation import Explanation, Scaling

_PANEL = 2.8  # inches


def in_planes(
    explanation: Explanation,
    volumes: Photo | Sequence[Photo] | None,
    *,
    colours: Colormap,
    alpha: float,
    scaling: Scaling,
    target: int | None,
    max_rows: int,
    caption: str,
) -> Figure:
    """Three panels for each map of a volume (D, H, W): the slice of the first, of the second and of the third axis.

    Args:
        explanation: of volumes.
        volumes: (B, [C,] D, H, W), in any units; None draws the heat alone.
        colours: the colormap.
        alpha: the share of the colours over a volume.
        scaling: as in `Explanation.scaled`.
        target: the number of one target; None draws all of them.
        max_rows: how many maps.
        caption: a line below.

    Raises:
        InputError: for images and signals, and for volumes of another size.
    """
    from seewhy.render._canvas import Canvas

    size = explanation.size
    if len(size) != 3:
        raise InputError("planes are those of volumes.", got=f"maps of size {size}", do="leave planes out")
    maps, total = shown(explanation, scaling, target, max_rows)
    found = None if volumes is None else listed(volumes, len(explanation), 3)
    drawing = Canvas((3 * _PANEL + 0.8, _PANEL * len(maps) + 0.6), "compressed")
    grid = drawing.subplots(len(maps), 3, squeeze=False)
    for row, one in zip(grid, maps, strict=True):
        low, high = one.limits
        grey = None if found is None else _grey(found[one.image], size)
        strength = (one.heat - 0.5).abs() if scaling == "none" else one.heat
        hottest = np.unravel_index(int(strength.argmax()), size)
        for axis, panel in enumerate(row):
            place = int(hottest[axis])
            panel.set(xticks=[], yticks=[], xlabel=f"axis {axis}, slice {place}")
            if grey is not None:
                panel.imshow(grey.select(axis, place).numpy(), cmap="gray", aspect="equal")
            if one.blank:
                continue
            drawn = panel.imshow(
                (low + one.heat.select(axis, place) * (high - low)).numpy(), cmap=colours, vmin=low, vmax=high,
                alpha=1.0 if grey is None else alpha, aspect="equal",
            )  # fmt: skip
        row[0].set_title(one.title, loc="left", fontsize=HEADING, parse_math=False)
        if one.blank:
            told_blank(row[1], one.blank)
        else:
            barred(drawn, list(row))
    headed(drawing, explanation, counted(len(maps), total, caption))
    return drawing


def _grey(volume: Photo, size: tuple[int, ...]) -> Tensor:
    """The first channel of a volume, whatever its units."""
    values = torch.as_tensor(np.asarray(volume) if not isinstance(volume, Tensor) else volume).detach().cpu().float()
    values = values[0] if values.ndim == 4 else values
    if tuple(values.shape) != size:
        raise InputError("the volume is not of the maps' size.", got=tuple(values.shape), expected=size)
    return values
