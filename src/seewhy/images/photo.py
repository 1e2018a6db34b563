"""One decoder for photographs: the same picture comes out, whatever form it came in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from seewhy.errors import InputError, InputTypeError, warn

Photo: TypeAlias = Image.Image | NDArray[Any] | Tensor
TOLERANCE = 1e-3  # of [0, 1]: what resizing in floating point may overshoot

_CHANNELS = (1, 3, 4)
_MOST_BANDS = 64
_DARK, _LIGHT = 2, 98  # percentiles of a band that are drawn black and white

# Pillow's names of the formats that are read. Others are left out because their decoders start programs (EPS starts
# Ghostscript), are stubs, or are hardly tested on damaged files. HEIF counts where a plugin has registered it.
_FORMATS = (
    "PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000", "AVIF", "HEIF", "TGA", "ICO", "DIB", "QOI", "SGI",
    "SUN", "PCX",
)  # fmt: skip
_WIDE_GREY = ("PNG", "PPM")  # formats whose mode "I" means 16 bits; in the others its range is unknown


def rgb(photo: Photo) -> NDArray[np.uint8]:
    """The pixels of a photograph.

    Args:
        photo: a PIL image of any mode, an array (H, W), (H, W, C) or (C, H, W), or such a tensor, with C = 1, 3 or 4.
            See `opened` for the values.

    Returns:
        (H, W, 3), uint8, not writable.

    Raises:
        InputError: for values or a shape that would have to be guessed.
        InputTypeError: for anything else, file names included.
    """
    return np.asarray(_picture(photo, "this photograph"))


def opened(photo: Photo | str | Path) -> Image.Image:
    """A photograph in the one form that everything else works on: RGB, 8 bits, turned as EXIF says.

    What the values mean: uint8 is 0 to 255, 16 bits are 0 to 65535, floats are 0 to 1, bool is black and white.
    Integers of 32 bits have no known range and are refused, except in PNG and PPM files, where they hold 16 bits.
    Transparency is dropped. Grey becomes three equal channels. Arrays and tensors of 5 to 64 bands are drawn in false
    colours, with a warning that says which: see `false_colours`.

    Args:
        photo: what `rgb` takes, or the name of a file.

    Returns:
        A picture of its own: the one passed is not changed.

    Raises:
        InputError: for values or a shape that would have to be guessed, and for what `open_photo` refuses.
        InputTypeError: for what is no photograph.
    """
    return open_photo(photo) if isinstance(photo, str | Path) else _picture(photo, "this photograph")


def open_photo(path: str | Path) -> Image.Image:
    """The photograph in a file, in the form of `opened`. The first one of several is taken, with a warning.

    Args:
        path: a file in one of the formats that photographs have; EPS and PDF are not among them. "clip.gif#3" is the
            picture of that number, from 0, in a file of several.

    Raises:
        InputError: names the file and the cause: missing, a directory, or what `read_photo` refuses.
    """
    path, number = _numbered(Path(path))
    try:
        if not path.exists():
            raise InputError(f"{path}: there is no such file.")
        if not path.is_file():
            raise InputError(f"{path}: is a {'directory' if path.is_dir() else 'special file'}, not a picture.")
        with path.open("rb") as file:
            return read_photo(file, str(path), number)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error


def read_photo(file: BinaryIO, name: str, number: int | None = None) -> Image.Image:
    """The photograph in an open file, in the form of `opened`. The first one of several is taken, with a warning.

    Args:
        file: can be read and sought in.
        name: what messages call it.
        number: of one of several pictures; None is the first, with a warning where there are more.

    Raises:
        InputError: names the file and the cause: empty, no picture, damaged, of an unknown range of values, or larger
            than Pillow's limit against decompression bombs (`PIL.Image.MAX_IMAGE_PIXELS`).
    """
    try:
        if not file.read(1):
            raise InputError(f"{name}: the file is empty.")
        file.seek(0)
        photo, count = _decoded(file, name, number or 0)
    except (InputError, MemoryError):
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large(name) from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: is not a picture in any of the formats {', '.join(_FORMATS)}.") from error
    except Exception as error:  # a decoder raises whatever it trips over in a damaged file
        if isinstance(error, OSError) and error.errno:
            raise InputError(f"{name}: cannot be read ({error.strerror}).") from error
        raise InputError(f"{name}: the picture is damaged ({' '.join(str(error).split())}).") from error
    if count > 1 and number is None:
        warn(
            f'{name}: holds {count} pictures, and the first one is taken. For another one say its number, "{name}#1", '
            "or pass a PIL image: photo = PIL.Image.open(path); photo.seek(number)",
            UserWarning,
        )
    return _from_pil(photo, name)


def _numbered(path: Path) -> tuple[Path, int | None]:
    """A file and the number of one of its pictures, where the name says one."""
    name, mark, number = path.name.rpartition("#")
    if path.exists() or not (mark and name and number.isdecimal()):
        return path, None
    return path.with_name(name), int(number)


def _decoded(file: BinaryIO, name: str, number: int) -> tuple[Image.Image, int]:
    """The picture of that number in a file, turned upright, and how many pictures there are."""
    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    # given a name, Pillow maps the file into memory, and then reads grey TIFFs that lie on their side row by wrong row
    with Image.open(file, formats=formats) as photo:
        if photo.width * photo.height > (Image.MAX_IMAGE_PIXELS or float("inf")):
            raise _too_large(name)
        # the further pictures of a camera's MPO file are previews and depth, not other photographs
        count = 1 if photo.format == "MPO" else getattr(photo, "n_frames", 1)
        if not number < count:
            raise InputError(f"{name}: there is no picture {number}.", expected=f"0 to {count - 1}")
        if number:
            photo.seek(number)
        photo.load()
        return _upright(photo), count


def _too_large(name: str) -> InputError:
    return InputError(f"{name}: the picture has more pixels than is safe to decode ({Image.MAX_IMAGE_PIXELS:,}).")


def _upright(photo: Image.Image) -> Image.Image:
    """A copy turned as its EXIF orientation says, of the same format."""
    turned = ImageOps.exif_transpose(photo)
    turned.format = photo.format
    return turned


def _picture(photo: Photo, name: str) -> Image.Image:
    """`photo` as `opened` gives it; `name` is what messages call it."""
    if isinstance(photo, Image.Image):
        return _from_pil(_upright(photo), name)
    if isinstance(photo, Tensor):
        tensor = photo.detach().cpu()
        array = tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
        return Image.fromarray(_from_array(array, name, tensor=True))
    if isinstance(photo, np.ndarray):
        return Image.fromarray(_from_array(photo, name))
    raise InputTypeError(
        "this is no photograph.",
        got=type(photo).__name__,
        expected="a PIL image, a numpy array or a tensor",
        do="open files with PIL.Image.open",
    )


def _from_pil(photo: Image.Image, name: str) -> Image.Image:
    """An upright PIL image of any mode as RGB."""
    if photo.mode == "I":
        if photo.format not in _WIDE_GREY:
            raise InputError(
                f"{name} has 32-bit integers, whose range is not known.",
                got=f'mode "I", values from {" to ".join(map(str, photo.getextrema()))}',
                expected="8 or 16 bits, or floats in [0, 1]",
                do="scale the values to [0, 255] and convert them to uint8",
            )
        return Image.fromarray(_from_array(np.asarray(photo).astype(np.uint16), name))
    if photo.mode == "F" or photo.mode.startswith("I;16"):
        return Image.fromarray(_from_array(np.asarray(photo), name))
    if photo.mode in ("La", "RGBa"):  # colours multiplied by their opacity
        photo = photo.convert({"La": "LA", "RGBa": "RGBA"}[photo.mode])
    if photo.mode in ("P", "PA") or "transparency" in photo.info:
        photo = photo.convert("RGBA")  # straight to RGB, Pillow warns about palettes with transparency
    try:
        return photo.convert("RGB")
    except ValueError as error:  # LAB in older versions of Pillow
        raise InputError(
            f"{name} has colours that cannot be converted.", got=f"mode {photo.mode!r}", do="convert it to RGB first"
        ) from error


def _from_array(photo: NDArray[Any], name: str, *, tensor: bool = False) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of an array that holds one photograph."""
    what = f"{'a tensor' if tensor else 'an array'} of shape {photo.shape}"
    if (axis := _band_axis(photo.shape)) is not None:
        return false_colours(np.moveaxis(photo, axis, 0))
    photo = _levels(photo, name, what)
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


