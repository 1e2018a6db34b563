"""What is explained: from a model's output to one score per image and target."""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.capture.nested import children, rebuild, tensors
from seewhy.errors import OutputError, TargetError, TargetTypeError

# an index, a label, one per image, or (B, T) for T per image; None is the predicted class
Classes = int | str | Sequence[Any] | Tensor | np.ndarray[Any, Any] | None
Target = Callable[[Any], Tensor]

Kind = Literal["scores", "one logit", "probabilities"]  # what a model's class scores are

_SCORE_KEYS = ("logits", "out", "scores", "pred", "prediction")
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
        others = values[:, torch.as_tensor(self.against, device=values.device)].mean(1)
        return picked - others.reshape(-1, *[1] * (picked.ndim - 1))


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


def finer(target: Target, outputs: Any, *, count: int = 3, strength: float = 1.0) -> Finer:
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
    """The class scores (B, K) in a model's output; one logit of any trailing shape becomes two classes.

    What kind they are is told from the operation that made them, which an output without a graph does not show; then
    it has to be given. Raises `OutputError`, listing keys and shapes, where there are none.
    """
    found = scores_tensor(outputs)
    values = found.flatten(1) if found.ndim > 1 else found[:, None]
    if values.shape[1] != found.shape[min(1, found.ndim - 1)] and found.ndim > 1:
        raise OutputError(
            "the model gives a score per class and place, not one per class.",
            got=f"an output of shape {tuple(found.shape)}",
            expected="(B, K), with trailing dimensions of 1 or none",
            do="pass a function of the output as target, such as lambda output: output[:, 3].mean((-2, -1))",
        )
    single = values.shape[1] == 1
    if kind is None:
        bounded = _last_operation(found) in (("Sigmoid",) if single else ("Softmax", "Sigmoid"))
        kind = "probabilities" if bounded else "one logit" if single else "scores"
    if single:
        values = torch.cat([1 - values if kind == "probabilities" else -values, values], 1)
    return ClassScores(values, kind)


def resolve(target: Classes | Target, outputs: Any, *, batch: int, labels: Sequence[str] | None = None) -> Target:
    """`target` made definite for these outputs: class targets hold an index per image, (B,) or (B, T).

    None becomes the class that `outputs` predict, so that it stays the same when the image is changed later.
    Raises `TargetError` for a class out of range, an unknown label or a wrong count, `TargetTypeError` for a boolean
    or a float.
    """
    if callable(target) and not isinstance(target, Category | Probability | Contrast):
        return target
    scores = class_scores(outputs)
    values, kind = scores.values, scores.kind
    if values.shape[0] != batch:
        raise OutputError(
            "the model's output does not have one row per image.",
            got=f"scores of shape {tuple(values.shape)} for {batch} images",
            do="pass a function of the output as target that returns a score per image",
        )
    if not isinstance(target, Category | Probability | Contrast):
        target = Category(target)
    index = values.argmax(1) if target.index is None else _indices(target.index, values, labels)
    if isinstance(target, Contrast) and target.against is not None:
        return Contrast(index, _others(target.against, values, labels), kind)
    return dataclasses.replace(target, index=index, kind=kind)


def for_rows(
    target: Target, outputs: Any, images: Int[Tensor, " N"], original: Any, batch: int
) -> Float[Tensor, "N *T"]:
    """The scores of N rows of `outputs`, row n by what a resolved `target` asks of image `images[n]`.

    A function is called with batches like the `original` outputs of `batch` images, which it was made for: rows stand
    in their image's place, and images without a row in this round keep what the model gave for them.
    """
    if isinstance(target, Category | Probability | Contrast | Finer):
        index = torch.as_tensor(target.index)
        images = images.to(index.device)
        if isinstance(target, Finer):
            target = dataclasses.replace(target, against=target.against[images])
        return dataclasses.replace(target, index=index[images])(outputs)
    turns = (images[:, None] == images).tril(-1).sum(1)  # the number of earlier rows of the same image
    scores, order = [], []
    for turn in range(int(turns.max()) + 1):
        rows = (turns == turn).nonzero()[:, 0]
        before = tensors(original)

        def in_place(after: Tensor, rows: Tensor = rows, before: Iterator[Tensor] = before) -> Tensor:
            kept = next(before).detach()
            per_image = after.ndim > 0 and after.shape[0] == len(images) and kept.shape[0] == batch
            return kept.index_copy(0, images[rows], after[rows].to(kept.dtype)) if per_image else after

        scores.append(checked(target(rebuild(outputs, in_place)), batch)[images[rows]])
        order.append(rows)
    return torch.cat(scores)[torch.cat(order).argsort()]


