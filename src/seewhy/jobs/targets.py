"""The rule for what is explained of each sample, as the plan writes it down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import InputError
from seewhy.jobs.sources.base import Sample
from seewhy.targets import Category, Context, class_name, class_scores, matching_labels

LABEL = "label"  # the class that the sample is of
_TOP = "top:"  # the K most likely classes


@dataclass(frozen=True)
class Top:
    """The `count` most likely classes of each image."""

    count: int

    def resolved(self, outputs: Any, context: Context) -> Category:  # noqa: ARG002
        """The target for these outputs."""
        scores = class_scores(outputs)
        return Category(scores.values.topk(min(self.count, scores.values.shape[1]), 1).indices, scores.kind)


def written(target: Any) -> Any:
    """A target rule as JSON: None, a class, a list of classes, "label", "top:5"; of an object its `repr`."""
    if isinstance(target, Tensor):
        target = target.tolist()
    if isinstance(target, list | tuple):
        return [written(each) for each in target]
    return target if target is None or isinstance(target, str | int) else repr(target)


def of_samples(rule: Any, samples: Sequence[Sample], classes: Sequence[str] | None) -> Any:
    """What to explain of a batch of samples.

    Args:
        rule: None for the predicted class, "label" for the sample's own, "top:K" for the K most likely ones, a class
            or a list of classes for all samples, or any other target.
        samples: of one batch.
        classes: the names of the model's classes.

    Returns:
        A target as `Explainer` takes it.

    Raises:
        InputError: for a sample without a label that the model knows.
    """
    if rule == LABEL:
        return torch.tensor([_index(sample, classes) for sample in samples])
    if isinstance(rule, str) and rule.startswith(_TOP) and rule.removeprefix(_TOP).isdecimal():
        return Top(int(rule.removeprefix(_TOP)))
    if isinstance(rule, list | tuple):
        return [list(rule)] * len(samples)
    return rule


def label_named(label: str | int | None, kind: Any, classes: Sequence[str] | None) -> str | None:
    """A sample's label in the words of the table: the name of the class that it means, where that is known."""
    if label is None:
        return None
    index = _index_of(label, classes)
    return str(label) if index is None else class_name(index, kind, classes)


def _index_of(label: str | int, classes: Sequence[str] | None) -> int | None:
    """The class that a label means, by its number or its name; None where that is not known, or not sure."""
    if isinstance(label, int):
        return label
    if classes is None:
        return None
    found = _meant(label, tuple(classes))
    return found[0] if len(found) == 1 else None


@lru_cache(maxsize=4096)
def _meant(label: str, classes: tuple[str, ...]) -> list[int]:
    return matching_labels(label, classes)


def _index(sample: Sample, classes: Sequence[str] | None) -> int:
    index = None if sample.label is None else _index_of(sample.label, classes)
    if index is None:
        raise InputError(
            f"{sample.key}: its label is no class of the model.",
            got=repr(sample.label),
            expected="one of the model's labels" if classes else "the model's labels, which are not known",
        )
    return index
