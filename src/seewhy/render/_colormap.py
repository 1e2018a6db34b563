"""Colours for values from 0 to 1. The maps that overlays use by default need no matplotlib."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seewhy.errors import InputError, InputTypeError, MissingExtra

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

    from seewhy.results.explanation import Scaling

_Channel = tuple[Sequence[float], Sequence[float]]
DEFAULT = "ember"  # of maps of one sign
_STEPS = 256
# Points (value, colour) between which a channel is linear.
_JET = (
    ((0, 0.35, 0.66, 0.89, 1), (0, 0, 1, 1, 0.5)),
    ((0, 0.125, 0.375, 0.64, 0.91, 1), (0, 0, 1, 1, 0, 0)),
    ((0, 0.11, 0.34, 0.65, 1), (0.5, 1, 1, 0, 0)),
)
# Ours, at 33 values: from indigo over red to yellow, ever lighter, by equal steps of CIEDE2000 (benchmarks/colours.py).
_EMBER = (
    "1a1464""301671""44177e""58178a""6c1996""7d20a2""8e27a3""9c2b9e""a92d96""b3308d""bd3283""c5357a""cd3972""d53e6c"
    "dd4466""e34b60""e75159""eb5852""ee5f4c""f16645""f36e40""f6773b""f88139""fb8d3d""fe9a45""ffa64c""ffb153""ffbc5b"
    "ffc763""ffd26c""ffdc75""ffe880""fdf28a"
)  # fmt: skip
# Moreland 2009, "Diverging color maps for scientific visualization", at 33 evenly spaced values.
_COOLWARM = (
    "3b4cc0445acc4e68d75875e16282ea6c8ef1779af782a5fb8db0fe98b9ffa3c2ffaec9fdb8d0f9c2d5f4ccd9eed5dbe6dddddd"
    "e5d8d1ecd3c6f1ccb9f5c4adf7bba0f7b194f7a687f49a7bf18d6fec7f63e57057de614cd55042cb3e38c0282fb40426"
)


def colours(colormap: str | Colormap) -> NDArray[np.float32]:
    """The table of a colormap: (N, 3) RGB from 0 to 1, for N values evenly spaced from 0 to 1.

    Args:
        colormap: a matplotlib colormap or the name of one. "ember", "jet", "gray" and "coolwarm" need no matplotlib.

    Raises:
        InputError: if there is no colormap of this name.
        InputTypeError: if it is neither a name nor a colormap.
        MissingExtra: if another name is given and matplotlib is not installed.
    """
    if isinstance(colormap, str) and colormap in _OWN:
        return _own(colormap)
    found = find_colormap(colormap)
    return np.asarray(found(np.arange(found.N)), np.float32)[:, :3]


def default_colormap(scaling: Scaling) -> str:
    """The name of the colormap for maps of one sign or, for unscaled ones, of both."""
    return "coolwarm" if scaling == "none" else DEFAULT


def find_colormap(colormap: str | Colormap) -> Colormap:
    """The colormap of that name, matplotlib's or ours, as matplotlib takes it.

    Raises:
        InputError: if there is none; the message names those that come close.
        InputTypeError: if it is neither a name nor a colormap.
        MissingExtra: if matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.colors import Colormap, ListedColormap
    except ImportError as error:
        raise MissingExtra.of("matplotlib", "plot") from error

    if isinstance(colormap, Colormap):
        return colormap
    if not isinstance(colormap, str):
        raise InputTypeError(
            "this is no colormap.", got=type(colormap).__name__, expected="a matplotlib Colormap or its name"
        )
    if colormap == DEFAULT:
        return ListedColormap(_own(DEFAULT), DEFAULT)
    known = [DEFAULT, *matplotlib.colormaps]
    if colormap not in known:
        by_case = {name.lower(): name for name in known}
        close = [by_case[name] for name in difflib.get_close_matches(colormap.lower(), by_case)]
        raise InputError(
            "unknown colormap.",
            got=repr(colormap),
            expected=" or ".join(map(repr, close)) or '"ember" or a name in matplotlib.colormaps',
        )
    return matplotlib.colormaps[colormap]


@cache
def _own(name: str) -> NDArray[np.float32]:
    places = np.linspace(0, 1, _STEPS)
    channels = [np.interp(places, where, levels) for where, levels in _OWN[name]]
    return np.stack(channels, 1).astype(np.float32)


def _evenly(hexadecimal: str) -> tuple[_Channel, ...]:
    points = np.frombuffer(bytes.fromhex(hexadecimal), np.uint8).reshape(-1, 3) / 255
    where = np.linspace(0, 1, len(points)).tolist()
    return tuple((where, channel.tolist()) for channel in points.T)


_OWN: dict[str, tuple[_Channel, ...]] = {
    DEFAULT: _evenly(_EMBER),
    "jet": _JET,
    "gray": (((0, 1), (0, 1)),) * 3,
    "coolwarm": _evenly(_COOLWARM),
}
