"""How a photograph becomes a model's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from seewhy._types import Frame
from seewhy.errors import ModelError
from seewhy.images.photo import upright

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_LONG = 8  # photographs longer than this many times their width are not resized whole: only their middle is shown


@dataclass(frozen=True)
class Preprocess:
    """How a photograph becomes a model's input: resized, cropped at the centre, scaled to [0, 1] and normalised.

    size: (H, W) of the input; None shows the whole photograph, as it was resized. resize: what the photograph's shorter
    side is resized to before the crop, its aspect ratio kept; or (H, W), whatever that does to the aspect ratio. mean,
    std: per channel, for values in [0, 1]. longest: what the longer side may come to; the shorter one then gives way.
    """

    size: tuple[int, int] | None = (224, 224)
    resize: int | tuple[int, int] = 256
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    longest: int | None = None

    def __post_init__(self) -> None:
        shorter = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        size = self.size or shorter
        if min(size) < 1 or shorter[0] < size[0] or shorter[1] < size[1]:
            raise ModelError(
                "the crop does not fit into the resized photograph.",
                got=f"size={self.size}, resize={self.resize}",
                expected="a resize at least as large as the size, which is (H, W)",
            )
        if self.interpolation not in _FILTERS:
            raise ModelError("unknown interpolation.", got=repr(self.interpolation), expected=", ".join(_FILTERS))

    def __call__(self, photo: Image.Image) -> Float[Tensor, "3 H W"]:
        """The input, float32, for a photograph turned as its EXIF orientation says."""
        photo = upright(photo)
        width, height = self._resized(photo.size)
        filtering = _FILTERS[self.interpolation]
        if self.size and max(photo.size) > _LONG * min(photo.size) and isinstance(self.resize, int):
            cropped = photo.resize(self.size[::-1], filtering, box=self.frame(photo.size))
        else:
            cropped = photo.resize((width, height), filtering).crop(self._crop((width, height)))
        pixels = torch.from_numpy(np.array(cropped)).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (self.mean, self.std))
        return ((pixels - mean) / std).contiguous()

    def frame(self, photo_size: tuple[int, int]) -> Frame:
        """The rectangle (x0, y0, x1, y1), in pixels, that the input shows of an upright photograph (width, height)."""
        width, height = self._resized(photo_size)
        x, y = photo_size[0] / width, photo_size[1] / height
        x0, y0, x1, y1 = self._crop((width, height))
        return x0 * x, y0 * y, x1 * x, y1 * y

    def _resized(self, photo_size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) of the photograph before the crop; the longer side is rounded down, as torchvision does."""
        if not isinstance(self.resize, int):
            return self.resize[1], self.resize[0]
        width, height = photo_size
        exact = float(self.resize)
        if self.longest is not None:
            exact = min(exact, self.longest * min(photo_size) / max(photo_size))
        if width <= height:
            return round(exact), int(exact * height / width)
        return int(exact * width / height), round(exact)

    def _crop(self, resized: tuple[int, int]) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1) of the crop in the resized photograph."""
        height, width = self.size or resized[::-1]
        x, y = round((resized[0] - width) / 2), round((resized[1] - height) / 2)
        return x, y, x + width, y + height
