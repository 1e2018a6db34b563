"""What the command line asks of a model: a class, a box, a place in a photograph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from seewhy.errors import InputError, OutputError, TargetError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from seewhy._types import Frame
    from seewhy.images.preprocess import Preprocess
    from seewhy.models import Loaded
    from seewhy.targets import Context, Target, Text


class NotInPictureError(TargetError):
    """The photograph does not show what is asked for: another one may."""


@dataclass(frozen=True)
class Asked:
    """A class of whatever model: the image's, that of the best box, or where a segmenter sees it.

    Attributes:
        index: the class; None is the predicted one.
        box: the number of another box than the best one.
        place: one place where a segmenter is to see the class, (across, down) as shares of the input.
        region: the part of the input where a segmenter is to see it, (H, W).
        top: how many of the most likely classes to explain; 0 for one class.
    """

    index: int | None
    box: int | None = None
    place: tuple[float, float] | None = None
    region: Tensor | None = None
    top: int = 0

    def resolved(self, outputs: Any, context: Context) -> Target:
        from seewhy.targets import Box, Category, Pixel, Region, class_scores, resolve
        from seewhy.targets.outputs import is_detections, scores_tensor, tensors_called

        placed = self.place is not None or self.region is not None
        detects = is_detections(outputs) or bool(tensors_called(outputs, ("pred_boxes",)))
        if self.top and (detects or scores_tensor(outputs).ndim > 3):
            raise OutputError("--top-k ranks the classes of a picture, and this model gives several at once.")
        if self.top:
            scores = class_scores(outputs).values
            return resolve(Category(scores.topk(min(self.top, scores.shape[1]), 1).indices), outputs, context)
        if self.box is not None or (detects and not placed):
            return _shown(Box(self.index, index=self.box), outputs, context)
        if self.index is None and context.encode is not None:
            raise OutputError("the model compares pictures with words.", do='say which, as in --target "a cat"')
        dense = placed or tensors_called(outputs, ("masks_queries_logits",)) or scores_tensor(outputs).ndim > 3
        if self.index is None and dense:
            raise OutputError("the model sees several classes in one picture.", do="say which with --target")
        if self.place is not None and self.index is not None and context.sizes is not None:
            (across, down), (height, width) = self.place, context.sizes[0]
            return _shown(Pixel(self.index, int(down * height), int(across * width)), outputs, context)
        if dense:
            return _shown(Region(self.index, self.region), outputs, context)
        return resolve(Category(self.index), outputs, context)


def _shown(target: Target, outputs: Any, context: Context) -> Target:
    """`target` made definite, where that depends on what the photograph shows."""
    from seewhy.targets import resolve

    try:
        return resolve(target, outputs, context)
    except TargetError as error:
        raise NotInPictureError(str(error)) from error


def class_of(text: str, loaded: Loaded) -> int:
    """The class that a text names: an index, "class 7" as the library calls it, a label or part of one.

    Raises:
        TargetError: if no label, or several, are called so.
    """
    from seewhy.targets import find_label

    number = text.removeprefix("class ")
    return int(number) if number.lstrip("-").isdecimal() else find_label(text, loaded.labels)


def asked_of(loaded: Loaded, target: str | None) -> Asked | Text:
    """What `--target` asks of each photograph: a prompt of a text-image model, a class of any other."""
    from seewhy.targets import Text

    if target is None:
        return Asked(None)
    return Asked(class_of(target, loaded)) if loaded.embed_text is None else Text(target)


def pixel_of(pixel: str) -> tuple[int, int]:
    """(x, y) for "X,Y". Raises `InputError` for anything else."""
    x, comma, y = (part.strip() for part in pixel.partition(","))
    if not (comma and x.isdecimal() and y.isdecimal()):
        raise InputError("--pixel is no place.", got=pixel, expected="X,Y: pixels from the left and from the top")
    return int(x), int(y)


def place_of(pixel: tuple[int, int], frame: Frame) -> tuple[float, float]:
    """A pixel of a photograph as shares (across, down) of the input, which shows the part `frame` of it.

    Raises:
        InputError: if the input does not show the pixel.
    """
    x0, y0, x1, y1 = frame
    across, down = (pixel[0] + 0.5 - x0) / (x1 - x0), (pixel[1] + 0.5 - y0) / (y1 - y0)
    if not (0 <= across < 1 and 0 <= down < 1):
        raise InputError(
            "the model does not see this pixel.",
            got=f"{pixel[0]},{pixel[1]}",
            expected=f"{x0:.0f},{y0:.0f} to {x1 - 1:.0f},{y1 - 1:.0f}, which is what it is shown of the photograph",
        )
    return across, down


def region_of(mask: Image.Image, photo: Image.Image, preprocess: Preprocess) -> Tensor:
    """Where `mask` is white, (H, W) at the input's size: resized and cropped as the photograph is.

    Raises:
        InputError: if mask and photograph differ in size.
    """
    if mask.size != photo.size:
        sizes = (f"{picture.width} x {picture.height}" for picture in (mask, photo))
        raise InputError("the mask is not of the photograph's size.", got=next(sizes), expected=next(sizes))
    plain = replace(preprocess, mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="nearest")
    return (plain(mask).amax(0) > 0.5).float()
