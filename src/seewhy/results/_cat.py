"""Explanations of several batches as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import InputError
from seewhy.hooks.nested import rebuild, tensors
from seewhy.results.explanation import Explanation


def cat(explanations: Sequence[Explanation]) -> Explanation:
    """The explanations of several batches as the explanation of one batch, in the order given.

    Args:
        explanations: of one model, made with one method at the same layers, for inputs of one size.

    Returns:
        The explanation of all images. Its note holds each different note once.

    Raises:
        InputError: if there are none, or if they differ in anything that the images of one batch share.
    """
    if not explanations:
        raise InputError("there is nothing to join.", got="no explanations")
    first = explanations[0]
    for other in explanations:
        for what in ("method", "layers", "size", "fuse", "labels", "placements", "input"):
            if getattr(other, what) != getattr(first, what):
                raise _different(what, getattr(first, what), getattr(other, what))
        for name, grid in other.maps.items():
            if grid.shape[1:] != first.maps[name].shape[1:]:
                raise _different(f"maps of {name}", tuple(first.maps[name].shape[1:]), tuple(grid.shape[1:]))
    return dataclasses.replace(
        first,
        maps={name: torch.cat([each.maps[name] for each in explanations]) for name in first.maps},
        scores=torch.cat([each.scores for each in explanations]),
        outputs=_joined("outputs", explanations),
        targets=_joined("targets", explanations),
        probabilities=_joined("probabilities", explanations),
        frames=_listed("frames", explanations),
        extents=_listed("extents", explanations),
        photos=_listed("photos", explanations),
        files=_listed("files", explanations),
        gap=_joined("gap", explanations),
        doubts={name: _doubted(name, explanations) for each in explanations for name in each.doubts},
        others={name: cat([each.others[name] for each in explanations]) for name in first.others},
        note=" ".join(dict.fromkeys(each.note for each in explanations)),
    )


def _joined(what: str, explanations: Sequence[Explanation]) -> Any:
    """A structure of tensors with a row per image, joined; what has no such tensors has to be the same in all."""
    parts = [getattr(each, what) for each in explanations]
    if all(isinstance(part, list) for part in parts):  # a detector's outputs, one per image
        return [entry for part in parts for entry in part]
    forms = [rebuild(part, lambda _: "a tensor") for part in parts]  # what is left if the tensors may differ
    for form in forms:
        if type(form) is not type(forms[0]) or form != forms[0]:
            raise _different(what, _described(forms[0]), _described(form))
    rows = zip(*(tensors(part) for part in parts), strict=True)

    def join(tensor: Tensor) -> Tensor:
        every = next(rows)
        per_image = tensor.ndim > 0 and all(len(row) == len(of) for row, of in zip(every, explanations, strict=True))
        return torch.cat(every) if per_image else tensor

    return rebuild(parts[0], join)


def _listed(what: str, explanations: Sequence[Explanation]) -> tuple[Any, ...] | None:
    """The entries of a field with one per image; None if no explanation has the field."""
    parts = [getattr(each, what) for each in explanations]
    known = [part for part in parts if part is not None]
    if known and len(known) < len(parts):
        raise InputError(f"only some of the explanations have {what}.", got=f"{len(known)} of {len(parts)}")
    return tuple(entry for part in known for entry in part) if known else None


def _doubted(layer: str, explanations: Sequence[Explanation]) -> tuple[tuple[str, str], ...]:
    """What is wrong with each image's map of a layer."""
    return tuple(told for each in explanations for told in each.doubts.get(layer, (("", ""),) * len(each)))


def _described(form: Any) -> str:
    text = repr(form)
    return text if len(text) < 80 else type(form).__name__


def _different(what: str, first: Any, other: Any) -> InputError:
    return InputError(
        f"explanations with different {what} cannot be joined.", got=f"{first} and {other}", do="keep them in a list"
    )
