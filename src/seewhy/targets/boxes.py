"""The score of one detected object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.errors import OutputError, TargetError
from seewhy.targets.classes import Classes, numbers, per_image
from seewhy.targets.context import Context
from seewhy.targets.outputs import described, is_detections, named, scores_tensor

_SAME = 0.5  # boxes whose intersection over union is this or more are taken for one object


@dataclass(frozen=True)
class Box:
    """The score of one detection in each image: the one nearest to `box`, the one at `index`, or the best.

    label: its class; None takes what the model detected. box: (x0, y0, x1, y1) in pixels of the input; the detection
    of the highest intersection over union is meant, from 0.5 on. index: its number in the model's own order.
    With neither it is the detection of the highest score. Each may be one for all images, one per image, (B,) or
    (B, 4), or T per image, (B, T) or (B, T, 4). sizes: (B, 2) heights and widths of the inputs, filled in when called.

    For torchvision's detectors (a dict of boxes, labels and scores per image), transformers' queries (`logits` and
    `pred_boxes`) and raw (B, 4 + K, N) tensors of centres, sizes and scores (YOLO). The score is the model's own: a
    probability for the first and last, a logit for queries. Once resolved it is that of the same object wherever that
    is detected, and 0 where it no longer is (its place was masked, say). Raises `TargetError` if there is no such box.
    """

    label: Classes = None
    box: Any = None
    index: Any = None
    sizes: Int[Tensor, "B 2"] | None = None

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        images = _detections(outputs, self.sizes)
        if not isinstance(self.label, Tensor) or self.box is None:
            return self.resolved(outputs, Context(len(images)))(outputs)
        labels = self.label.reshape(len(images), -1)
        boxes = self.box.reshape(len(images), -1, 4)
        scores = [
            torch.stack([_score(image, label, box) for label, box in zip(*wanted, strict=True)])
            for image, *wanted in zip(images, labels, boxes, strict=True)
        ]
        return torch.stack(scores).reshape(self.label.shape)

    def resolved(self, outputs: Any, context: Context) -> Box:
        """With the label and the box of what was found, and the sizes of the inputs."""
        sizes = self.sizes if context.sizes is None else torch.tensor([size[-2:] for size in context.sizes])
        images = _detections(outputs, sizes)
        if len(images) != context.batch:
            raise OutputError(
                "the model's output does not have one row per image.",
                got=f"{len(images)} rows for {context.batch} images",
            )
        if self.label is None and named(outputs, ("pred_boxes",)):
            images = [_without_no_object(image, context) for image in images]
        label = None if self.label is None else per_image(numbers(self.label, context.labels), context.batch)
        index = None if self.index is None else per_image(numbers(self.index, None), context.batch)
        box = None if self.box is None else _box_per_image(torch.as_tensor(self.box), context.batch)
        wanted, several = _aligned((label, index, box), (1, 1, 2), context.batch)
        found = [[_found(image, number, *want) for want in wanted[number]] for number, image in enumerate(images)]
        labels = torch.tensor([[label for label, _ in row] for row in found])
        boxes = torch.stack([torch.stack([box for _, box in row]) for row in found])
        return Box(labels, boxes, None, sizes) if several else Box(labels[:, 0], boxes[:, 0], None, sizes)

    def mirrored(self) -> Box:
        """The same objects where left and right are exchanged."""
        assert self.sizes is not None
        x0, y0, x1, y1 = self.box.unbind(-1)
        width = self.sizes[:, 1].to(x0).reshape(-1, *[1] * (x0.ndim - 1))
        return Box(self.label, torch.stack([width - x1, y0, width - x0, y1], -1), None, self.sizes)


class _Detections(NamedTuple):
    """One image's boxes (x0, y0, x1, y1) in pixels, and for each the score of each class; -inf: it is not of it."""

    boxes: Float[Tensor, "N 4"]
    scores: Float[Tensor, "N K"]


def _detections(outputs: Any, sizes: Int[Tensor, "B 2"] | None) -> list[_Detections]:
    """The boxes of each image in a detector's output. Raises `OutputError` if it is of no kind that is known."""
    if is_detections(outputs):
        return [_labelled(image["boxes"], image["scores"], image["labels"]) for image in outputs]
    if boxes := named(outputs, ("pred_boxes",)):
        sides = torch.ones(len(boxes[0]), 2) if sizes is None else sizes
        scale = sides.to(boxes[0]).flip(1).repeat(1, 2)[:, None]  # (width, height, width, height)
        return list(map(_Detections, _corners(boxes[0]) * scale, scores_tensor(outputs)))
    raw = scores_tensor(outputs)
    if raw.ndim != 3 or not 4 < raw.shape[1] < raw.shape[2]:
        raise OutputError(
            "no boxes were found in the model's output.",
            got=described(outputs),
            expected="a dict of boxes, labels and scores per image; logits and pred_boxes; or (B, 4 + K, N)",
            do="pass a function of the output as target",
        )
    return list(map(_Detections, _corners(raw[:, :4].mT), raw[:, 4:].mT))


