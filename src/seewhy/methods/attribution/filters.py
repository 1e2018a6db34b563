"""Filters that every map of gradients on the input can go through, as options of its method."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from seewhy.errors import InputError
from seewhy.images import arrays
from seewhy.methods.attribution.asking import Map
from seewhy.methods.registry import Accounted

_OPTIONS = """\
    low_pass: frequencies kept along the shortest side, as in FORGrad (arXiv:2307.09591); None keeps all.
    blur: the standard deviation of a Gaussian, as a share of each side. A place then shows what all around it adds
        to the score, and the map's sum stays. None leaves the pixels alone.
"""
Function = TypeVar("Function", bound=Callable[..., Any])


def filtered(function: Function) -> Function:
    """The same method with the options `low_pass` and `blur`, which are applied to its maps one after the other."""

    @wraps(function)
    def found_and_smoothed(*args: Any, low_pass: float | None = None, blur: float | None = None, **named: Any) -> Any:
        found = function(*args, **named)
        if isinstance(found, Accounted):
            return found._replace(maps=smoothed(found.maps, low_pass, blur))
        return smoothed(found, low_pass, blur)

    own, added = inspect.signature(function), inspect.signature(smoothed).parameters
    options = [added[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in ("low_pass", "blur")]
    found_and_smoothed.__signature__ = own.replace(parameters=[*own.parameters.values(), *options])  # type: ignore[attr-defined]
    written = inspect.cleandoc(function.__doc__ or "")
    found_and_smoothed.__doc__ = written + ("\n" if "\nArgs:\n" in written else "\n\nArgs:\n") + _OPTIONS
    return found_and_smoothed  # type: ignore[return-value]


def smoothed(maps: Map, low_pass: float | None = None, blur: float | None = None) -> Map:
    """Maps after the filters that are not None; see `filtered`.

    Raises:
        InputError: if a filter would leave nothing.
    """
    for name, value in (("low_pass", low_pass), ("blur", blur)):
        if value is not None and value <= 0:
            raise InputError("nothing would be left of the map.", got=f"{name}={value}", expected="more than 0")
    size = maps.shape[1:]
    if low_pass is not None:
        maps = arrays.low_pass(maps, low_pass, len(size))
    for dim, side in enumerate(size, 1):
        maps = maps if blur is None else arrays.blur(maps, blur * side, (dim,))
    return maps
