"""What the command line asks of a model: a class, a box, a place in a photograph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from seewhy.errors import InputError, OutputError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from seewhy._types import Frame
    from seewhy.images.preprocess import Preprocess
    from seewhy.targets import Context, Target


@dataclass(frozen=True)
class Asked:
    """A class of whatever model: the image's, that of the best box, or where a segmenter sees it; None is predicted.

    box: the number of another one. place, region: where a segmenter is to see it: at one place, (across, down) as
    shares of the input, or inside a mask.
    """

    index: int | None
    box: int | None = None
    place: tuple[float, float] | None = None
    region: Tensor | None = None

    def resolved(self, outputs: Any, context: Context) -> Target:
        from seewhy.targets import Box, Category, Pixel, Region, resolve
        from seewhy.targets.outputs import is_detections, named, scores_tensor

        placed = self.place is not None or self.region is not None
        detects = is_detections(outputs) or bool(named(outputs, ("pred_boxes",)))
        if self.box is not None or (detects and not placed):
            return resolve(Box(self.index, index=self.box), outputs, context)
        if self.index is None and context.encode is not None:
            raise OutputError("the model compares pictures with words.", do='say which, as in --target "a cat"')
        dense = placed or named(outputs, ("masks_queries_logits",)) or scores_tensor(outputs).ndim > 3
        if self.index is None and dense:
            raise OutputError("the model sees several classes in one picture.", do="say which with --target")
        if self.place is not None and self.index is not None and context.sizes is not None:
            (across, down), (height, width) = self.place, context.sizes[0]
            return resolve(Pixel(self.index, int(down * height), int(across * width)), outputs, context)
        return resolve(Region(self.index, self.region) if dense else Category(self.index), outputs, context)


def pixel_of(pixel: str) -> tuple[int, int]:
    """(x, y) for "X,Y"."""
    x, comma, y = (part.strip() for part in pixel.partition(","))
    if not (comma and x.isdecimal() and y.isdecimal()):
        raise InputError("--pixel is no place.", got=pixel, expected="X,Y: pixels from the left and from the top")
    return int(x), int(y)


def place_of(pixel: tuple[int, int], frame: Frame) -> tuple[float, float]:
    """A pixel of a photograph as shares, (across, down), of the input, which shows `frame` of it."""
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
    """The part of a photograph that is white in `mask`, at the input's size, as the photograph comes to be there."""
    if mask.size != photo.size:
        sizes = (f"{picture.width} x {picture.height}" for picture in (mask, photo))
        raise InputError("the mask is not of the photograph's size.", got=next(sizes), expected=next(sizes))
    plain = replace(preprocess, mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="nearest")
    return (plain(mask).amax(0) > 0.5).float()
