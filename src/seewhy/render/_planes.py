"""A figure of volumes: the three slices through the hottest place, one along each axis."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from seewhy.errors import InputError
from seewhy.images.photo import Photo
from seewhy.render._overlay import limits, listed, numbers_of

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
    title: Callable[..., str],
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
        title: from (image, target) to a row's title.

    Raises:
        InputError: for images and signals, and for volumes of another size.
    """
    from seewhy.render._canvas import Canvas

    size = explanation.size
    if len(size) != 3:
        raise InputError("planes are those of volumes.", got=f"maps of size {size}", do="leave planes out")
    values = explanation.scaled(scaling).detach().cpu()
    pairs = [(image, number) for image in range(len(values)) for number in numbers_of(values, 3, target)][:max_rows]
    found = None if volumes is None else listed(volumes, len(values), 3)
    drawing = Canvas((3 * _PANEL + 0.8, _PANEL * len(pairs) + 0.6), "compressed")
    grid = drawing.subplots(len(pairs), 3, squeeze=False)
    for row, (image, number) in zip(grid, pairs, strict=True):
        place = (image,) if number is None else (image, number)
        blank = explanation.blank(image, number, scaling)
        (low, high), heat = limits(values[place], signed=scaling == "none")
        grey = None if found is None else _grey(found[image], size)
        strength = (heat - 0.5).abs() if scaling == "none" else heat
        hottest = np.unravel_index(int(strength.argmax()), size)
        for axis, panel in enumerate(row):
            panel.set(xticks=[], yticks=[], xlabel=f"axis {axis}, slice {hottest[axis]}")
            if grey is not None:
                panel.imshow(grey.select(axis, int(hottest[axis])).numpy(), cmap="gray", aspect="equal")
            if blank:
                continue
            shown = panel.imshow(
                (low + heat.select(axis, int(hottest[axis])) * (high - low)).numpy(), cmap=colours, vmin=low, vmax=high,
                alpha=1.0 if grey is None else alpha, aspect="equal",
            )  # fmt: skip
        row[0].set_title(title(*place), loc="left", fontsize=9, parse_math=False)
        if blank:
            row[1].text(0.5, 0.5, f"blank map: {blank}", transform=row[1].transAxes, ha="center", fontsize=9)
            continue
        drawing.colorbar(shown, ax=list(row), fraction=0.02, pad=0.01).ax.tick_params(labelsize=7)
    layers = ", ".join(explanation.layers)
    drawing.suptitle(textwrap.fill(f"{explanation.method} at {layers}", 90), fontsize=10)
    return drawing


def _grey(volume: Photo, size: tuple[int, ...]) -> Tensor:
    """The first channel of a volume, whatever its units."""
    values = torch.as_tensor(np.asarray(volume) if not isinstance(volume, Tensor) else volume).detach().cpu().float()
    values = values[0] if values.ndim == 4 else values
    if tuple(values.shape) != size:
        raise InputError("the volume is not of the maps' size.", got=tuple(values.shape), expected=size)
    return values