def probabilities(target: Target, outputs: Any) -> Float[Tensor, "B *T"] | None:
    """The probability of the classes of a resolved `target`; None for a function, which need not be about classes."""
    if not isinstance(target, Category | Probability | Contrast):
        return None
    return Probability(target.index, getattr(target, "multi_label", False))(outputs)


def checked(scores: Any, batch: int) -> Float[Tensor, "B *T"]:
    """What a target returned, if it is a score per image (and target): (B,) or (B, T); a scalar will do for B = 1."""
    if not isinstance(scores, Tensor):
        raise TargetTypeError("the target function did not return a tensor.", got=type(scores).__name__)
    found: Tensor = scores[None] if scores.ndim == 0 and batch == 1 else scores
    if found.ndim not in (1, 2) or found.shape[0] != batch or not found.is_floating_point():
        raise TargetError(
            "the target function did not return a score per image.",
            got=f"{scores.dtype} of shape {tuple(scores.shape)}",
            expected=f"floating point of shape ({batch},), or ({batch}, T) for T targets",
        )
    return found


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


def scores_tensor(outputs: Any) -> Tensor:
    """The tensor of class scores in a model's output, as it stands there. Raises `OutputError` if it cannot be told."""
    if isinstance(outputs, Tensor) and outputs.ndim > 0:
        return outputs
    entries: dict[Any, Any] = dict(children(outputs))
    if isinstance(outputs, Mapping) or not isinstance(outputs, tuple | list):
        for key in _SCORE_KEYS:
            if isinstance(found := entries.get(key), Tensor):
                return found
    floats = [entry for entry in entries.values() if isinstance(entry, Tensor) and entry.is_floating_point()]
    if len(floats) == 1:
        return floats[0]
    shapes = ", ".join(
        f"{key!r}: {tuple(entry.shape) if isinstance(entry, Tensor) else type(entry).__name__}"
        for key, entry in entries.items()
    )
    raise OutputError(
        "the class scores were not found in the model's output.",
        got=f"{type(outputs).__name__} with {shapes or 'nothing in it'}",
        expected="a tensor, a container with one tensor, or an entry called " + ", ".join(map(repr, _SCORE_KEYS)),
        do="pass a function of the output as target, such as lambda output: output['scores'][:, 3]",
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


def _indices(classes: Any, values: Float[Tensor, "B K"], labels: Sequence[str] | None) -> Int[Tensor, "B *T"]:
    """One class, a class per image, or T per image, as indices (B,) or (B, T) in range."""
    batch = values.shape[0]
    index = _numbers(classes, values, labels)
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


def _others(classes: Any, values: Float[Tensor, "B K"], labels: Sequence[str] | None) -> Int[Tensor, " A"]:
    """The classes to compare with, the same for every image."""
    index = _numbers(classes, values, labels).reshape(-1)
    if index.numel() == 0:
        raise TargetError(
            "there is no class to compare with.", got="an empty list", do="pass against=None for all others"
        )
    return index


def _numbers(classes: Any, values: Float[Tensor, "B K"], labels: Sequence[str] | None) -> Int[Tensor, "*shape"]:
    """Classes of any form and shape as indices that are in range."""
    rows = classes.tolist() if isinstance(classes, Tensor | np.ndarray) else classes
    numbers = _read(rows, values.shape[1], labels)
    try:
        return torch.tensor(numbers, dtype=torch.long, device=values.device)
    except (ValueError, TypeError):  # torch's words on nested lists of different lengths
        problem = "the images have different numbers of targets."
        raise TargetError(problem, got=rows, expected="the same T for each") from None


def _read(classes: Any, count: int, labels: Sequence[str] | None) -> Any:
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
    if not 0 <= number < count:
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
