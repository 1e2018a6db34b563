"""The score of one detected object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from seewhy.errors import OutputError, TargetError
from seewhy.hooks.nested import described
from seewhy.targets.base import BaseTarget
from seewhy.targets.classes import class_name, entry
from seewhy.targets.context import Context
from seewhy.targets.indices import Classes, as_indices, per_image
from seewhy.targets.outputs import is_detections, scores_tensor, tensors_called

_SAME = 0.5  # boxes whose intersection over union is this or more are taken for one object


class ObjectTarget(BaseTarget):
    """A target about an object: its class `label` and its place `box`."""

    label: Any
    box: Any
    sizes: Int[Tensor, "B 2"] | None

    def classes(self) -> Any:
        """The class of each object."""
        return self.label

    def outline(self, image: int, number: int | None) -> tuple[float, ...] | None:
        """Where the object is; None as long as the inputs' sizes are not known."""
        if self.sizes is None:
            return None
        height, width = self.sizes[image].tolist()
        found = self.box[image] if number is None else self.box[image, number]
        return tuple(side / of for side, of in zip(found.tolist(), (width, height, width, height), strict=True))

    def describe(self, labels: Sequence[str] | None = None, image: int = 0, number: int | None = None) -> str:
        """The label of the object's class."""
        label = entry(self.label, image, number)
        return "" if label is None else class_name(label, None, labels)


@dataclass(frozen=True)
class Box(ObjectTarget):
    """The score of one detected object in each image: the one nearest to `box`, the one at `index`, or the best.

    Each of these may be one for all images, one per image, (B,) or (B, 4), or T per image, (B, T) or (B, T, 4). With
    neither box nor index it is the detection of the highest score.

    The output may be that of torchvision's detectors (a dict of boxes, labels and scores per image), of transformers'
    queries (`logits` and `pred_boxes`), or a raw tensor: (B, 4 + K + more, N), centres, sizes, K class scores, and
    whatever else a head gives, keypoints, angles or mask coefficients (YOLO from v8 on); or (B, N, 5 + K), with a
    score of there being any object before those of the classes, which they are multiplied by (YOLOv5, YOLOX). The score
    is the model's own: a probability for the first and the last, a logit for queries. Once resolved, the score is that
    of the same object wherever that is detected, and 0 where it no longer is, because its place was masked, say.

    Args:
        label: the object's class, an index or label; None takes what the model detected.
        box: (x0, y0, x1, y1) in pixels of the input. The detection of the highest intersection over union is meant,
            from 0.5 on.
        index: its number in the model's own order; of ultralytics' models in the list that they predict.
        num_classes: K, for raw tensors whose model does not say it and whose classes have no names.
        sizes: (B, 2), heights and widths of the inputs. Filled in when the target is resolved.

    Raises:
        TargetError: on the call, if there is no such detection, or it cannot be told which numbers are class scores.
        OutputError: on the call, if the output holds no boxes.

    Examples:
        >>> import torch
        >>> found = {"boxes": torch.tensor([[0.0, 0, 10, 10], [20, 0, 40, 20]]),
        ...          "labels": torch.tensor([1, 2]), "scores": torch.tensor([0.9, 0.8])}
        >>> Box()([found]), Box(label=2)([found])
        (tensor([0.9000]), tensor([0.8000]))
        >>> Box(box=(21, 0, 41, 20))([found])
        tensor([0.8000])
    """

    label: Classes = None
    box: Any = None
    index: Any = None
    sizes: Int[Tensor, "B 2"] | None = None
    num_classes: int | None = None

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        images = _detections(outputs, self.sizes, self.num_classes)
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
        """The same, with the label and the box of what was found, and the sizes of the inputs."""
        sizes = self.sizes if context.sizes is None else torch.tensor([size[-2:] for size in context.sizes])
        said = [count for count in (len(context.labels or ()), context.num_classes) if count]
        num_classes = self.num_classes or min(said, default=None)
        images = _detections(outputs, sizes, num_classes)
        if len(images) != context.batch:
            raise OutputError(
                "the model's output does not have one row per image.",
                got=f"{len(images)} rows for {context.batch} images",
            )
        if self.label is None and tensors_called(outputs, ("pred_boxes",)):
            images = [_without_no_object(image, num_classes) for image in images]
        label = None if self.label is None else per_image(as_indices(self.label, context.labels), context.batch)
        index = None if self.index is None else per_image(as_indices(self.index, None), context.batch)
        box = None if self.box is None else _box_per_image(torch.as_tensor(self.box), context.batch)
        wanted, several = _aligned((label, index, box), (1, 1, 2), context.batch)
        found = [[_found(image, number, *want) for want in wanted[number]] for number, image in enumerate(images)]
        labels = torch.tensor([[label for label, _ in row] for row in found])
        boxes = torch.stack([torch.stack([box for _, box in row]) for row in found])
        labels, boxes = (labels, boxes) if several else (labels[:, 0], boxes[:, 0])
        return Box(labels, boxes, None, sizes, num_classes)

    def mirrored(self) -> Box:
        """The same objects where left and right are exchanged."""
        assert self.sizes is not None
        x0, y0, x1, y1 = self.box.unbind(-1)
        width = self.sizes[:, 1].to(x0).reshape(-1, *[1] * (x0.ndim - 1))
        return replace(self, box=torch.stack([width - x1, y0, width - x0, y1], -1))


