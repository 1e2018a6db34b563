"""ultralytics' models as they come: the object that predicts, or the network in it. That package is not imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from seewhy.images.letterbox import Letterbox
from seewhy.images.preprocess import Preprocess
from seewhy.models.loaded import Loaded
from seewhy.targets.boxes import dense

_SIDE = 224  # of a classifier's input, where it says none


def is_network(model: object) -> bool:
    """Whether it is one of ultralytics' networks, of whatever task."""
    kinds = type(model).__mro__
    return any(kind.__name__ == "BaseModel" and kind.__module__.startswith("ultralytics.") for kind in kinds)


def loaded(predictor: Any) -> Loaded:
    """The network in an object that predicts, with how that prepares photographs, and the names of its classes."""
    network = predictor.model
    side = {**_arguments(network), **getattr(predictor, "overrides", {})}.get("imgsz")
    if getattr(network, "task", "") == "classify":
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

    Of a classifier these are the logits. Of a detector, segmenter or the like they are boxes: for a head that ends in
    its best ones a dict of boxes, scores and labels for each image; for the others all of them, `targets.boxes.dense`.
    """
    if not is_network(network):
        return None
    if getattr(network, "task", "") == "classify":
        return _logits
    head = next(reversed(list(network.model.children())))  # type: ignore[union-attr]
    return lambda outputs: _boxes(outputs, head)


def _logits(outputs: Any) -> Any:
    return outputs[1] if isinstance(outputs, tuple) else outputs


def _boxes(outputs: Any, head: Any) -> Any:
    found = outputs
    while isinstance(found, tuple | list):
        found = found[0]
    if not isinstance(found, Tensor):
        return outputs
    if getattr(head, "end2end", False):
        return [{"boxes": rows[:, :4], "scores": rows[:, 4], "labels": rows[:, 5].long()} for rows in found]
    return dense(found[:, :4].mT, found[:, 4 : 4 + head.nc].mT)