def false_colours(bands: NDArray[Any], colours: tuple[int, int, int] | None = None) -> NDArray[np.uint8]:
    """Three bands of a picture of many as red, green and blue, whatever its units.

    Each is drawn black at its own 2nd percentile and white at its 98th, and linear between.

    Args:
        bands: (C, H, W), of any real type.
        colours: the numbers, from 0, of the bands that are drawn as red, green and blue. None takes 3, 2, 1 of 12 bands
            or more, which are the visible ones of Sentinel-2 in this order, and 2, 1, 0 of fewer, as other satellites
            count from blue; it is said in a warning.

    Returns:
        (H, W, 3), uint8.

    Raises:
        InputError: for a band that does not exist.
    """
    shown = colours or ((3, 2, 1) if len(bands) >= 12 else (2, 1, 0))
    if not all(0 <= band < len(bands) for band in shown):
        raise InputError("there is no such band.", got=shown, expected=f"0 to {len(bands) - 1}")
    if colours is None:
        red, green, blue = shown
        warn(
            f"a picture of {len(bands)} bands is drawn in false colours: band {red} is red, {green} green, {blue} blue"
            ", each by its own range. For others: seewhy.images.photo.false_colours(bands, (red, green, blue))",
            UserWarning,
        )
    drawn = []
    for band in shown:
        values = bands[band].astype(np.float64)
        low, high = np.nanpercentile(values, (_DARK, _LIGHT))
        drawn.append(np.nan_to_num((values - low) / (high - low if high > low else 1)).clip(0, 1))
    levels: NDArray[np.uint8] = np.rint(255 * np.stack(drawn, -1)).astype(np.uint8)
    return levels


