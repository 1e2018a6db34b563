"""Options that are more than a value: numbers in a row, a size, a file of labels, several names."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from seewhy.errors import InputError

if TYPE_CHECKING:
    from seewhy.images.preprocess import Preprocess

RULES = ("default", "auto")  # what stands for a method that is chosen


def methods_named(method: Sequence[str], methods: Sequence[str]) -> list[str]:
    """The methods of `--method NAME`, given once, or of `--methods NAME,NAME`, by their own names, each once.

    One that chooses, "default" or "auto", stands alone. It is "default" where there are none.

    Raises:
        InputError: for both options, or one of them twice or empty.
        MethodError: for a name that no method has.
    """
    from seewhy.methods import get

    if len(method) > 1:
        raise InputError(
            "--method is one method.", got=" and ".join(method), do=f"for several: --methods {','.join(method)}"
        )
    if method and methods:
        raise InputError("one of --method and --methods says which.", got="both", do="leave one out")
    names = listed(methods)
    if methods and not names:
        raise InputError("--methods names none.", got=repr(" ".join(methods)), expected="as in grad_cam,layer_cam")
    names = names or list(method) or ["default"]
    return names if names[0] in RULES and len(names) == 1 else list(dict.fromkeys(get(name).name for name in names))


def listed(given: Sequence[str]) -> list[str]:
    """The entries of options that take several, with commas or again."""
    return [name.strip() for entry in given for name in entry.split(",") if name.strip()]


def labels_in(path: Path) -> tuple[str, ...]:
    """The labels in a file: a label in each line, or JSON: a list, or an object with the index as key."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise InputError(f"--labels {path}: cannot be read ({reason}).") from error
    if path.suffix.lower() != ".json":
        labels = text.splitlines()
        while labels and not labels[-1].strip():
            labels.pop()
        return tuple(label.strip() for label in labels)
    try:
        found = json.loads(text)
        if isinstance(found, dict):
            found = [found[key] for key in sorted(found, key=int)] if _counts(found) else None
    except ValueError as error:
        raise InputError(f"--labels {path}: is no JSON ({error}).") from error
    if not isinstance(found, list) or not all(isinstance(label, str) for label in found):
        raise InputError(
            f"--labels {path}: holds no labels.", expected='["cat", "dog"], or {"0": "cat", "1": "dog"}, or a text file'
        )
    return tuple(found)


def _counts(found: dict[str, object]) -> bool:
    return sorted(key for key in found if key.isdecimal()) == sorted(map(str, range(len(found))))


def seen_through(
    preprocess: Preprocess, *, gray: bool, size: str | None, mean: str | None, std: str | None
) -> Preprocess:
    """`preprocess` with what the options change of it.

    Args:
        preprocess: the model's own.
        gray: whether the model takes one channel.
        size: "SIDE" or "HEIGHTxWIDTH" of the input. The resize before the crop grows with it.
        mean: a number, or one for each channel with commas, for values in [0, 1].
        std: as `mean`.

    Raises:
        InputError: for anything else.
    """
    if gray:
        preprocess = preprocess.gray()
    channels = len(preprocess.mean)
    changes: dict[str, object] = {}
    if mean is not None:
        changes["mean"] = _numbers("--mean", mean, channels)
    if std is not None:
        changes["std"] = _numbers("--std", std, channels)
        if min(_numbers("--std", std, channels)) <= 0:
            raise InputError("--std is not positive.", got=std)
    if size is not None:
        height, width = _size(size)
        if isinstance(preprocess.resize, int):
            margin = preprocess.resize / min(preprocess.size) if preprocess.size else 1.0
            changes |= {"size": (height, width), "resize": round(margin * max(height, width))}
        else:
            changes |= {"size": (height, width), "resize": (height, width)}
    return replace(preprocess, **changes)  # type: ignore[arg-type]


def _numbers(option: str, text: str, count: int) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) not in (1, count) or not all(map(math.isfinite, found)):
        each = "a number" if count == 1 else f"a number, or {count} with commas: one for each channel"
        raise InputError(f"{option} does not fit the model's input.", got=text, expected=each)
    return found * count if len(found) == 1 else found


def _size(text: str) -> tuple[int, int]:
    height, times, width = text.lower().partition("x")
    width = width if times else height
    if not (height.isdecimal() and width.isdecimal() and int(height) > 0 and int(width) > 0):
        raise InputError("--size is no size.", got=text, expected="224, or 480x640: height and width in pixels")
    return int(height), int(width)
