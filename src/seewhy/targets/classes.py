"""Class scores: which class, its score, its probability, its score against others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.errors import OutputError, TargetError
from seewhy.hooks.nested import described
from seewhy.targets.base import BaseTarget
from seewhy.targets.context import Context
from seewhy.targets.indices import Classes, as_indices, columns
from seewhy.targets.outputs import advice, scores_tensor

# what a model's scores are; those of a single output have two columns, the negative side and the positive one
Kind = Literal["scores", "probabilities", "one logit", "one probability", "one value"]

_SHAPE_ONLY = ("View", "UnsafeView", "Reshape", "Squeeze", "Unsqueeze", "Select", "Slice", "Alias", "Clone", "ToCopy")


@dataclass(frozen=True)
class ClassScores:
    """Scores, and what they are.

    Attributes:
        values: (B, K), or (B, K, *space) of a model that scores every place.
        kind: where it begins with "one", the model has a single output, and K = 2: its negative side and itself.
    """

    values: Float[Tensor, "B K *space"]
    kind: Kind

    @property
    def single(self) -> bool:
        """Whether the model has a single output."""
        return self.kind.startswith("one")

    @property
    def likely(self) -> Float[Tensor, "B K *space"]:
        """The probability of each class: the softmax, or for one logit the sigmoid."""
        if self.kind in ("probabilities", "one probability"):
            return self.values
        return self.values.sigmoid() if self.single else self.values.softmax(1)

    @property
    def predicted(self) -> Int[Tensor, " B"]:
        """The class with the highest score; a regression has a value and no other side."""
        highest = self.values.argmax(1)
        return torch.ones_like(highest) if self.kind == "one value" else highest

    def names(self, labels: Sequence[str] | None) -> list[str]:
        """What the columns are called: see `class_name`."""
        return [class_name(index, self.kind, labels) for index in range(self.values.shape[1])]


class ClassTarget(BaseTarget):
    """A target about the classes `index`, which is definite as soon as `kind` says what the scores are."""

    index: Any
    kind: Kind | None

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        scores = class_scores(outputs, self.kind)
        if self.kind is None:
            return self.resolved(outputs, Context(len(scores.values)))(outputs)
        return self._score(scores)

    @abstractmethod
    def _score(self, scores: ClassScores) -> Float[Tensor, "B *T"]:
        """The scores of a definite target."""

    def classes(self) -> Any:
        """The indices of the classes; for a single output 1 is the output itself and 0 its other side."""
        return self.index

    def one_of(self, number: int) -> ClassTarget:
        """The same about the class number `number` of each image."""
        of_any: Any = self  # its subclasses are dataclasses
        one: ClassTarget = replace(of_any, index=self.index[:, number])
        return one

    def probabilities(self, outputs: Any) -> Float[Tensor, "B *T"] | None:
        """See `Probability`; None for a regression."""
        return None if self.kind == "one value" else Probability(self.index, kind=self.kind)(outputs)

    def describe(self, labels: Sequence[str] | None = None, image: int = 0, number: int | None = None) -> str:
        """The class's label; for a single output which side of it: see `class_name`."""
        index = entry(self.index, image, number)
        return "" if index is None else class_name(index, self.kind, labels)


@dataclass(frozen=True)
class Category(ClassTarget):
    """The score of a class as the model gives it, before any softmax of ours.

    A model with a single output has one class, the output itself, whether it is called 0, 1 or by its only label. Only
    where there are two labels does 0, or the first of them, mean the negative side: the score is the negative of the
    logit, or 1 - p where the model ends in a sigmoid. None is the predicted class, for one logit the predicted side.

    Args:
        index: an index or a label; one per image, (B,); T per image, (B, T); or None for the class predicted.
        kind: what the scores are. Filled in when the target is resolved.

    Raises:
        TargetError: on the call, for a class out of range, an unknown label, or a number of them that does not fit.
        TargetTypeError: on the call, for what is neither an index nor a label.
        OutputError: on the call, if the model gives no class scores.

    Examples:
        >>> import torch
        >>> Category(2)(torch.tensor([[1.0, 4.0, 3.0]]))
        tensor([3.])
        >>> Category([[0, 2]])(torch.tensor([[1.0, 4.0, 3.0]]))
        tensor([[1., 3.]])
    """

    index: Classes = None
    kind: Kind | None = field(default=None, repr=False, compare=False)

    def _score(self, scores: ClassScores) -> Float[Tensor, "B *T"]:
        return _pick(scores.values, self.index)

    def resolved(self, outputs: Any, context: Context) -> Category:
        """The same, with the index of each image and what the scores are."""
        index, kind = _definite(self, outputs, context)
        return Category(index, kind)