def _labelled(boxes: Tensor, scores: Tensor, labels: Tensor) -> _Detections:
    classes = int(labels.max()) + 1 if labels.numel() else 1
    none = scores.new_full((len(scores), classes), -torch.inf)
    return _Detections(boxes, none.scatter(1, labels[:, None], scores[:, None]))


def _without_no_object(image: _Detections, context: Context) -> _Detections:
    """`image` without the class "no object", which some query models have after those that have a name."""
    if context.labels is None:
        raise TargetError(
            "which class to explain cannot be told: the last one may stand for no object at all.",
            do="pass Box(label=...), or labels=[...] with a name per class",
        )
    return image._replace(scores=image.scores[:, : len(context.labels)])


def _corners(boxes: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 4"]:
    """(x0, y0, x1, y1) for (centre x, centre y, width, height)."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def _box_per_image(box: Tensor, batch: int) -> Float[Tensor, "B *T 4"]:
    """One box for all images, one for each, or T for each: (B, 4) or (B, T, 4)."""
    if box.ndim not in (1, 2, 3) or box.shape[-1] != 4 or (box.ndim > 1 and box.shape[0] != batch) or not box.numel():
        raise TargetError(
            "the box does not fit the batch.",
            got=f"shape {tuple(box.shape)}",
            expected=f"(x0, y0, x1, y1), ({batch}, 4) of them, or ({batch}, T, 4)",
        )
    return (box.expand(batch, 4) if box.ndim == 1 else box).float()


def _aligned(
    parts: Sequence[Tensor | None], ranks: Sequence[int], batch: int
) -> tuple[list[list[tuple[Tensor | None, ...]]], bool]:
    """For each image and target its entry of each of `parts`, and whether any is for T targets per image.

    A part of `ranks` dimensions has one entry per image, one of more has T. Raises `TargetError` where the Ts differ.
    """
    counts = {part.shape[1] for part, rank in zip(parts, ranks, strict=True) if part is not None and part.ndim > rank}
    if len(counts) > 1:
        raise TargetError("label, index and box are for different numbers of targets.", got=sorted(counts))

    def entry(part: Tensor | None, rank: int, image: int, target: int) -> Tensor | None:
        return part if part is None else part[image] if part.ndim == rank else part[image, target]

    rows = [
        [
            tuple(entry(part, rank, image, target) for part, rank in zip(parts, ranks, strict=True))
            for target in range(max(counts, default=1))
        ]
        for image in range(batch)
    ]
    return rows, bool(counts)


def _overlap(boxes: Float[Tensor, "N 4"], box: Float[Tensor, "4"]) -> Float[Tensor, " N"]:
    """Intersection over union of each of `boxes` with `box`."""
    sides = (torch.minimum(boxes[:, 2:], box[2:]) - torch.maximum(boxes[:, :2], box[:2])).clamp(min=0)
    shared = sides.prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return shared / (areas + (box[2:] - box[:2]).prod() - shared)


def _find(image: _Detections, label: Tensor | None, index: Tensor | None, box: Tensor | None) -> tuple[int, int] | None:
    """The number and the class of the detection that is meant; None if there is none."""
    boxes, scores = image.boxes.detach(), image.scores.detach()
    if label is not None:
        scores = torch.where(torch.arange(scores.shape[1], device=scores.device) == int(label), scores, -torch.inf)
    rank, classes = scores.max(1)
    fits = rank > -torch.inf
    if index is not None:
        fits &= torch.arange(len(boxes), device=boxes.device) == int(index)
    if box is not None:
        rank = _overlap(boxes, box.to(boxes))
        fits &= rank >= _SAME
    if not fits.any():
        return None
    best = int(torch.where(fits, rank, -torch.inf).argmax())
    return best, int(classes[best])


def _score(image: _Detections, label: Tensor, box: Tensor) -> Float[Tensor, ""]:
    found = _find(image, label, None, box)
    return image.boxes.sum() * 0 if found is None else image.scores[found]


def _found(
    image: _Detections, number: int, label: Tensor | None, index: Tensor | None, box: Tensor | None
) -> tuple[int, Tensor]:
    """The class and the box of the detection that is meant in image `number`. Raises `TargetError` if there is none."""
    if found := _find(image, label, index, box):
        return found[1], image.boxes[found[0]].detach()
    asked = (("label", label), ("index", index), ("box", box))
    raise TargetError(
        f"there is no such box in image {number}.",
        got=", ".join(f"{name} {value.tolist()}" for name, value in asked if value is not None) or "no detection",
        expected=_listed(image),
        do="pass the box, label or index of a detection; a lower score threshold lets the model give more",
    )


def _listed(image: _Detections) -> str:
    """The detections of an image, the first five, by number, class, place and score."""
    classes = image.scores.argmax(1)
    lines = [
        f"index {place}: label {int(classes[place])} at {[round(side) for side in image.boxes[place].tolist()]}"
        for place in range(min(5, len(classes)))
    ]
    more = f" and {len(classes) - 5} more" if len(classes) > 5 else ""
    return "one of " + "; ".join(lines) + more if lines else "a detection; the model found none"