@dataclass(frozen=True)
class Redetected(ObjectTarget):
    """How surely the same object is detected still, for each image and target: what D-RISE asks of a masked image.

    The largest product, over the detections there are, of a box's intersection over union with `box`, the cosine of its
    class probabilities with `likely`, and how likely there is any object (Petsiuk et al. 2021, arXiv:2006.03204). The
    last is the objectness of heads that have one (YOLOv5, YOLOX). Of others that have a box at every place or query it
    is the highest probability of a class, since the box alone says nothing; it is 1 for torchvision's detectors, which
    list what they detect. 0 where nothing is detected. Made by `redetected`.

    Args:
        label: the class of each object.
        box: where it is, (x0, y0, x1, y1) in pixels of the input.
        likely: the probability of each of K classes.
        sizes: heights and widths of the inputs.
        num_classes: as for `Box`.
    """

    label: Int[Tensor, "B *T"]
    box: Float[Tensor, "B *T 4"]
    likely: Float[Tensor, "B *T K"]
    sizes: Int[Tensor, "B 2"] | None
    num_classes: int | None

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        images = _detections(outputs, self.sizes, self.num_classes)
        boxes = self.box.reshape(len(images), -1, 4)
        likely = self.likely.reshape(*boxes.shape[:2], -1)
        scores = [
            torch.stack([_likeness(image, box, classes) for box, classes in zip(*wanted, strict=True)])
            for image, *wanted in zip(images, boxes, likely, strict=True)
        ]
        return torch.stack(scores).reshape(self.label.shape)


def redetected(target: Any, outputs: Any) -> Redetected:
    """The same detections as those of a resolved `Box`, by where they are and by the probability of every class.

    torchvision's detectors give one label and its score instead of all probabilities. There the cosine is 1 for the
    same label and 0 for another one: it does not count how sure the detector is, but whether and where it sees the
    object.

    Args:
        target: a resolved `Box`.
        outputs: what the model returned for the caller's images.

    Raises:
        TargetError: for any other target.
    """
    if not isinstance(target, Box):
        raise TargetError(
            "only a detection can be looked for again in a masked image.",
            got=type(getattr(target, "function", target)).__name__,
            expected="Box(...), one or several of the model's detections",
            do="pass Box() as target for the best one; for other targets use rise",
        )
    images = _detections(outputs, target.sizes, target.num_classes)
    assert isinstance(target.label, Tensor)
    labels, boxes = target.label.reshape(len(images), -1), target.box.reshape(len(images), -1, 4)
    width = max(image.likely.shape[1] for image in images)
    rows = []
    for image, *wanted in zip(images, labels, boxes, strict=True):
        places = [_find(image, label, None, box) for label, box in zip(*wanted, strict=True)]
        likely = image.likely.detach()[[place[0] for place in places if place is not None]]
        rows.append(F.pad(likely, (0, width - likely.shape[1])))
    likely = torch.stack(rows).reshape(*target.label.shape, width)
    return Redetected(target.label, target.box, likely, target.sizes, target.num_classes)


