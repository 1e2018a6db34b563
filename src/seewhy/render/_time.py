"""A figure of signals and spectrograms: time runs to the right, and the heat is the colour behind or over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from seewhy.errors import InputError
from seewhy.hooks.nested import leaves
from seewhy.images.photo import Photo
from seewhy.render._layout import HEADING, SMALL, TEXT, barred, counted, headed, shown, told_blank
from seewhy.render._overlay import listed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from seewhy.results.explanation import Explanation, Scaling

_WIDE, _HIGH = 8.0, 1.9  # inches of a panel
_LINES = 8  # channels that are drawn as lines; more are drawn as the rows of a picture
TIME = "time"


def in_time(
    explanation: Explanation,
    signals: Photo | Sequence[Photo] | None,
    axes: tuple[str, ...],
    *,
    colours: Colormap,
    alpha: float,
    scaling: Scaling,
    target: int | None,
    max_rows: int,
    caption: str,
) -> Figure:
    """A panel for each map: a signal as lines before the heat's colours, a spectrogram under them.

    Args:
        explanation: of signals (L,), or of spectrograms.
        signals: (B, C, L), of spectrograms (B, [1,] *size); None takes what was explained, if it is still there.
        axes: what the axes of a map are called; "time" is drawn to the right, another one upwards.
        colours: the colormap.
        alpha: the share of the colours over a spectrogram.
        scaling: as in `Explanation.scaled`.
        target: the number of one target; None draws all of them.
        max_rows: how many panels.
        caption: a line below.

    Raises:
        InputError: where the axes do not suit the maps, or a target does not exist.
    """
    from seewhy.render._canvas import Canvas

    size = explanation.size
    if len(axes) != len(size) or TIME not in axes:
        raise InputError(
            "these axes are not those of the maps.",
            got=f"axes={axes} for maps of size {size}",
            expected='("time",) for signals; ("time", "frequency") or ("frequency", "time") for spectrograms',
        )
    maps, total = shown(explanation, scaling, target, max_rows)
    found = _own(explanation) if signals is None else listed(signals, len(explanation), len(size))
    drawing = Canvas((_WIDE, _HIGH * len(maps) + 0.6), "constrained")
    panels = drawing.subplots(len(maps), 1, squeeze=False, sharex=True)[:, 0]
    for panel, one in zip(panels, maps, strict=True):
        upright = one.heat[None] if len(size) == 1 else one.heat.movedim(axes.index(TIME), 1)
        signal = None if found is None else _channels(found[one.image], size, axes)
        _panel(panel, upright, one.limits, signal, colours, alpha, one.blank)
        panel.set_title(one.title, loc="left", fontsize=HEADING, parse_math=False)
        for name in axes:
            if name != TIME:
                panel.set_ylabel(name, fontsize=TEXT)
    panels[-1].set_xlabel(TIME, fontsize=TEXT)
    headed(drawing, explanation, counted(len(maps), total, caption))
    return drawing


def _panel(
    panel: Axes,
    heat: Float[Tensor, "rows time"],
    span: tuple[float, float],
    signal: NDArray[np.float32] | None,
    colours: Colormap,
    alpha: float,
    blank: str,
) -> None:
    """One map: its colours, and the signal (C, L), or as many rows as the map has."""
    (rows, length), (low, high) = heat.shape, span
    values = (low + heat * (high - low)).numpy()
    picture = signal if signal is not None and len(signal) > _LINES else None
    lines = signal if picture is None else None
    if signal is None and rows == 1:  # nothing else is known: the heat is the line
        lines = values
    if picture is not None:
        rows = len(picture)
        panel.imshow(picture, cmap="gray", origin="lower", aspect="auto", extent=(0, length, 0, rows))
    bottom, top = (0.0, float(rows)) if lines is None else _drawn(panel, lines, "white" if signal is None else "black")
    if blank:
        told_blank(panel, blank, 60)
    else:
        drawn = panel.imshow(
            values, cmap=colours, vmin=low, vmax=high, origin="lower", aspect="auto", extent=(0, length, bottom, top),
            alpha=1.0 if signal is None else alpha,
        )  # fmt: skip
        barred(drawn, panel)
    panel.set(xlim=(0, length), ylim=(bottom, top))
    panel.tick_params(labelsize=SMALL)


def _drawn(panel: Axes, lines: NDArray[np.float32], colour: str) -> tuple[float, float]:
    """Draws channels one under the other, in a colour that the heat behind lets be seen; says how far they reach."""
    apart = 1.1 * float(np.ptp(lines, axis=1).max() or 1)
    for number, line in enumerate(lines):
        panel.plot(np.arange(len(line)) + 0.5, line - number * apart, color=colour, linewidth=0.8)
    if len(lines) > 1:
        panel.set_yticks([-number * apart for number in range(len(lines))], [str(n) for n in range(len(lines))])
        panel.set_ylabel("channel", fontsize=TEXT)
    low, high = float(lines[-1].min()) - (len(lines) - 1) * apart, float(lines[0].max())
    margin = 0.05 * max(high - low, 1e-12)
    return low - margin, high + margin


def _channels(signal: Photo, size: tuple[int, ...], axes: tuple[str, ...]) -> NDArray[np.float32]:
    """A signal as (C, L), a spectrogram with frequency in its rows."""
    values = torch.as_tensor(np.asarray(signal) if not isinstance(signal, Tensor) else signal).detach().cpu().float()
    values = values[None] if values.ndim == len(size) else values
    if values.ndim != len(size) + 1 or tuple(values.shape[1:]) != size:
        raise InputError(
            "this signal is not of the size that was explained.",
            got=f"shape {tuple(values.shape)}",
            expected=f"(C, {', '.join(map(str, size))})",
        )
    drawn: NDArray[np.float32] = (values if len(size) == 1 else values[0].movedim(axes.index(TIME), 1)).numpy()
    return drawn


def _own(explanation: Explanation) -> Tensor | None:
    """What was explained, (B, C, *size), if it is still there."""
    size = explanation.size
    try:
        inputs = None if explanation.origin is None else explanation.origin.inputs()
    except InputError:  # the caller has let go of it
        return None
    tensor: Tensor
    for tensor in leaves(inputs, Tensor):
        if len(tensor) != len(explanation) or not tensor.is_floating_point():
            continue
        if tuple(tensor.shape[1:]) == size:
            return tensor[:, None]
        for axis in (1, -1):
            if tensor.ndim == len(size) + 2 and tuple(tensor.movedim(axis, 1).shape[2:]) == size:
                return tensor.movedim(axis, 1)
    return None