def _band_axis(shape: tuple[int, ...]) -> int | None:
    """Where the bands of a picture of many are: at the one end that is shorter than both other sides."""
    if len(shape) != 3 or any(side in _CHANNELS for side in (shape[0], shape[2])):
        return None
    ends = [axis for axis in (0, 2) if 4 < shape[axis] <= _MOST_BANDS and shape[axis] < min(shape[1], shape[2 - axis])]
    return ends[0] if ends else None


def _levels(values: NDArray[Any], name: str, what: str) -> NDArray[np.uint8]:
    """`values` in 256 levels, by the range that their type has."""
    if values.dtype == np.uint8:
        return values
    white = 1.0
    if values.dtype.kind == "f":
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # NaN fails as well
            raise InputError(
                f"{name} has values out of range.",
                got=f"floats from {low:.4g} to {high:.4g}",
                expected="floats in [0, 1], none of them NaN, or uint8",
                do="pass the photograph before normalisation; divide by 255 if it runs to 255",
            )
    elif values.dtype.kind == "u" and values.dtype.itemsize == 2:
        white = 65535.0
    elif values.dtype != np.bool_:
        raise InputError(
            f"{name} has values of a type without a known range.",
            got=f"{what} and type {values.dtype}",
            expected="uint8, uint16, bool, or floats in [0, 1]",
            do="convert it to uint8",
        )
    levels: NDArray[np.uint8] = np.rint(values.astype(np.float32).clip(0, white) * (255 / white)).astype(np.uint8)
    return levels


def _channel_axis(shape: tuple[int, ...], *, tensor: bool) -> int | None:
    """Where the channels are: last in an array, where that can be; in a tensor at the one end that can hold them."""
    ends = [axis for axis in (2, 0) if len(shape) == 3 and shape[axis] in _CHANNELS]
    return ends[0] if ends and (len(ends) == 1 or not tensor) else None
