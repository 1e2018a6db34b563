"""How ultralytics' detectors see a photograph: whole, its aspect ratio kept, between grey borders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from seewhy._types import Frame
from seewhy.images.photo import Photo, opened

_GREY = 114


@dataclass(frozen=True)
class Letterbox:
    """A photograph resized to fit into `size`, in the middle of a grey input, with values from 0 to 1.

    Attributes:
        size: (H, W) that it is to fit into, in pixels.
        stride: the input's sides are the smallest multiples of it that hold the photograph.
        whole: whether the input has all of `size` instead, so that photographs of several shapes are one batch.
    """

    size: tuple[int, int] = (640, 640)
    stride: int = 32
    whole: bool = False

    def of_one_size(self) -> Letterbox:
        """The same with inputs of one size for photographs of whatever shape."""
        return replace(self, whole=True)

    def __call__(self, photo: Photo | str | Path) -> Float[Tensor, "3 H W"]:
        """The model's input for one photograph.

        Args:
            photo: a PIL image, a file name, an array or a tensor; see `seewhy.images.photo.opened`.

        Raises:
            InputError: for what is no photograph.
        """
        picture = opened(photo)
        (width, height), (left, top, right, bottom) = self._laid(picture.size)
        pixels = torch.from_numpy(_resized(np.array(picture), (width, height))).permute(2, 0, 1)
        return F.pad(pixels, (left, right, top, bottom), value=_GREY).float() / 255

    def frame(self, photo_size: tuple[int, int]) -> Frame:
        """The part of a photograph that the input shows: more than all of it, by the borders.

        Args:
            photo_size: (width, height) of the upright photograph, in pixels.

        Returns:
            (x0, y0, x1, y1), in pixels of the photograph.
        """
        (width, height), (left, top, right, bottom) = self._laid(photo_size)
        x, y = photo_size[0] / width, photo_size[1] / height
        return -left * x, -top * y, (width + right) * x, (height + bottom) * y

    def _laid(self, photo_size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
        """(width, height) of the resized photograph, and the borders (left, top, right, bottom) around it."""
        ratio = min(side / of for side, of in zip(self.size[::-1], photo_size, strict=True))
        width, height = (max(round(side * ratio), 1) for side in photo_size)
        spare = [self.size[1] - width, self.size[0] - height]
        across, down = spare if self.whole else (side % self.stride for side in spare)
        left, top = across // 2, down // 2
        return (width, height), (left, top, across - left, down - top)


def _resized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Bilinear, each pixel from the four around it: by OpenCV, as the models were trained, where it is installed."""
    if pixels.shape[1::-1] == size:
        return pixels
    try:
        import cv2
    except ImportError:
        levels = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        drawn = F.interpolate(levels, size=size[::-1], mode="bilinear", align_corners=False)
        return drawn[0].permute(1, 2, 0).round().to(torch.uint8).numpy()
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8)
