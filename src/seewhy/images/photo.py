"""Photographs in the one form that everything is drawn on: whatever form the same one comes in, it is the same."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from seewhy.errors import InputError, InputTypeError

Photo: TypeAlias = Image.Image | NDArray[Any] | Tensor
TOLERANCE = 1e-3  # of [0, 1]: what resizing in floating point may overshoot

_CHANNELS = (1, 3, 4)

# what Pillow and its decoders raise on files that are damaged or no pictures
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, struct.error, zlib.error)


def rgb(photo: Photo) -> NDArray[np.uint8]:
    """A photograph in the one form everything is drawn on: (H, W, 3) uint8. See `overlay` for what it may be."""
    if isinstance(photo, Image.Image):
        return _from_pil(photo)
    if isinstance(photo, Tensor):
        tensor = photo.detach().cpu()
        return _from_array(tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy(), tensor=True)
    if isinstance(photo, np.ndarray):
        return _from_array(photo)
    raise InputTypeError(
        "this is no photograph.",
        got=type(photo).__name__,
        expected="a PIL image, a numpy array or a tensor",
        do="open files with PIL.Image.open",
    )


def _from_pil(photo: Image.Image) -> NDArray[np.uint8]:
    upright = ImageOps.exif_transpose(photo)
    if upright.mode.startswith("I;16") or upright.mode == "F":
        return _from_array(np.asarray(upright))
    if upright.mode == "I":
        raise InputError(
            "a PIL image of 32-bit integers has no known range.",
            got='mode "I"',
            do="scale it to [0, 255] and convert it to uint8",
        )
    if "transparency" in upright.info:
        upright = upright.convert("RGBA")  # straight to RGB, Pillow warns about palettes with transparency
    return np.asarray(upright.convert("RGB"))


def _from_array(photo: NDArray[Any], *, tensor: bool = False) -> NDArray[np.uint8]:
    what = f"{'a tensor' if tensor else 'an array'} of shape {photo.shape}"
    if photo.dtype.kind == "f":
        low, high = (float(photo.min()), float(photo.max())) if photo.size else (0.0, 0.0)
        if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # NaN fails as well
            raise InputError(
                "this photograph's values are out of range.",
                got=f"floats from {low:.4g} to {high:.4g}",
                expected="floats in [0, 1], none of them NaN, or uint8",
                do="pass the photograph before normalisation; divide by 255 if it runs to 255",
            )
        photo = np.rint(photo.astype(np.float32).clip(0, 1) * 255).astype(np.uint8)
    elif photo.dtype.kind == "u" and photo.dtype.itemsize == 2:
        photo = np.rint(photo / 257).astype(np.uint8)  # 65535 = 257 * 255
    elif photo.dtype != np.uint8:
        raise InputError(
            "this photograph's type has no known range.",
            got=f"{what} and type {photo.dtype}",
            expected="uint8, or floats in [0, 1]",
            do="convert it to uint8",
        )
    if photo.ndim == 2 and photo.size:
        return np.stack([photo] * 3, -1)
    axis = _channel_axis(photo.shape, tensor=tensor)
    if axis is None or not photo.size:
        raise InputError(
            "this shape is not that of one photograph, or could be read in two ways.",
            got=what,
            expected="(C, H, W), (H, W, C) or (H, W), with C = 1, 3 or 4, and only one such reading",
            do="index one photograph of a batch; where the shape is ambiguous pass a numpy array (H, W, C)",
        )
    colours = np.moveaxis(photo, axis, -1)[..., :3]
    return np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)))


def _channel_axis(shape: tuple[int, ...], *, tensor: bool) -> int | None:
    """Where the channels are: last in an array, where that can be; in a tensor at the one end that can hold them."""
    ends = [axis for axis in (2, 0) if len(shape) == 3 and shape[axis] in _CHANNELS]
    return ends[0] if ends and (len(ends) == 1 or not tensor) else None


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


def opened(photo: object) -> Image.Image:
    if isinstance(photo, Image.Image):
        return upright(photo)
    if isinstance(photo, str | Path):
        return open_photo(photo)
    raise InputTypeError(
        "this is not a photograph.", got=type(photo).__name__, expected="a PIL image or the name of a file"
    )