def _likeness(image: _Detections, box: Float[Tensor, "4"], likely: Float[Tensor, " K"]) -> Float[Tensor, ""]:
    if not len(image.boxes):
        return image.boxes.sum()
    known = min(image.likely.shape[1], len(likely))  # listed labels may end anywhere: a class beyond is not detected
    shared = image.likely[:, :known] @ likely[:known].to(image.likely)
    cosine = shared / (image.likely.norm(dim=1) * likely.norm()).clamp(min=torch.finfo(shared.dtype).tiny)
    alike: Tensor = overlap(image.boxes, box.to(image.boxes)) * cosine * image.sure
    return alike.max()


def declared_classes(model: nn.Module) -> int | None:
    """How many classes a model says that its head has; None if it does not say.

    Args:
        model: it is looked for in the model, in the last module of it, in the last one of that, and so on: where heads
            stand. `config.num_labels`, `num_classes`, `nc` and the length of `names` count.

    Examples:
        >>> head = nn.Linear(8, 3)
        >>> head.nc = 3
        >>> declared_classes(nn.Sequential(nn.Flatten(), head))
        3
    """
    module: nn.Module | None = model
    while module is not None:
        said = getattr(getattr(module, "config", None), "num_labels", None)
        for count in (said, *(getattr(module, name, None) for name in ("num_classes", "nc"))):
            if isinstance(count, int) and not isinstance(count, bool) and count > 0:
                return count
        names = getattr(module, "names", None)
        if isinstance(names, Mapping | list | tuple) and names:
            return len(names)
        module = next(reversed(list(module.children())), None)
    return None


class _Detections(NamedTuple):
    """One image's boxes, and what the model says of each.

    Attributes:
        boxes: (x0, y0, x1, y1) in pixels.
        scores: the score of each class; -inf where the box is not of it.
        likely: the probability of each class.
        sure: how likely there is any object.
        numbers: of each in the model's own list; -1 for what that does not hold.
    """

    boxes: Float[Tensor, "N 4"]
    scores: Float[Tensor, "N K"]
    likely: Float[Tensor, "N K2"]
    sure: Float[Tensor, " N"]
    numbers: Int[Tensor, " N"]


def dense(
    boxes: Float[Tensor, "B N 4"], scores: Float[Tensor, "B N K"], numbers: Int[Tensor, "B N"]
) -> dict[str, Tensor]:
    """A detector's output, with all boxes of its head, as `Box` reads it.

    Args:
        boxes: (x0, y0, x1, y1) in pixels of the input.
        scores: the probability of each class; 0 where a box is not of it.
        numbers: of each box in the list that the model predicts, from 0; -1 for what that does not hold.
    """
    return {"dense_boxes": boxes, "dense_scores": scores, "dense_numbers": numbers}


def _listed_all(
    boxes: Float[Tensor, "B N 4"],
    scores: Float[Tensor, "B N K"],
    likely: Float[Tensor, "B N K2"],
    sure: Float[Tensor, "B N"] | None = None,
) -> list[_Detections]:
    """Each image's detections, of a model that lists all of them in its output's order.

    Args:
        boxes, scores, likely: as in `_Detections`.
        sure: likewise; None takes the highest probability of a class.
    """
    numbers = torch.arange(boxes.shape[1], device=boxes.device).expand(boxes.shape[:2])
    return list(map(_Detections, boxes, scores, likely, likely.amax(-1) if sure is None else sure, numbers))