@dataclass(frozen=True)
class Probability(ClassTarget):
    """The probability of a class: the softmax of the scores, or for one logit the sigmoid.

    A model that ends in a softmax or sigmoid gives it already.

    Args:
        index: as for `Category`.
        multi_label: whether the classes do not exclude each other. Each has the sigmoid of its score then.
        kind: what the scores are. Filled in when the target is resolved.

    Raises:
        TargetError: on the call, as `Category`, and for a regression, whose output is no logit.

    Examples:
        >>> import torch
        >>> Probability(0)(torch.tensor([[0.0, 0.0]]))
        tensor([0.5000])
        >>> Probability(1, multi_label=True)(torch.tensor([[5.0, 0.0, 7.0]]))
        tensor([0.5000])
    """

    index: Classes = None
    multi_label: bool = False
    kind: Kind | None = field(default=None, repr=False, compare=False)

    def _score(self, scores: ClassScores) -> Float[Tensor, "B *T"]:
        sigmoid = self.multi_label and scores.kind == "scores"
        return _pick(scores.values.sigmoid() if sigmoid else scores.likely, self.index)

    def resolved(self, outputs: Any, context: Context) -> Probability:
        """The same, with the index of each image and what the scores are."""
        index, kind = _definite(self, outputs, context)
        if kind == "one value":
            raise TargetError("a regression gives a value, not a probability.", do="leave target out, or pass 0")
        return replace(self, index=index, kind=kind)

    def probabilities(self, outputs: Any) -> Float[Tensor, "B *T"] | None:
        """The scores themselves."""
        return self(outputs)

    def describe(self, labels: Sequence[str] | None = None, image: int = 0, number: int | None = None) -> str:
        """The class's label, and that it is its probability."""
        name = super().describe(labels, image, number)
        return name and f"probability of {name}"


@dataclass(frozen=True)
class Contrast(ClassTarget):
    """The score of a class minus the mean score of others.

    Args:
        index: as for `Category`.
        against: the classes to compare with, the same for every image: one, several, or None for all others.
        kind: what the scores are. Filled in when the target is resolved.

    Raises:
        TargetError: on the call, as `Category`, for an empty `against`, and for one where there is a single output.

    Examples:
        >>> import torch
        >>> Contrast(1, against=0)(torch.tensor([[1.0, 4.0, 3.0]]))
        tensor([3.])
        >>> Contrast(1)(torch.tensor([[1.0, 4.0, 3.0]]))
        tensor([2.])
    """

    index: Classes = None
    against: Classes = None
    kind: Kind | None = field(default=None, repr=False, compare=False)

    def _score(self, scores: ClassScores) -> Float[Tensor, "B *T"]:
        values = scores.values
        picked = _pick(values, self.index)
        ones = [1] * (picked.ndim - 1)
        if not isinstance(self.against, Tensor):
            return picked - (values.sum(1).reshape(-1, *ones) - picked) / (values.shape[1] - 1)
        return picked - values.gather(1, self.against).mean(1).reshape(-1, *ones)

    def resolved(self, outputs: Any, context: Context) -> Contrast:
        """The same, with the classes to compare with for each image: (B, A)."""
        index, kind = _definite(self, outputs, context)
        if self.against is None or self.kind is not None:
            return replace(self, index=index, kind=kind)
        return Contrast(index, _others(self.against, class_scores(outputs, kind), context.labels), kind)

    def describe(self, labels: Sequence[str] | None = None, image: int = 0, number: int | None = None) -> str:
        """The class's label, and those of the others."""
        name = super().describe(labels, image, number)
        others = "its opposite" if (self.kind or "").startswith("one") else "all others"
        if isinstance(self.against, Tensor):
            others = _listed(self.against[image].tolist(), self.kind, labels)
        return name and f"{name} against {others}"


