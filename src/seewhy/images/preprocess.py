"""How a photograph becomes a model's input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from seewhy._types import Frame
from seewhy.errors import ModelError
from seewhy.images.photo import Photo, opened

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_LUMA = (0.299, 0.587, 0.114)

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

    Attributes:
        size: (H, W) of the input, in pixels. None shows the whole photograph, as it was resized.
        resize: what the shorter side of the photograph is resized to before the crop, its aspect ratio kept; or (H, W),
            whatever that does to the aspect ratio.
        mean: per channel, for values in [0, 1]. Three for a model of colours, one for a model of grey levels.
        std: as many as `mean`.
        interpolation: the filter of the resize, with antialiasing, as Pillow has it.
        longest: what the longer side may come to. The shorter one then gives way.

    Raises:
        ModelError: for a crop larger than the resize, an unknown filter, or other than one or three channels.
    """

    size: tuple[int, int] | None = (224, 224)
    resize: int | tuple[int, int] = 256
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
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
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise ModelError(
                "mean and std do not name the channels.",
                got=f"{len(self.mean)} means and {len(self.std)} standard deviations",
                expected="three of each for colours, one of each for grey levels",
            )

    @property
    def channels(self) -> int:
        """How many channels the input has: 3 for colours, 1 for grey levels."""
        return len(self.mean)

    def gray(self) -> Preprocess:
        """The same for a model of grey levels.

        The one mean and standard deviation are those of the colours, weighted as Pillow weights colours for grey (ITU-R
        601-2). So the mean is exact; the standard deviation is exact where the channels vary together. If the model was
        trained with others, pass these: `Preprocess(mean=(0.5,), std=(0.5,))`.

        Returns:
            The preprocessing of one channel.
        """
        if self.channels == 1:
            return self
        mean, std = (sum(w * v for w, v in zip(_LUMA, values, strict=True)) for values in (self.mean, self.std))
        return replace(self, mean=(mean,), std=(std,))

    def __call__(self, photo: Photo | str | Path) -> Float[Tensor, "C H W"]:
        """The model's input for one photograph.

        Args:
            photo: a PIL image, a file name, an array or a tensor; see `seewhy.images.photo.opened`.

        Returns:
            (C, H, W), float32, with C = `channels`.

        Raises:
            InputError: for what is no photograph.
        """
        picture = opened(photo).convert("L" if self.channels == 1 else "RGB")
        width, height = self._resized(picture.size)
        filtering = _FILTERS[self.interpolation]
        if self.size and max(picture.size) > _LONG * min(picture.size) and isinstance(self.resize, int):
            cropped = picture.resize(self.size[::-1], filtering, box=self.frame(picture.size))
        else:
            cropped = picture.resize((width, height), filtering).crop(self._crop((width, height)))
        levels = torch.from_numpy(np.array(cropped)).reshape(cropped.height, cropped.width, self.channels)
        pixels = levels.permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (self.mean, self.std))
        return ((pixels - mean) / std).contiguous()

    def frame(self, photo_size: tuple[int, int]) -> Frame:
        """The part of a photograph that the input shows.

        Args:
            photo_size: (width, height) of the upright photograph, in pixels.

        Returns:
            (x0, y0, x1, y1), in pixels of the photograph.
        """
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
