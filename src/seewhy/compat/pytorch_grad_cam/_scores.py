"""grad-cam's targets, callables on one image's output, as one target of the engine's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.compat.pytorch_grad_cam.utils.model_targets import BinaryClassifierOutputTarget, ClassifierOutputTarget
from seewhy.errors import TargetError
from seewhy.hooks.nested import rebuild
from seewhy.targets import BaseTarget, class_scores

ImageTarget = Callable[[Any], Tensor]


@dataclass(frozen=True)
class PerImage(BaseTarget):
    """The score of each row of the outputs by the target of its image.

    choose: from an image's number to its target; a function, so that no tensor of a target's is taken for one of rows.
    images: (N,) the image that each row is of. undo: what puts maps in the outputs back in place, where the image was
    mirrored, so that a target that says where still means it.
    """

    choose: Callable[[int], ImageTarget]
    images: Int[Tensor, " N"]
    undo: Callable[[Tensor], Tensor] | None = None

    def __call__(self, outputs: Any) -> Float[Tensor, " N"]:
        if (undo := self.undo) is not None:
            outputs = rebuild(outputs, lambda tensor: undo(tensor) if tensor.ndim >= 4 else tensor)
        rows = len(self.images)
        found = [self.choose(image)(_row(outputs, row, rows)) for row, image in enumerate(self.images.tolist())]
        if wrong := [tuple(score.shape) for score in found if score.numel() != 1]:
            raise TargetError(
                "a target did not return one score for its image.", got=f"shape {wrong[0]}", expected="a scalar"
            )
        return torch.stack([score.reshape(()) for score in found])

    @property
    def targets(self) -> list[ImageTarget]:
        """The target of each image, for whom it is handed on to."""
        return [self.choose(image) for image in self.images.tolist()]


def per_image(targets: Sequence[ImageTarget], images: int) -> PerImage:
    """`targets`, one for each of so many images; those beyond are dropped.

    Raises:
        TargetError: for fewer than images, whose maps grad-cam leaves at zero.
    """
    if len(targets) < images:
        raise TargetError(
            "the number of targets does not match the batch.",
            got=f"{len(targets)} target{'s'[: len(targets) != 1]} for {images} image{'s'[: images != 1]}",
            do="pass one target for each image",
        )
    return PerImage(list(targets).__getitem__, torch.arange(images))


def predicted(outputs: Any) -> PerImage:
    """The class of the highest score of each image; for one logit the side that it is on."""
    scores = class_scores(_first(outputs))
    kind = BinaryClassifierOutputTarget if scores.single else ClassifierOutputTarget
    classes = scores.values.argmax(1).tolist()
    return per_image([kind(index) for index in classes], len(classes))


def highest(outputs: Tensor) -> PerImage:
    """What grad-cam explains if nothing is asked for: the highest number, which of one logit is the only one."""
    classes = np.argmax(outputs.detach().cpu().float().numpy(), axis=-1).tolist()
    return per_image([ClassifierOutputTarget(index) for index in classes], len(classes))


def _first(outputs: Any) -> Any:
    """The first part of what a model returns in a tuple, `(logits, auxiliary)`, which is what grad-cam explains."""
    return outputs[0] if isinstance(outputs, tuple) and outputs else outputs


def _row(outputs: Any, row: int, rows: int) -> Any:
    """One image's part of the outputs.

    That is an entry of a list, as detectors return, a row of every tensor in anything else, and of the first part of a
    tuple the row as a batch of one: grad-cam takes entry 0 of a tuple for the only image's.
    """
    if isinstance(outputs, list) and len(outputs) == rows:
        return outputs[row]
    if isinstance(outputs, tuple | list):
        part = outputs[0]
        return rebuild(part, lambda tensor: _rows(tensor, slice(row, row + 1), rows))
    return rebuild(outputs, lambda tensor: _rows(tensor, row, rows))


def _rows(tensor: Tensor, rows: int | slice, count: int) -> Tensor:
    return tensor[rows] if tensor.ndim and tensor.shape[0] == count else tensor
