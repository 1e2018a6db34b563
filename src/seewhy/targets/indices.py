"""Classes as callers name them, by index or by label, as tensors of indices."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.errors import TargetError, TargetTypeError

# an index, a label, one per image, or (B, T) for T per image; None is the predicted class
Classes = int | str | Sequence[Any] | Tensor | np.ndarray[Any, Any] | None


def columns(
    classes: Any,
    values: Float[Tensor, "B K *space"],
    labels: Sequence[str] | None,
    *,
    single: bool = False,
    distinct: bool = False,
) -> Int[Tensor, "B *T"]:
    """The columns of `values` that `classes` are: one class, a class per image, or T per image.

    Args:
        classes: indices or labels.
        values: the scores.
        labels: a name per class.
        single: whether the columns are the two sides of a single output. Every class is its positive side then, unless
            both sides have a name.
        distinct: whether it would mean nothing to ask for a class twice. Rows that mark classes are refused then.

    Returns:
        (B,) or (B, T), in range.

    Raises:
        TargetError: for a class out of range, an unknown label or a number of them that does not fit.
        TargetTypeError: for what is neither an index nor a label.
    """
    if single and labels is not None and len(labels) > 2 and _has_label(classes):
        raise TargetError(
            "a model with a single output has no class of this name.",
            got=f"{classes!r} and {len(labels)} labels",
            expected="one label, for the output, or two: of the negative side and of the positive one",
        )
    batch, count = values.shape[:2]
    found = as_indices(classes, labels, count, single=single)
    if distinct:
        _refuse_marks(found, batch, count)
    index = per_image(found.to(values.device), batch)
    return torch.ones_like(index) if single and len(labels or ()) != 2 else index


def _has_label(classes: Any) -> bool:
    return isinstance(classes, str) or (isinstance(classes, list | tuple) and any(map(_has_label, classes)))


def _refuse_marks(index: Int[Tensor, "*shape"], batch: int, count: int) -> None:
    """Refuse rows of zeros and ones as wide as the classes, of which there are more than two.

    They mark classes. As indices they would mean classes 0 and 1, again and again.
    """
    if count < 3 or index.ndim not in (1, 2) or index.shape[-1] != count or not index.numel() or int(index.max()) > 1:
        return
    if index.ndim == 1 and batch == count:  # a class per image
        return
    rows = index.reshape(-1, count)
    marked = [row.nonzero().flatten().tolist() for row in rows]
    regular = len(marked) == batch <= 4 and len({len(row) for row in marked}) == 1 and bool(marked[0])
    raise TargetError(
        "a row of zeros and ones marks classes, and a target is given by their indices.",
        got=index.tolist() if len(rows) <= 4 else f"{len(rows)} rows like {rows[0].tolist()}",
        expected=f"a class per image, ({batch},), or ({batch}, T) for T classes per image",
        do=f"pass {marked}" if regular else "pass marks.argmax(1), or a list of T indices per image",
    )


def per_image(index: Int[Tensor, "*shape"], batch: int) -> Int[Tensor, "B *T"]:
    """A number for all images, for each, or T for each: (B,) or (B, T).

    Raises:
        TargetError: for any other number of them.
    """
    if index.ndim == 0:
        return index.expand(batch)
    if index.ndim > 2 or index.shape[0] != batch:
        raise TargetError(
            "the number of targets does not match the batch.",
            got=f"targets of shape {tuple(index.shape)} for {batch} image{'s'[: batch != 1]}",
            expected=f"one class, ({batch},) of them, or ({batch}, T) for T classes per image",
        )
    if not index.numel():
        raise TargetError(
            "there are no targets.", got=f"shape {tuple(index.shape)}", do="leave target out for the predicted class"
        )
    return index


def as_indices(
    classes: Any, labels: Sequence[str] | None, count: int | None = None, *, single: bool = False
) -> Int[Tensor, "*shape"]:
    """Indices and labels, in whatever nesting of equal lengths, as a tensor of indices.

    Args:
        classes: an int, a label, a tensor, an array, or nested lists of ints and labels.
        labels: a name per class.
        count: how many classes there are, where that is known.
        single: whether the classes are the two sides of a single output; for the error.

    Raises:
        TargetError: for an unknown label, an index out of range, or lists of different lengths.
        TargetTypeError: for what is neither an index nor a label.
    """

    def read(given: Any) -> Any:
        if isinstance(given, list | tuple):
            return [read(each) for each in given]
        index = find_label(given, labels) if isinstance(given, str) else _index(given)
        if count is not None and not 0 <= index < count:
            why = "a single output has two sides" if single else f"the model gives {count} scores"
            raise TargetError(f"class {index} is out of range.", got=index, expected=f"0 to {count - 1}: {why}")
        return index

    rows = classes.tolist() if isinstance(classes, Tensor | np.ndarray) else classes
    indices = read(rows)
    try:
        return torch.tensor(indices, dtype=torch.long)
    except (ValueError, TypeError):  # torch's words on nested lists of different lengths
        problem = "the images have different numbers of targets."
        raise TargetError(problem, got=rows, expected="the same T for each") from None


def _index(given: Any) -> int:
    is_bool = isinstance(given, bool | np.bool_) or (isinstance(given, Tensor) and given.dtype == torch.bool)
    try:
        if not is_bool:
            return operator.index(given)
    except TypeError:
        pass
    raise TargetTypeError(
        "a class is given by an integer index or a label.",
        got="bool" if is_bool else type(given).__name__,
        expected="int, str, a list of them, or an integer tensor (B,) or (B, T)",
        do="convert it" + (" to the indices of what is true" if is_bool else "") + ", or pass a function of the output",
    )


def find_label(text: str, labels: Sequence[str] | None) -> int:
    """The index of the class called `text`.

    Args:
        text: a whole label, one of its comma-separated names, a word of it, or a part; in upper or lower case.
        labels: a name per class.

    Raises:
        TargetError: if no class is called so, with the nearest names; if several are, with all of them.
    """
    if labels is None:
        raise TargetError(
            "the class was given by name, and the names are not known.",
            got=repr(text),
            do="pass its index, or labels=[...] with a name per class",
        )
    found = matching_labels(text, labels)
    if len(found) == 1:
        return found[0]
    if found:
        raise TargetError(
            f"the label {text!r} fits several classes.", got=_some(found, labels, 40), do="pass one of the indices"
        )
    known = ", ".join(labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
    near = _nearest(text, labels)
    raise TargetError(
        f"no class is called {text!r}.",
        expected=f"one of the {len(labels)} labels, or a part of one: {known}",
        do=f"did you mean {_some(near, labels, 5)}?" if near else None,
    )


def matching_labels(text: str, labels: Sequence[str]) -> list[int]:
    """The classes that `text` can mean, by index.

    Those of which it is the whole label; if there are none, those of which it is one of the comma-separated names; then
    a word; then a part.

    Args:
        text: in upper or lower case.
        labels: a name per class.

    Examples:
        >>> matching_labels("cat", ["tabby, tabby cat", "tiger cat", "cattle"])
        [0, 1]
    """
    wanted = text.casefold().strip()
    if not wanted:
        return []
    tests: list[Callable[[str], bool]] = [
        lambda label: label.strip() == wanted,
        lambda label: wanted in _names(label),
        lambda label: re.search(rf"\b{re.escape(wanted)}\b", label) is not None,
        lambda label: wanted in label,
    ]
    matching = ([index for index, label in enumerate(labels) if fits(label.casefold())] for fits in tests)
    return next(filter(None, matching), [])


def _names(label: str) -> list[str]:
    """The comma-separated names in a label."""
    return [name.strip() for name in label.split(",")]


def _nearest(text: str, labels: Sequence[str]) -> list[int]:
    """The classes with a label, name or word that is spelt almost like `text`, the most alike first."""
    spelt: dict[str, list[int]] = {}
    for index, label in enumerate(map(str.casefold, labels)):
        for name in {label.strip(), *_names(label), *re.findall(r"\w{3,}", label)}:
            spelt.setdefault(name, []).append(index)
    close = difflib.get_close_matches(text.casefold().strip(), spelt)
    return list(dict.fromkeys(index for name in close for index in spelt[name]))


def _some(indices: Sequence[int], labels: Sequence[str], most: int) -> str:
    """Indices with their labels, `most` of them, and how many more there are."""
    shown = ", ".join(f"{index} ({labels[index]})" for index in indices[:most])
    return shown + (f" and {len(indices) - most} more" if len(indices) > most else "")
