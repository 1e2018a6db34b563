"""Class scores: which class, its score, its probability, its score against others."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.errors import OutputError, TargetError, TargetTypeError
from seewhy.hooks.nested import described
from seewhy.targets.context import Context
from seewhy.targets.outputs import advice, scores_tensor

# an index, a label, one per image, or (B, T) for T per image; None is the predicted class
Classes = int | str | Sequence[Any] | Tensor | np.ndarray[Any, Any] | None

Kind = Literal["scores", "one logit", "probabilities"]  # what a model's class scores are

_SHAPE_ONLY = ("View", "UnsafeView", "Reshape", "Squeeze", "Unsqueeze", "Select", "Slice", "Alias", "Clone", "ToCopy")


@dataclass(frozen=True)
class Category:
    """The score of a class as the model gives it, before any softmax of ours.

    A model with one logit has two classes: 1, whose score is the logit, and 0, whose score is its negative (for a model
    that ends in a sigmoid: p and 1 - p).
    """

    index: Classes = None
    kind: Kind | None = field(default=None, repr=False, compare=False)  # filled in by `resolve`

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        return _pick(class_scores(outputs, self.kind).values, self.index)

    def resolved(self, outputs: Any, context: Context) -> Category:
        return Category(*_definite(self.index, outputs, context))


@dataclass(frozen=True)
class Probability:
    """The probability of a class: softmax of the scores, or for one logit and with `multi_label` the sigmoid."""

    index: Classes = None
    multi_label: bool = False
    kind: Kind | None = field(default=None, repr=False, compare=False)  # filled in by `resolve`

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        scores = class_scores(outputs, self.kind)
        if scores.kind == "probabilities":
            return _pick(scores.values, self.index)
        sigmoid = self.multi_label or scores.kind == "one logit"
        return _pick(scores.values.sigmoid() if sigmoid else scores.values.softmax(1), self.index)

    def resolved(self, outputs: Any, context: Context) -> Probability:
        index, kind = _definite(self.index, outputs, context)
        return Probability(index, self.multi_label, kind)


@dataclass(frozen=True)
class Contrast:
    """A class against others: its score minus the mean of theirs; `against` is one, several, or None for all others."""

    index: Classes = None
    against: Classes = None
    kind: Kind | None = field(default=None, repr=False, compare=False)  # filled in by `resolve`

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        values = class_scores(outputs, self.kind).values
        picked = _pick(values, self.index)
        if self.against is None:
            total = values.sum(1).reshape(-1, *[1] * (picked.ndim - 1))
            return picked - (total - picked) / (values.shape[1] - 1)
        against = torch.as_tensor(self.against, device=values.device)
        others = values.gather(1, against.reshape(-1, against.shape[-1]).expand(len(values), -1)).mean(1)
        return picked - others.reshape(-1, *[1] * (picked.ndim - 1))

    def resolved(self, outputs: Any, context: Context) -> Contrast:
        """With the classes to compare with for each image: (B, A)."""
        index, kind = _definite(self.index, outputs, context)
        if self.against is None:
            return Contrast(index, None, kind)
        return Contrast(index, _others(self.against, class_scores(outputs, kind).values, context.labels), kind)


@dataclass(frozen=True)
class Finer:
    """A class against the ones most like it in the same image: y_c - strength * mean of their scores.

    That is what Finer-CAM explains (Zhang et al. 2025, arXiv:2501.11309); `finer` finds the classes.
    """

    index: Int[Tensor, "B *T"]
    against: Int[Tensor, "B *T N"]
    strength: float = 1.0
    kind: Kind | None = field(default=None, repr=False, compare=False)

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        values = class_scores(outputs, self.kind).values
        others = values.gather(1, self.against.flatten(1)).reshape(self.against.shape).mean(-1)
        return _pick(values, self.index) - self.strength * others


def finer(target: Any, outputs: Any, *, count: int = 3, strength: float = 1.0) -> Finer:
    """`target`, a resolved `Category`, against the `count` classes whose scores are nearest to its own.

    Raises `TargetError` for any other target: only classes can be compared.
    """
    if not isinstance(target, Category):
        raise TargetError(
            "only a class can be compared with the classes most like it.",
            got=type(target).__name__,
            expected="a class, or none for the predicted one",
            do="for other targets use the base method, or Contrast",
        )
    values = class_scores(outputs, target.kind).values.detach()
    index = torch.as_tensor(target.index)
    chosen = index.reshape(len(values), -1)
    distance = (values[:, None] - values.gather(1, chosen)[..., None]).abs()
    nearest = distance.scatter(2, chosen[..., None], torch.inf).sort(dim=-1, stable=True).indices
    nearest = nearest[..., : min(count, values.shape[1] - 1)].reshape(*index.shape, -1)
    return Finer(index, nearest, strength, target.kind)


@dataclass(frozen=True)
class ClassScores:
    """Scores (B, K) and what they are."""

    values: Float[Tensor, "B K"]
    kind: Kind


def class_scores(outputs: Any, kind: Kind | None = None) -> ClassScores:
    """The class scores (B, K) in a model's output, dimensions of 1 left out; one logit becomes two classes.

    What kind they are is told from the operation that made them, which an output without a graph does not show; then
    it has to be given. Raises `OutputError`, listing keys and shapes, where there are none.
    """
    found = scores_tensor(outputs)
    values = found.flatten(1) if found.ndim > 1 else found[:, None]
    if sum(side > 1 for side in found.shape[1:]) > 1:
        raise OutputError(
            "the model gives a score per class and place, not one per class.",
            got=f"an output of shape {tuple(found.shape)}",
            expected="(B, K), with other dimensions of 1 or none",
            do=advice(outputs, "pass Region(category) or Pixel(category, row, column) as target, or a function"),
        )
    single = values.shape[1] == 1
    if kind is None:
        bounded = _last_operation(found) in (("Sigmoid",) if single else ("Softmax", "Sigmoid"))
        kind = "probabilities" if bounded else "one logit" if single else "scores"
    if single:
        values = torch.cat([1 - values if kind == "probabilities" else -values, values], 1)
    return ClassScores(values, kind)


def _definite(classes: Classes, outputs: Any, context: Context) -> tuple[Int[Tensor, "B *T"], Kind]:
    """`classes` as indices, and the kind of scores they have.

    None is the class that `outputs` predict, so that it stays the same when the image is changed later. Raises
    `TargetError` for a class out of range, an unknown label or a wrong count, `TargetTypeError` for a boolean or a
    float, `OutputError` for the predicted class of an embedding.
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
        return indices(classes, scores.values, context.labels), scores.kind
    if _has_unit_length(scores):
        raise _is_an_embedding(outputs)
    return scores.values.argmax(1), scores.kind


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
    known = ", ".join(labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
    raise TargetError(
        f"no class is called {text!r}.", expected=f"one of the {len(labels)} labels, or a part of one: {known}"
    )


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
    return per_image(numbers(classes, labels, values.shape[1]).to(values.device), values.shape[0])


def per_image(index: Int[Tensor, "*shape"], batch: int) -> Int[Tensor, "B *T"]:
    """A number for all images, for each, or T for each: (B,) or (B, T)."""
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


def _others(classes: Any, values: Float[Tensor, "B K"], labels: Sequence[str] | None) -> Int[Tensor, "B A"]:
    """The classes to compare with, the same for every image."""
    index = numbers(classes, labels, values.shape[1]).reshape(-1)
    if index.numel() == 0:
        raise TargetError(
            "there is no class to compare with.", got="an empty list", do="pass against=None for all others"
        )
    return index.to(values.device).expand(len(values), -1)


def numbers(classes: Any, labels: Sequence[str] | None, count: int | None = None) -> Int[Tensor, "*shape"]:
    """Indices and labels, in whatever nesting of equal lengths, as indices; below `count`, where that is known."""
    rows = classes.tolist() if isinstance(classes, Tensor | np.ndarray) else classes
    read = _read(rows, count, labels)
    try:
        return torch.tensor(read, dtype=torch.long)
    except (ValueError, TypeError):  # torch's words on nested lists of different lengths
        problem = "the images have different numbers of targets."
        raise TargetError(problem, got=rows, expected="the same T for each") from None


def _read(classes: Any, count: int | None, labels: Sequence[str] | None) -> Any:
    """Each entry of nested lists as an index below `count`."""
    if isinstance(classes, list | tuple):
        return [_read(entry, count, labels) for entry in classes]
    if isinstance(classes, str):
        number = find_label(classes, labels)
    elif isinstance(classes, bool | np.bool_) or (isinstance(classes, Tensor) and classes.dtype == torch.bool):
        raise _not_an_index("bool")
    else:
        try:
            number = operator.index(classes)
        except TypeError:
            raise _not_an_index(type(classes).__name__) from None
    if count is not None and not 0 <= number < count:
        expected = f"0 to {count - 1}: the model gives {count} scores"
        raise TargetError(f"class {number} is out of range.", got=number, expected=expected)
    return number


def _not_an_index(kind: object) -> TargetTypeError:
    return TargetTypeError(
        "a class is given by an integer index or a label.",
        got=kind,
        expected="int, str, a list of them, or an integer tensor (B,) or (B, T)",
        do="convert it, or pass a function of the output",
    )
