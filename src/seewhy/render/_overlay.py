"""Heatmaps over photographs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from seewhy.errors import InputError, InputTypeError
from seewhy.images import arrays
from seewhy.images.photo import TOLERANCE, Photo, rgb

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

    from seewhy._types import Frame
    from seewhy.results.explanation import Explanation, Scaling

Mode = Literal["blend", "opacity"]
Resize = Literal["nearest", "bilinear", "bicubic"]


def overlay(
    photo: Photo,
    heatmap: Tensor | NDArray[Any],
    *,
    colormap: str | Colormap = "jet",
    alpha: float = 0.5,
    mode: Mode = "blend",
    resize: Resize = "bilinear",
    frame: Frame | None = None,
) -> Image.Image:
    """`heatmap` (H, W) of values in [0, 1], any size, in colours over one `photo`: an RGB image of the photo's size.

    mode "blend" mixes (1 - alpha) of the photo with alpha of the colours. In mode "opacity" the map is its own opacity:
    blurred by 2% of the photo's longer side, scaled by its own range to m, it is mixed with weight m ** 0.7, and
    `alpha` is unused. `frame` is the rectangle (x0, y0, x1, y1) of the photo, in its pixels, that the map covers;
    outside of it the photo is left as it is. `colormap` is a matplotlib colormap or the name of one.

    photo: PIL of any mode, EXIF orientation applied; an array (H, W[, 1 | 3 | 4]) or tensor ([C,] H, W) of uint8, or of
    floats in [0, 1]. Transparency is dropped. Raises InputError for anything that would have to be guessed.
    """
    if not 0 <= alpha <= 1:
        raise InputError("alpha is out of range.", got=alpha, expected="a number in [0, 1]")
    if mode not in ("blend", "opacity"):
        raise InputError("unknown overlay mode.", got=repr(mode), expected='"blend" or "opacity"')
    pixels = rgb(photo)
    heat, covered = placed(_checked(heatmap), pixels.shape[:2], frame, resize)
    weight = torch.full_like(heat, alpha)
    if mode == "opacity":
        heat = arrays.rescale(arrays.blur(heat, 0.02 * max(heat.shape)), (0, 1)).clamp(0, 1)
        weight = heat**0.7
    share = torch.where(covered, weight, 0).numpy()[..., None]
    mixed = pixels * (1 - share) + _painted(heat, colormap) * share
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def overlays(
    explanation: Explanation,
    photos: Photo | Sequence[Photo] | None = None,
    *,
    scaling: Scaling = "per_image",
    target: int | None = None,
    slice_index: int | None = None,
    colormap: str | Colormap | None = None,
    alpha: float = 0.5,
    mode: Mode = "blend",
    resize: Resize = "bilinear",
) -> list[Image.Image]:
    """One overlay per image; for T targets B * T, all of the first image first, unless `target` picks one of them.

    photos: a list, a batched array or tensor, or a single photo for B = 1; the explanation's own where none are given.
    They are the originals: where the explanation has frames, each map is put into its photo's frame. scaling "none"
    shows signed maps, each symmetric about 0, on "coolwarm" unless told. Of a volume one slice along D is drawn,
    `slice_index` or the one with most heat, over the same slice of a ([C,] D, H, W) photo.
    """
    if scaling == "none" and mode == "opacity":
        raise InputError("opacity has no sign.", got='scaling="none" with mode="opacity"', do='mode="blend"')
    if photos is None and explanation.photos is None:
        raise InputError(
            "there are no photographs to draw on.",
            got="an explanation of tensors, and no photos",
            do="pass the photographs before normalisation: explanation.overlay(photos)",
        )
    colormap = default_colormap(scaling) if colormap is None else colormap
    return [
        overlay(drawn.photo, drawn.heat, colormap=colormap, alpha=alpha, mode=mode, resize=resize, frame=drawn.frame)
        for drawn in drawings(
            explanation, photos, scaling=scaling, target=target, slice_index=slice_index, resize=resize
        )
        if drawn.photo is not None
    ]


class Drawing(NamedTuple):
    """One map to draw, of image number `image` and target number `target` (None where there is one per image).

    heat: (H, W) in [0, 1], on the CPU. limits: the values that 0 and 1 stand for. frame: the part of `photo` it covers.
    depth: the slice of a volume, None for images.
    """

    image: int
    target: int | None
    heat: Float[Tensor, "H W"]
    limits: tuple[float, float]
    photo: NDArray[np.uint8] | None
    frame: Frame | None
    depth: int | None


def drawings(
    explanation: Explanation,
    photos: Photo | Sequence[Photo] | None,
    *,
    scaling: Scaling = "per_image",
    target: int | None = None,
    slice_index: int | None = None,
    resize: Resize = "bilinear",
) -> Iterator[Drawing]:
    """What there is to draw, image by image and target by target; one photo at a time is brought into form.

    `photo` is None where there are neither `photos` nor photos of the explanation. Options are those of `overlays`.
    """
    space = len(explanation.size)
    _check_resize(resize)
    values = explanation.scaled(scaling, mode="bilinear" if space == 3 else resize).detach().cpu()
    several = values.ndim == space + 2
    wanted: Sequence[int | None] = [None]
    if several:
        wanted = range(values.shape[1])
    if target is not None:
        if not several or not 0 <= target < values.shape[1]:
            has = f"{values.shape[1]} targets per image" if several else "one target per image"
            raise InputError("there is no such target.", got=f"target={target}", expected=f"a target out of {has}")
        wanted = [target]
    found = explanation.photos if photos is None else listed(photos, len(explanation), space)
    for image in range(len(explanation)):
        for which in wanted:
            yield _drawing(explanation, values, found, scaling, image, which, slice_index)


def _drawing(
    explanation: Explanation,
    values: Tensor,
    photos: Sequence[Photo] | None,
    scaling: Scaling,
    image: int,
    target: int | None,
    slice_index: int | None,
) -> Drawing:
    heat = values[image] if target is None else values[image, target]
    photo = None if photos is None else photos[image]
    limits = (0.0, 1.0)
    if scaling == "none":
        peak = float(heat.abs().amax())
        limits = (-peak, peak)
        heat = 0.5 + heat / (2 * peak) if peak else torch.full_like(heat, 0.5)
    depth = None
    if heat.ndim == 3:
        strength = (heat - 0.5).abs() if scaling == "none" else heat
        depth = int(strength.sum((1, 2)).argmax()) if slice_index is None else slice_index
        if not 0 <= depth < len(heat):
            raise InputError("there is no such slice.", got=f"slice_index={depth}", expected=f"0 to {len(heat) - 1}")
        photo = None if photo is None else _slice(photo, depth, len(heat))
        heat = heat[depth]
    elif slice_index is not None:
        raise InputError("these are images, not volumes.", got=f"slice_index={slice_index}", do="leave it out")
    frame = None if explanation.frames is None else explanation.frames[image]
    return Drawing(image, target, heat, limits, None if photo is None else rgb(photo), frame, depth)


def default_colormap(scaling: Scaling) -> str:
    """The name of the colormap for maps of one sign, or, for unscaled ones, of two."""
    return "coolwarm" if scaling == "none" else "jet"


def find_colormap(colormap: str | Colormap) -> Colormap:
    """The matplotlib colormap of that name; an unknown name is an InputError with those that come close."""
    import matplotlib
    from matplotlib.colors import Colormap

    if isinstance(colormap, Colormap):
        return colormap
    if not isinstance(colormap, str):
        raise InputTypeError(
            "this is no colormap.", got=type(colormap).__name__, expected="a matplotlib Colormap or its name"
        )
    known = list(matplotlib.colormaps)
    if colormap not in known:
        by_case = {name.lower(): name for name in known}
        close = [by_case[name] for name in difflib.get_close_matches(colormap.lower(), by_case)]
        raise InputError(
            "unknown colormap.",
            got=repr(colormap),
            expected=" or ".join(map(repr, close)) or "a name in matplotlib.colormaps",
        )
    return matplotlib.colormaps[colormap]


def listed(photos: Photo | Sequence[Photo], count: int, space: int) -> Sequence[Photo]:
    """One photo (or volume, for `space` = 3) per image."""
    if isinstance(photos, Image.Image) or (isinstance(photos, np.ndarray | Tensor) and photos.ndim < space + 2):
        photos = [photos]
    if not isinstance(photos, np.ndarray | Tensor | list | tuple):
        raise InputTypeError(
            "these are no photographs.",
            got=type(photos).__name__,
            expected="a list of PIL images, arrays or tensors, or a batched array or tensor",
        )
    if len(photos) != count:
        raise InputError(
            "the photographs do not match the explanation.",
            got=f"{len(photos)} photograph{'s' if len(photos) != 1 else ''}",
            expected=f"{count}, one per explained image",
        )
    return list(photos)


def _slice(volume: Photo, depth: int, deep: int) -> Photo:
    """Slice `depth` of a ([C,] D, H, W) volume with D = `deep`."""
    shape = () if isinstance(volume, Image.Image) else tuple(volume.shape)
    if isinstance(volume, Image.Image) or len(shape) not in (3, 4) or shape[-3] != deep:
        raise InputError(
            "a volume's map is drawn over a volume.",
            got=f"{type(volume).__name__} of shape {shape}" if shape else "a PIL image",
            expected=f"an array or tensor (D, H, W) or (C, D, H, W) with D = {deep}",
            do="for one slice use seewhy.render.overlay(photo, explanation.heatmap[image, depth])",
        )
    return volume[..., depth, :, :]


def _checked(heatmap: Tensor | NDArray[Any]) -> Float[Tensor, "H W"]:
    heat = torch.as_tensor(heatmap).detach().cpu().float()
    if heat.ndim != 2 or not heat.numel():
        raise InputError(
            "an overlay takes one flat map.",
            got=f"shape {tuple(heat.shape)}",
            expected="(H, W)",
            do="index one map of a batch, and one slice of a volume: heatmap[image, depth]",
        )
    low, high = float(heat.min()), float(heat.max())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # NaN fails as well
        raise InputError(
            "the heatmap's values are out of range.",
            got=f"values from {low:.4g} to {high:.4g}",
            expected="values in [0, 1], none of them NaN",
            do="use explanation.heatmap, or divide an 8-bit map by 255",
        )
    return heat.clamp(0, 1)


def _check_resize(resize: str) -> None:
    if resize not in ("nearest", "bilinear", "bicubic"):
        raise InputError("unknown way to resize.", got=repr(resize), expected='"nearest", "bilinear" or "bicubic"')


def placed(
    heat: Float[Tensor, "h w"], size: tuple[int, ...], frame: Frame | None, resize: Resize
) -> tuple[Float[Tensor, "H W"], Bool[Tensor, "H W"]]:
    """The map at the photo's `size`, 0 outside the frame; and which of the photo's pixels have their centre in it."""
    _check_resize(resize)
    height, width = size
    x0, y0, x1, y1 = frame or (0, 0, width, height)
    if not (x0 < x1 and y0 < y1 and x0 < width and x1 > 0 and y0 < height and y1 > 0):
        raise InputError(
            "the frame does not lie on the photograph.",
            got=f"{frame} on a photograph {width} wide and {height} high",
            expected="(x0, y0, x1, y1) in pixels of the photograph, x0 < x1 and y0 < y1",
            do="pass the original photographs, not the model's input",
        )
    if (x0, y0, x1, y1) == (0, 0, width, height):
        return arrays.resize(heat, (height, width), resize).clamp(0, 1), torch.ones(height, width, dtype=torch.bool)
    x = ((torch.arange(width, dtype=torch.float64) + 0.5 - x0) / (x1 - x0)).float()  # 0 to 1 across the frame
    y = ((torch.arange(height, dtype=torch.float64) + 0.5 - y0) / (y1 - y0)).float()
    places = torch.stack(torch.meshgrid(2 * x - 1, 2 * y - 1, indexing="xy"), -1)
    sampled = F.grid_sample(heat[None, None], places[None], mode=resize, padding_mode="border", align_corners=False)
    covered = ((y >= 0) & (y < 1))[:, None] & ((x >= 0) & (x < 1))
    return torch.where(covered, sampled[0, 0].clamp(0, 1), 0), covered


def _painted(heat: Float[Tensor, "H W"], colormap: str | Colormap) -> NDArray[np.float32]:
    """The map in colours: (H, W, 3) in [0, 255]."""
    colours = find_colormap(colormap)
    table = np.asarray(colours(np.arange(colours.N)), np.float32)[:, :3] * 255
    painted: NDArray[np.float32] = table[(heat * colours.N).long().clamp(max=colours.N - 1).numpy()]
    return painted