@dataclass(frozen=True)
class Finer(ClassTarget):
    """A class against the ones most like it in the same image: y_c - strength * mean of their scores.

    That is what Finer-CAM explains (Zhang et al. 2025, arXiv:2501.11309); `finer` finds the classes.

    Args:
        index: the class of each image and target.
        against: N classes to compare it with.
        kind: what the scores are.
        strength: how much the others count.
    """

    index: Int[Tensor, "B *T"]
    against: Int[Tensor, "B *T N"]
    kind: Kind | None = field(repr=False, compare=False)
    strength: float = 1.0

    def _score(self, scores: ClassScores) -> Float[Tensor, "B *T"]:
        others = scores.values.gather(1, self.against.flatten(1)).reshape(self.against.shape).mean(-1)
        return _pick(scores.values, self.index) - self.strength * others

    def describe(self, labels: Sequence[str] | None = None, image: int = 0, number: int | None = None) -> str:
        """The class's label, and those of the others."""
        name = super().describe(labels, image, number)
        others = self.against[image] if number is None else self.against[image, number]
        return name and f"{name} against {_listed(others.tolist(), self.kind, labels)}"


def finer(target: Any, outputs: Any, *, count: int = 3, strength: float = 1.0) -> Finer:
    """A class against those whose scores are nearest to its own.

    Args:
        target: a resolved `Category`.
        outputs: what the model returned.
        count: how many classes to compare it with.
        strength: how much they count.

    Raises:
        TargetError: for any other target. Only classes can be compared.
    """
    if not isinstance(target, Category):
        raise TargetError(
            "only a class can be compared with the classes most like it.",
            got=type(getattr(target, "function", target)).__name__,
            expected="a class, or none for the predicted one",
            do="for other targets use the base method, or Contrast",
        )
    scores = class_scores(outputs, target.kind)
    values = scores.values.detach()
    index = torch.as_tensor(target.index)
    chosen = index.reshape(values.shape[0], -1)
    distance = (values[:, None] - values.gather(1, chosen)[..., None]).abs()
    nearest = distance.scatter(2, chosen[..., None], torch.inf).sort(dim=-1, stable=True).indices
    nearest = nearest[..., : min(count, values.shape[1] - 1)].reshape(*index.shape, -1)
    return Finer(index, nearest, scores.kind, strength)


def class_scores(outputs: Any, kind: Kind | None = None) -> ClassScores:
    """The class scores (B, K) in a model's output; a single output becomes two columns.

    Args:
        outputs: what the model returned. Dimensions of 1 beside B and K are left out.
        kind: what kind they are. None tells it from the operation that made them, which only an output with a graph
            shows.

    Raises:
        OutputError: where there are none, with the keys and shapes of what there is.
    """
    found = scores_tensor(outputs)
    if sum(side > 1 for side in found.shape[1:]) > 1:
        raise OutputError(
            "the model gives a score per class and place, not one per class.",
            got=f"an output of shape {tuple(found.shape)}",
            expected="(B, K), with other dimensions of 1 or none",
            do=advice(outputs, "pass Region(category) or Pixel(category, row, column) as target, or a function"),
        )
    return scores_of(found, found.flatten(1) if found.ndim > 1 else found[:, None], kind)


def scores_of(found: Tensor, values: Float[Tensor, "B K *space"], kind: Kind | None) -> ClassScores:
    """The scores in `values`, a view of the model's output `found`; a single column becomes two."""
    single = values.shape[1] == 1
    if kind is None:
        bounded = _last_operation(found) in (("Sigmoid",) if single else ("Softmax", "Sigmoid"))
        kind = "one probability" if single else "probabilities"
        if not bounded:
            kind = "one logit" if single else "scores"
    if single:
        values = torch.cat([1 - values if kind == "one probability" else -values, values], 1)
    return ClassScores(values, kind)


