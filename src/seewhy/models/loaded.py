"""A model with what it takes to use it on photographs: its preprocessing and the names of its classes."""

from __future__ import annotations

import dataclasses
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor, nn

from seewhy.errors import InputError, InputTypeError, ModelError

Frame = tuple[float, float, float, float]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_LONG = 8  # photographs longer than this many times their width are not resized whole: only their middle is shown

# what Pillow and its decoders raise on files that are damaged or no pictures
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, struct.error, zlib.error)


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


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model in eval mode, its preprocessing, a name per class where they are known, and what it is called.

    embed_text: its text side, if it has one, from N prompts to embeddings (N, D). The module then gives an embedding.
    """

    module: nn.Module
    preprocess: Preprocess
    labels: tuple[str, ...] | None
    name: str
    embed_text: Callable[[Sequence[str]], Tensor] | None = None

    def prepare(
        self, photos: Sequence[Any]
    ) -> tuple[Float[Tensor, "B 3 H W"], tuple[Image.Image, ...], tuple[Frame, ...]]:
        """The inputs of `photos` (PIL images or file names) on the model's device and in its precision.

        Also the photographs themselves, upright and RGB, and the rectangle of each that its input shows. Raises
        `InputError` for a file that is no picture, `InputTypeError` for what is neither a picture nor a file name.
        """
        opened = tuple(_open(photo) for photo in photos)
        if not opened:
            raise InputError("there are no photographs.", got="an empty list")
        weights = next((tensor for tensor in self.module.parameters() if tensor.is_floating_point()), torch.empty(0))
        seen = [self.preprocess(photo) for photo in opened]
        if len({image.shape for image in seen}) > 1:
            raise InputError(
                "this model sees photographs whole, and these differ in shape.",
                got=", ".join(f"{image.shape[1]} x {image.shape[2]}" for image in seen[:5]),
                do="explain them one at a time",
            )
        inputs = torch.stack(seen).to(weights)
        return inputs, opened, tuple(self.preprocess.frame(photo.size) for photo in opened)

    def to(self, device: torch.device | str) -> Loaded:
        """The same on `device`; the module itself moves. Raises `ModelError` if the device cannot be used."""
        return dataclasses.replace(self, module=self.module.to(usable(device)))


def own_labels(module: nn.Module) -> tuple[str, ...] | None:
    """The names of the classes that a model of transformers carries in its `config`, by index."""
    names = getattr(getattr(module, "config", None), "id2label", None)
    if not isinstance(names, Mapping) or sorted(names) != list(range(len(names))):
        return None
    return tuple(str(names[index]) for index in range(len(names)))


def usable(device: torch.device | str) -> torch.device:
    """`device`, once a tensor could be made on it. Raises `ModelError` with the reason if not."""
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:  # each back end has its own
        raise ModelError(
            f"the device {str(device)!r} cannot be used here.",
            got=str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
            do='pass device="cpu"',
        ) from error
    if found.type == "meta":
        raise ModelError("the device 'meta' holds no values to compute with.", do='pass device="cpu"')
    return found


def open_photo(path: str | Path) -> Image.Image:
    """The picture in a file, upright and RGB, the first one if there are several.

    Raises `InputError` naming the file and the cause: missing, a directory, empty, no picture, damaged, or larger than
    Pillow's limit against decompression bombs (`PIL.Image.MAX_IMAGE_PIXELS`).
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such file.")
    if not path.is_file():
        raise InputError(f"{path}: is a {'directory' if path.is_dir() else 'special file'}, not a picture.")
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty.")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            photo = Image.open(path)
        with photo:
            return upright(photo)
    except InputError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path}: the picture has more pixels than is safe to decode ({Image.MAX_IMAGE_PIXELS:,})."
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: is not a picture in any format that Pillow reads.") from error
    except PermissionError as error:
        raise InputError(f"{path}: may not be read ({error.strerror}).") from error
    except _UNREADABLE as error:
        raise InputError(f"{path}: the picture is damaged ({' '.join(str(error).split())}).") from error


def upright(photo: Image.Image) -> Image.Image:
    """`photo` turned as its EXIF orientation says, in RGB; 16-bit gray is scaled to 8, transparency dropped."""
    turned = ImageOps.exif_transpose(photo)
    if turned.mode == "RGB":
        return turned
    if turned.mode.startswith("I"):
        values = np.asarray(turned).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(
                "the picture's gray values are out of range.",
                got=f"{values.min()} to {values.max()}",
                expected="16 bits: 0 to 65535",
                do="convert it to 8 bits",
            )
        return Image.fromarray((values / 257).round().astype(np.uint8)).convert("RGB")
    if turned.mode == "F":
        raise InputError("the picture has floating point pixels, of unknown range.", do="convert it to 8 bits")
    if turned.mode == "P":
        turned = turned.convert("RGBA")
    return turned.convert("RGB")


def _open(photo: object) -> Image.Image:
    if isinstance(photo, Image.Image):
        return upright(photo)
    if isinstance(photo, str | Path):
        return open_photo(photo)
    raise InputTypeError(
        "this is not a photograph.", got=type(photo).__name__, expected="a PIL image or the name of a file"
    )
