"""ultralytics' models as they come: the object that predicts, or the network in it. That package is not imported."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from seewhy._torch import unwatched
from seewhy.images.letterbox import Letterbox
from seewhy.images.preprocess import Preprocess
from seewhy.models.loaded import Loaded
from seewhy.targets.boxes import corners, dense, overlap

_SIDE = 224  # of a classifier's input, where it says none
_BLOCK = 256  # boxes that are held against all others at once
_SURE, _TWICE, _MOST = 0.25, 0.7, 300  # least score that is listed, most overlap of two of one class, most boxes


def is_network(model: object) -> bool:
    """Whether it is one of ultralytics' networks, of whatever task."""
    kinds = type(model).__mro__
    return any(kind.__name__ == "BaseModel" and kind.__module__.startswith("ultralytics.") for kind in kinds)


def loaded(network: Any, overrides: Mapping[str, Any]) -> Loaded:
    """A network with how photographs are prepared for it, and the names of its classes.

    Args:
        network: one of ultralytics' networks.
        overrides: what the object around it was told to predict with.
    """
    side = {**_arguments(network), **overrides}.get("imgsz")
    if "Classify" in _kinds(_head(network)):
        side = side or _SIDE
        height, width = side if isinstance(side, list | tuple) else (side, side)
        preprocess: Any = Preprocess((height, width), min(height, width), (0.0,) * 3, (1.0,) * 3, "bilinear")
    else:
        side = side or 640
        size = tuple(side) if isinstance(side, list | tuple) else (side, side)
        preprocess = Letterbox((size[0], size[-1]), max(int(network.stride.max()), 32))
    names = network.names
    labels = tuple(names.values()) if isinstance(names, Mapping) else tuple(names)
    return Loaded(network, preprocess, labels, type(network).__name__)


def _arguments(network: nn.Module) -> dict[str, Any]:
    """What the network was trained with, as far as it keeps that."""
    found = getattr(network, "args", None)
    return {} if found is None else {key: value for key, value in dict(found).items() if key == "imgsz" and value}


def reading(network: nn.Module) -> Callable[[Any], Any] | None:
    """A function that takes what targets ask about out of an ultralytics network's output; None for other models.

    Of a classifier these are the logits. Of detectors, segmenters, and heads of keypoints or of turned boxes they are
    all boxes of the head, as `targets.boxes.dense` makes them, with the number that each has in the list that the model
    predicts. What other networks return, maps of classes or of depth, is left as it is.
    """
    if not is_network(network):
        return None
    head = _head(network)
    if "Classify" in _kinds(head):
        return _logits
    return partial(_boxes, head=head) if "Detect" in _kinds(head) else None


def _head(network: Any) -> Any:
    """The last layer of a network."""
    return next(reversed(list(network.model.children())))


def _kinds(head: object) -> set[str]:
    """What a head is called, and what it is made from: a `Segment` is a `Detect` too."""
    return {kind.__name__ for kind in type(head).__mro__}


def _logits(outputs: Any) -> Any:
    return outputs[1] if isinstance(outputs, tuple) else outputs


def _boxes(outputs: Any, head: Any) -> Any:
    """A head's boxes, their scores, and their numbers in the list that the model predicts.

    Its output is (B, 4 + K + more, N): centres and sizes, a probability of each class, and an angle, keypoints, or the
    weights that a mask has of prototypes (B, M, h, w), which come beside it. A head that lists its boxes itself gives
    (B, N, 6 + more), with corners, a score and a class; its turned boxes are centres and sizes too.
    """
    found: Any = outputs
    beside: Any = None
    while isinstance(found, tuple | list):
        found, beside = found[0], found[-1]
    if not isinstance(found, Tensor):
        return outputs
    if lists := bool(getattr(head, "end2end", False)):
        kinds = torch.arange(head.nc, device=found.device)
        places, scores, more = found[..., :4], found[..., 4:5] * (found[..., 5:6] == kinds), found[..., 6:]
    else:
        table = found.mT
        places, scores, more = table[..., :4], table[..., 4 : 4 + head.nc], table[..., 4 + head.nc :]
    shapes = torch.cat([places, more[..., -1:]], -1) if "OBB" in _kinds(head) else places if lists else corners(places)
    boxes = _upright(shapes) if "OBB" in _kinds(head) else shapes
    with unwatched(), torch.no_grad():  # it is no part of what is explained, and would take long to be noted
        masks = (more, beside, float(head.stride[0]) / 2) if "Segment" in _kinds(head) else None
        numbers = _numbers(boxes, scores, None if lists else shapes, masks)
    return dense(boxes, scores, numbers)


