"""Class scores: which class, its score, its probability, its score against others."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.errors import OutputError, TargetError, TargetTypeError
from seewhy.targets.context import Context
from seewhy.targets.outputs import advice, described, scores_tensor

# an index, a label, one per image, or (B, T) for T per image; None is the predicted class
Classes = int | str | Sequence[Any] | Tensor | np.ndarray[Any, Any] | None

_SHAPE_ONLY = ("View", "UnsafeView", "Reshape", "Squeeze", "Unsqueeze", "Select", "Slice", "Alias", "Clone", "ToCopy")


@dataclass(frozen=True)
class Category:
    """The score of a class as the model gives it, before any softmax of ours.

    A model with one logit has two classes: 1, whose score is the logit, and 0, whose score is its negative (for a model
    that ends in a sigmoid: p and 1 - p).
    """

    index: Classes = None

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        return _pick(class_scores(outputs).values, self.index)

    def resolved(self, outputs: Any, context: Context) -> Category:
        return Category(_definite(self.index, outputs, context))


@dataclass(frozen=True)
class Probability:
    """The probability of a class: softmax of the scores, or for one logit and with `multi_label` the sigmoid."""

    index: Classes = None
    multi_label: bool = False

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        scores = class_scores(outputs)
        if scores.kind == "probabilities":
            return _pick(scores.values, self.index)
        sigmoid = self.multi_label or scores.kind == "one logit"
        return _pick(scores.values.sigmoid() if sigmoid else scores.values.softmax(1), self.index)

    def resolved(self, outputs: Any, context: Context) -> Probability:
        return Probability(_definite(self.index, outputs, context), self.multi_label)


@dataclass(frozen=True)
class Contrast:
    """A class against others: its score minus the mean of theirs; `against` is one, several, or None for all others."""

    index: Classes = None
    against: Classes = None

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        values = class_scores(outputs).values
        picked = _pick(values, self.index)
        if self.against is None:
            total = values.sum(1).reshape(-1, *[1] * (picked.ndim - 1))
            return picked - (total - picked) / (values.shape[1] - 1)
        others = values[:, torch.as_tensor(self.against, device=values.device)].mean(1)
        return picked - others.reshape(-1, *[1] * (picked.ndim - 1))

    def resolved(self, outputs: Any, context: Context) -> Contrast:
        index = _definite(self.index, outputs, context)
        if self.against is None:
            return Contrast(index)
        return Contrast(index, _others(self.against, class_scores(outputs).values, context.labels))


@dataclass(frozen=True)
class ClassScores:
    """Scores (B, K) and what they are."""

    values: Float[Tensor, "B K"]
    kind: Literal["scores", "one logit", "probabilities"]


def class_scores(outputs: Any) -> ClassScores:
    """The class scores (B, K) in a model's output; one logit of any trailing shape becomes two classes.

    Raises `OutputError`, listing keys and shapes, where there are none.
    """
    found = scores_tensor(outputs)
    values = found.flatten(1) if found.ndim > 1 else found[:, None]
    if values.shape[1] != found.shape[min(1, found.ndim - 1)] and found.ndim > 1:
        raise OutputError(
            "the model gives a score per class and place, not one per class.",
            got=f"an output of shape {tuple(found.shape)}",
            expected="(B, K), with trailing dimensions of 1 or none",
            do=advice(outputs, "pass Region(category) or Pixel(category, row, column) as target, or a function"),
        )
    last = _last_operation(found)
    if values.shape[1] == 1:
        if last == "Sigmoid":
            return ClassScores(torch.cat([1 - values, values], 1), "probabilities")
        return ClassScores(torch.cat([-values, values], 1), "one logit")
    return ClassScores(values, "probabilities" if last in ("Softmax", "Sigmoid") else "scores")


def _definite(classes: Classes, outputs: Any, context: Context) -> Int[Tensor, "B *T"]:
    """`classes` as indices; None is the class that `outputs` predict, so that it stays when the image is changed later.

    Raises `TargetError` for a class out of range, an unknown label or a wrong count, `TargetTypeError` for a boolean
    or a float, `OutputError` for the predicted class of an embedding.
    """
    if classes is None and (context.embeds or context.encode is not None):
        raise _is_an_embedding(outputs)
    scores = class_scores(outputs)
    if scores.values.shape[0] != context.batch:
        raise OutputError(
            "the model's output does not have one row per image.",
            got=f"scores of shape {tuple(scores.values.shape)} for {context.batch} images",
            do="pass a function of the output as target that returns a score per image",
        )
    if classes is not None:
        return indices(classes, scores.values, context.labels)
    if _has_unit_length(scores):
        raise _is_an_embedding(outputs)
    return scores.values.argmax(1)


def _is_an_embedding(outputs: Any) -> OutputError:
    return OutputError(
        "the model gives an embedding, and its dimensions are not classes: none is the predicted one.",
        got=described(outputs),
        do='pass Similarity(embedding) as target, or Text("...") for a model with a text side',
    )


def _has_unit_length(scores: ClassScores) -> bool:
    """Whether every row is a vector of length 1, with a negative number in it: what normalised embeddings are."""
    if scores.kind != "scores" or scores.values.shape[1] < 3:
        return False
    values = scores.values.detach()
    lengths = torch.linalg.vector_norm(values.float(), dim=1)
    rounding = 4 * torch.finfo(values.dtype).eps
    return bool(((lengths - 1).abs() <= rounding).all() & (values < 0).any(1).all())


def find_label(text: str, labels: Sequence[str] | None) -> int:
    """The index of the class called `text`: by its whole label, one of its comma-separated names, a word, a part."""
    if labels is None:
        raise TargetError(
            "the class was given by name, and the names are not known.",
            got=repr(text),
            do="pass its index, or labels=[...] with a name per class",
        )
    wanted = text.casefold().strip()
    names = [[name.strip() for name in label.casefold().split(",")] for label in labels]
    tests: list[Callable[[int], bool]] = [
        lambda i: labels[i].casefold().strip() == wanted,
        lambda i: wanted in names[i],
        lambda i: re.search(rf"\b{re.escape(wanted)}\b", labels[i].casefold()) is not None,
        lambda i: wanted in labels[i].casefold(),
    ]
    for fits in tests:
        found = [index for index in range(len(labels)) if wanted and fits(index)]
        if len(found) == 1:
            return found[0]
        if found:
            some = ", ".join(f"{index} ({labels[index]})" for index in found[:5])
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            raise TargetError(
                f"the label {text!r} fits several classes.", got=some + more, do="pass one of the indices"
            )
    raise TargetError(f"no class is called {text!r}.", expected=f"one of the {len(labels)} labels, or a part of one")


def _last_operation(tensor: Tensor) -> str:
    """The name of the operation that made `tensor`, changes of shape left out: "Sigmoid", "Addmm", ..."""
    node = tensor.grad_fn
    while node is not None:
        name = node.name().partition("Backward")[0]
        if name not in _SHAPE_ONLY:
            return name.lstrip("_")
        node = node.next_functions[0][0]
    return ""


def _pick(values: Float[Tensor, "B K"], index: Any) -> Float[Tensor, "B *T"]:
    index = values.argmax(1) if index is None else torch.as_tensor(index, device=values.device)
    if index.ndim == 0:
        return values[:, index]
    if index.ndim == 1:
        return values.gather(1, index[:, None]).squeeze(1)
    return values.gather(1, index)


def indices(classes: Any, values: Float[Tensor, "B K"], labels: Sequence[str] | None) -> Int[Tensor, "B *T"]:
    """One class, a class per image, or T per image, as indices (B,) or (B, T) in range."""
    return per_image(_in_range(numbers(classes, labels), values), values.shape[0])


def per_image(index: Int[Tensor, "*shape"], batch: int) -> Int[Tensor, "B *T"]:
    """A number for all images, for each, or T for each: (B,) or (B, T)."""
    if index.ndim == 0:
        return index.expand(batch)
    if index.ndim > 2 or index.shape[0] != batch or index.numel() == 0:
        raise TargetError(
            "the number of targets does not match the batch.",
            got=f"targets of shape {tuple(index.shape)} for {batch} image{'s'[: batch != 1]}",
            expected=f"one class, ({batch},) of them, or ({batch}, T) for T classes per image",
        )
    return index


def numbers(classes: Any, labels: Sequence[str] | None) -> Int[Tensor, "*shape"]:
    """Indices and labels, in whatever nesting of equal lengths, as indices."""
    if isinstance(classes, Tensor | np.ndarray):
        index = torch.as_tensor(classes)
        if index.dtype == torch.bool or index.is_floating_point() or index.is_complex():
            raise _not_an_index(index.dtype)
        return index.detach().long()
    rows = _read(classes, labels)
    widths = {len(row) if isinstance(row, list) else None for row in rows} if isinstance(rows, list) else {None}
    if len(widths) > 1:
        raise TargetError("the images have different numbers of targets.", got=classes, expected="the same T for each")
    return torch.tensor(rows, dtype=torch.long)


def _others(classes: Any, values: Float[Tensor, "B K"], labels: Sequence[str] | None) -> Int[Tensor, " A"]:
    """The classes to compare with, the same for every image."""
    index = _in_range(numbers(classes, labels), values).reshape(-1)
    if index.numel() == 0:
        raise TargetError(
            "there is no class to compare with.", got="an empty list", do="pass against=None for all others"
        )
    return index


def _in_range(index: Int[Tensor, "*shape"], values: Float[Tensor, "B K"]) -> Int[Tensor, "*shape"]:
    """`index` on the device of `values`, if each of it is one of the K."""
    count = values.shape[1]
    if index.numel() and not (index.min() >= 0 and index.max() < count):
        wrong = int(index.min()) if int(index.min()) < 0 else int(index.max())
        raise TargetError(
            f"class {wrong} is out of range.", got=wrong, expected=f"0 to {count - 1}: the model gives {count} scores"
        )
    return index.to(values.device)


def _read(classes: Any, labels: Sequence[str] | None) -> Any:
    if isinstance(classes, str):
        return find_label(classes, labels)
    if isinstance(classes, list | tuple):
        return [_read(entry, labels) for entry in classes]
    if isinstance(classes, bool):
        raise _not_an_index("bool")
    try:
        return operator.index(classes)
    except TypeError:
        raise _not_an_index(type(classes).__name__) from None


def _not_an_index(kind: object) -> TargetTypeError:
    return TargetTypeError(
        "a class is given by an integer index or a label.",
        got=kind,
        expected="int, str, a list of them, or an integer tensor (B,) or (B, T)",
        do="convert it, or pass a function of the output",
    )