def class_name(index: int, kind: Kind | None, labels: Sequence[str] | None) -> str:
    """What a class is called, or a side of a single output.

    Args:
        index: the class; of a single output 1 for the output itself, 0 for the other side.
        kind: what the model's scores are.
        labels: a name per class. For a single output, one name is that of the positive side, and two are those of both.

    Examples:
        >>> class_name(1, "scores", ["cat", "dog"]), class_name(7, "scores", None)
        ('dog', 'class 7')
        >>> class_name(1, "one logit", ["nodule"]), class_name(0, "one logit", ["nodule"])
        ('nodule', 'not nodule')
        >>> class_name(1, "one logit", None), class_name(0, "one logit", None)
        ('the output', 'minus the output')
    """
    labels = labels or ()
    if kind is None or not kind.startswith("one") or len(labels) == 2:
        return labels[index] if 0 <= index < len(labels) else f"class {index}"
    if len(labels) == 1:
        return labels[0] if index == 1 else f"not {labels[0]}"
    return "the output" if index == 1 else "1 - the output" if kind == "one probability" else "minus the output"


def _listed(indices: Sequence[int], kind: Kind | None, labels: Sequence[str] | None) -> str:
    return ", ".join(class_name(index, kind, labels) for index in indices)


def entry(index: Any, image: int, number: int | None) -> int | None:
    """One class of an `index` that is an int, (B,) or (B, T); None where it is not definite."""
    if isinstance(index, int):
        return index
    places = (image, number)[: getattr(index, "ndim", 0)]
    return None if not isinstance(index, Tensor) or not places or None in places else int(index[places])


def _definite(target: ClassTarget, outputs: Any, context: Context) -> tuple[Int[Tensor, "B *T"], Kind]:
    """The columns of the class scores that `target` is about, and the kind of scores they have.

    None is the class that `outputs` predict, so that it stays the same when the image is changed later. Raises
    `TargetError` for a class out of range, an unknown label or a wrong count, `TargetTypeError` for a boolean or a
    float, `OutputError` for the predicted class of an embedding.
    """
    classes = target.index
    if classes is None and (context.embeds or context.encode is not None):
        raise _is_an_embedding(outputs)
    scores = class_scores(outputs, target.kind)
    if scores.values.shape[0] != context.batch:
        raise OutputError(
            "the model's output does not have one row per image.",
            got=f"scores of shape {tuple(scores.values.shape)} for {context.batch} images",
            do="pass a function of the output as target that returns a score per image",
        )
    if scores.single and context.regression:
        scores = ClassScores(scores.values, "one value")
    if classes is not None:
        if target.kind is not None:  # sides of a single output are columns already
            return columns(classes, scores.values, None), scores.kind
        index = columns(classes, scores.values, context.labels, single=scores.single, distinct=True)
        return index, scores.kind
    if _has_unit_length(scores):
        raise _is_an_embedding(outputs)
    return scores.predicted, scores.kind


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
    return values.gather(1, index[:, None]).squeeze(1) if index.ndim == 1 else values.gather(1, index)


def _others(classes: Any, scores: ClassScores, labels: Sequence[str] | None) -> Int[Tensor, "B A"]:
    """The classes to compare with, the same for every image."""
    if scores.single and len(labels or ()) != 2:
        raise TargetError(
            "a model with a single output has no other class to compare with.",
            got=f"against={classes!r}",
            do="leave against out, or pass labels=[...] with a name of the negative side and of the positive one",
        )
    values = scores.values
    index = as_indices(classes, labels, values.shape[1]).reshape(-1)
    if index.numel() == 0:
        raise TargetError(
            "there is no class to compare with.", got="an empty list", do="pass against=None for all others"
        )
    return index.to(values.device).expand(len(values), -1)