def _numbers(
    boxes: Float[Tensor, "B N 4"],
    scores: Float[Tensor, "B N K"],
    shapes: Float[Tensor, "B N _"] | None,
    masks: tuple[Float[Tensor, "B N M"], Float[Tensor, "B M h w"], float] | None,
) -> Int[Tensor, "B N"]:
    """Of each box in the list that the model predicts, from 0; -1 for what that does not hold.

    Args:
        boxes: corners, in pixels of the input.
        scores: the probability of each class.
        shapes: what boxes are like each other by: corners, or (centre, size, angle). None where every object has one
            box already.
        masks: their weights of prototypes, the prototypes, and the pixels of the input for one of these.
    """
    likely, classes = scores.max(-1)
    numbers = torch.full_like(classes, -1)
    for image, order in enumerate(likely.argsort(dim=-1, descending=True, stable=True)):
        left = order[likely[image, order] > _SURE]
        if shapes is not None:
            unlike = _unlike if shapes.shape[-1] == 4 else _unlike_turned
            left = left[unlike(shapes[image, left], classes[image, left])][:_MOST]
        if masks is not None:
            weights, prototypes, scale = masks
            left = left[_have_masks(boxes[image, left], weights[image, left], prototypes[image], scale)]
        numbers[image, left] = torch.arange(len(left), device=numbers.device)
    return numbers


def _unlike(boxes: Float[Tensor, "N 4"], classes: Int[Tensor, " N"]) -> Bool[Tensor, " N"]:
    """Which of the boxes, the best first, are left when every object has one (non-maximum suppression)."""
    left = np.ones(len(boxes), bool)
    for start in range(0, len(boxes), _BLOCK):
        block = slice(start, start + _BLOCK)
        alike = (overlap(boxes[block, None], boxes) > _TWICE) & (classes[block, None] == classes)
        for number, row in enumerate(alike.cpu().numpy(), start):
            if left[number]:
                left[number + 1 :] &= ~row[number + 1 :]
    return torch.from_numpy(left).to(boxes.device)


def _unlike_turned(shapes: Float[Tensor, "N 5"], classes: Int[Tensor, " N"]) -> Bool[Tensor, " N"]:
    """Which of the boxes (centre, size, angle), the best first, are not like any better one of their class.

    How alike two are is 1 - H of the Gaussians that have a box's middle and spread, with H the Hellinger distance
    (ProbIoU, arXiv:2106.06072).
    """
    middle, sides, angle = shapes[:, :2], shapes[:, 2:4], shapes[:, 4]
    axes = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).reshape(-1, 2, 2)
    spread = axes @ (sides.square() / 12).diag_embed() @ axes.mT
    mean = (spread[:, None] + spread) / 2
    apart = (middle[:, None] - middle)[..., None]
    sizes = spread.det().clamp(min=0)
    inverse = torch.stack([mean[..., 1, 1], -mean[..., 0, 1], -mean[..., 1, 0], mean[..., 0, 0]], -1)
    whole = mean.det().clamp(min=torch.finfo(mean.dtype).tiny)
    far = (apart.mT @ inverse.reshape(*mean.shape) @ apart)[..., 0, 0] / whole / 8
    bhattacharyya = far + (whole / (sizes[:, None] * sizes).sqrt()).log() / 2
    alike = 1 - (1 - (-bhattacharyya.clamp(min=0)).exp()).sqrt()
    better: Tensor = ((alike > _TWICE) & (classes[:, None] == classes)).triu(1)
    return ~better.any(0)


def _upright(shapes: Float[Tensor, "*N 5"]) -> Float[Tensor, "*N 4"]:
    """The corners of the upright boxes around turned ones (centre, size, angle in radians)."""
    middle, (width, height), angle = shapes[..., :2], shapes[..., 2:4].unbind(-1), shapes[..., 4]
    across, along = angle.cos().abs(), angle.sin().abs()
    size = torch.stack([width * across + height * along, width * along + height * across], -1)
    return corners(torch.cat([middle, size], -1))


def _have_masks(
    boxes: Float[Tensor, "N 4"], weights: Float[Tensor, "N M"], prototypes: Float[Tensor, "M h w"], scale: float
) -> Bool[Tensor, " N"]:
    """Whether the mask of each object covers a pixel of its box: the model lists no others.

    Args:
        boxes: corners, in pixels of the input.
        weights: of the prototypes in each mask.
        prototypes: what masks are sums of.
        scale: pixels of the input for one of the prototypes.
    """
    found = [False] * len(boxes)
    for number, (box, weight) in enumerate(zip(boxes.tolist(), weights.float(), strict=True)):
        mask = (weight @ prototypes.float().flatten(1)).unflatten(0, prototypes.shape[1:])
        mask = F.interpolate(mask[None, None], scale_factor=scale, mode="bilinear")[0, 0]
        x0, y0, x1, y1 = (max(math.ceil(side), 0) for side in box)
        found[number] = bool((mask[y0:y1, x0:x1] > 0).any())
    return torch.tensor(found, dtype=torch.bool, device=boxes.device)