def _detections(outputs: Any, sizes: Int[Tensor, "B 2"] | None, num_classes: int | None) -> list[_Detections]:
    """The boxes of each image in a detector's output.

    Raises:
        OutputError: if it is of no kind that is known.
        TargetError: if it cannot be told which numbers of a raw output are class scores.
    """
    if is_detections(outputs):
        return [_labelled(image["boxes"], image["scores"], image["labels"]) for image in outputs]
    if boxes := tensors_called(outputs, ("pred_boxes",)):
        sides = torch.ones(len(boxes[0]), 2) if sizes is None else sizes
        scale = sides.to(boxes[0]).flip(1).repeat(1, 2)[:, None]  # (width, height, width, height)
        scores = scores_tensor(outputs)
        # one column more than there are names stands for no object, and then a softmax is meant
        ends_in_none = num_classes == scores.shape[-1] - 1
        likely = scores.softmax(-1)[..., :num_classes] if ends_in_none else scores.sigmoid()
        return _listed_all(corners(boxes[0]) * scale, scores, likely)
    if every := tensors_called(outputs, ("dense_boxes", "dense_scores", "dense_numbers")):
        found, likely, numbers = every
        return list(
            map(_Detections, found, torch.where(likely > 0, likely, -torch.inf), likely, likely.amax(-1), numbers)
        )
    raw = scores_tensor(outputs)
    known = raw.ndim == 3 and num_classes is not None
    # where a row for each class would fit as well, it is that: the more common form
    if known and num_classes and raw.shape[2] == 5 + num_classes and raw.shape[1] != 4 + num_classes:
        scores = raw[..., 5:] * raw[..., 4:5]
        return _listed_all(corners(raw[..., :4]), scores, scores, raw[..., 4])
    if raw.ndim != 3 or not 4 < raw.shape[1] < raw.shape[2]:
        raise OutputError(
            "no boxes were found in the model's output.",
            got=described(outputs),
            expected="boxes, labels and scores per image; logits and pred_boxes; (B, 4 + K, N) or (B, N, 5 + K)",
            do="pass a function of the output as target",
        )
    if num_classes is None or raw.shape[1] < 4 + num_classes:
        raise TargetError(
            "it cannot be told which rows of the model's output are class scores.",
            got=f"shape {tuple(raw.shape)}" + ("" if num_classes is None else f" for {num_classes} classes"),
            expected="a box in the first four rows, then a row for each class; what follows, keypoints, angles or mask "
            "coefficients, is left alone",
            do="pass Box(..., num_classes=K), or labels=[...] with a name per class",
        )
    scores = raw[:, 4 : 4 + num_classes].mT
    return _listed_all(corners(raw[:, :4].mT), scores, scores)


def _labelled(boxes: Tensor, scores: Tensor, labels: Tensor) -> _Detections:
    classes = int(labels.max()) + 1 if labels.numel() else 1
    none = scores.new_full((len(scores), classes), -torch.inf)
    found = none.scatter(1, labels[:, None], scores[:, None])
    likely = torch.where(found.isfinite(), found, 0)
    return _Detections(boxes, found, likely, torch.ones_like(scores), torch.arange(len(boxes), device=boxes.device))


def _without_no_object(image: _Detections, num_classes: int | None) -> _Detections:
    """`image` without the class "no object", which some query models have after those that have a name."""
    if num_classes is None:
        raise TargetError(
            "which class to explain cannot be told: the last one may stand for no object at all.",
            do="pass Box(label=...), or labels=[...] with a name per class",
        )
    return image._replace(scores=image.scores[:, :num_classes])


def corners(boxes: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 4"]:
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


def overlap(boxes: Float[Tensor, "*#N 4"], others: Float[Tensor, "*#N 4"]) -> Float[Tensor, "..."]:
    """Intersection over union of `boxes` with `others`, whose shapes are broadcast."""
    sides = torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(boxes[..., :2], others[..., :2])
    shared = sides.clamp(min=0).prod(-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    return shared / (areas + (others[..., 2:] - others[..., :2]).prod(-1) - shared)


def _find(image: _Detections, label: Tensor | None, index: Tensor | None, box: Tensor | None) -> tuple[int, int] | None:
    """The number and the class of the detection that is meant; None if there is none."""
    boxes, scores = image.boxes.detach(), image.scores.detach()
    if label is not None:
        scores = torch.where(torch.arange(scores.shape[1], device=scores.device) == int(label), scores, -torch.inf)
    rank, classes = scores.max(1)
    fits = rank > -torch.inf
    if index is not None:
        fits &= image.numbers == int(index)
    if box is not None:
        rank = overlap(boxes, box.to(boxes))
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
    count, classes = int((image.numbers >= 0).sum()), image.scores.argmax(1)
    places = [int((image.numbers == number).nonzero()) for number in range(min(count, 5))]
    lines = [
        f"index {number}: label {int(classes[place])} at {[round(side) for side in image.boxes[place].tolist()]}"
        for number, place in enumerate(places)
    ]
    more = f" and {count - 5} more" if count > 5 else ""
    return "one of " + "; ".join(lines) + more if lines else "a detection; the model found none"
