"""Heatmaps over photographs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from seewhy.errors import InputError, InputTypeError, warn
from seewhy.images import arrays
from seewhy.images.photo import TOLERANCE, Photo, rgb
from seewhy.render._colormap import DEFAULT, colours, default_colormap

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

    from seewhy._types import Frame
    from seewhy.results.explanation import Explanation, Scaling

Mode = Literal["blend", "opacity"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]


def overlay(
    photo: Photo,
    heatmap: Tensor | NDArray[Any],
    *,
    colormap: str | Colormap = DEFAULT,
    alpha: float = 0.5,
    mode: Mode = "blend",
    interpolation: Interpolation = "bilinear",
    contours: Sequence[float] = (),
    frame: Frame | None = None,
) -> Image.Image:
    """One heatmap in colours over one photograph.

    Args:
        photo: a PIL image of any mode, its EXIF orientation applied; an array (H, W[, 1 | 3 | 4]) or a tensor
            ([C,] H, W), of uint8 or of floats in [0, 1]. Transparency is dropped.
        heatmap: (h, w) of values in [0, 1], of any size.
        colormap: a matplotlib colormap or the name of one.
        alpha: the share of the colours in mode "blend", from 0 to 1; the rest is photograph.
        mode: "blend" mixes photograph and colours alike everywhere. In "opacity" the map is its own opacity: it is
            blurred by 2% of the photograph's longer side and scaled by its own range to m; the share of the colours is
            m ** 0.7, and `alpha` is not used.
        interpolation: "bilinear" or "bicubic" between the places of the map; "nearest" shows them as cells.
        contours: levels of the map, in (0, 1), at which lines are drawn.
        frame: the rectangle (x0, y0, x1, y1), in pixels of the photograph, that the map covers. The photograph outside
            of it stays as it is. None is all of the photograph.

    Returns:
        An RGB image of the photograph's size.

    Raises:
        InputError: for an option out of range, and for a photograph or a map that would have to be guessed.
    """
    if not 0 <= alpha <= 1:
        raise InputError("alpha is out of range.", got=alpha, expected="a number in [0, 1]")
    if mode not in ("blend", "opacity"):
        raise InputError("unknown overlay mode.", got=repr(mode), expected='"blend" or "opacity"')
    pixels = rgb(photo)
    heat, covered = placed(_checked(heatmap), pixels.shape[:2], frame, interpolation)
    weight = torch.full_like(heat, alpha)
    if mode == "opacity":
        heat = arrays.rescale(arrays.blur(heat, 0.02 * max(heat.shape)), (0, 1)).clamp(0, 1)
        weight = heat**0.7
    share = torch.where(covered, weight, 0)[..., None]
    mixed = torch.from_numpy(pixels.astype(np.float32)).lerp_(_coloured(heat, colormap), share)
    for level in contours:
        _outline(mixed, heat, covered, level)
    return Image.fromarray(mixed.round_().to(torch.uint8).numpy())


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
    interpolation: Interpolation = "bilinear",
    contours: Sequence[float] = (),
    frame: Frame | Sequence[Frame] | None = None,
) -> list[Image.Image]:
    """The heatmaps of an explanation over its photographs. A map with nothing in it is not drawn; the picture says so.

    Args:
        explanation: of B images and T targets for each.
        photos: the originals: a list, a batched array or tensor, or a single photograph for B = 1. None takes the
            explanation's own.
        scaling: as in `Explanation.scaled`. "none" shows signed maps, each symmetric about 0.
        target: the number of one target; None draws all of them.
        slice_index: the slice along D to draw of a volume, over the same slice of a ([C,] D, H, W) photograph. None is
            the one with most heat.
        colormap: as for `overlay`; None is "ember", for signed maps "coolwarm".
        alpha: as for `overlay`.
        mode: as for `overlay`.
        interpolation: as for `overlay`.
        contours: as for `overlay`.
        frame: the part of the photographs that the model saw: a rectangle (x0, y0, x1, y1) in pixels, or one for each
            photograph. None takes the explanation's own. Without any, the map is drawn over the whole photograph, with
            a warning where the photograph's shape is not that of the model's input.

    Returns:
        A picture for each image, of its photograph's size; for T targets B * T of them, all of the first image first.

    Raises:
        InputError: where there are no photographs, or one of the arguments does not fit the explanation.
    """
    if len(explanation.size) == 1:
        raise InputError("a signal is no photograph to draw on.", got=explanation, do="explanation.figure(signals)")
    if scaling == "none" and mode == "opacity":
        raise InputError("opacity has no sign.", got='scaling="none" with mode="opacity"', do='mode="blend"')
    if photos is None and explanation.photos is None:
        raise InputError(
            "there are no photographs to draw on.",
            got="an explanation of tensors, and no photos",
            do="pass the photographs before normalisation: explanation.overlay(photos)",
        )
    every = drawings(
        explanation,
        photos,
        scaling=scaling,
        target=target,
        slice_index=slice_index,
        interpolation=interpolation,
        frame=frame,
    )
    colormap = default_colormap(scaling) if colormap is None else colormap
    options = {"alpha": alpha, "mode": mode, "interpolation": interpolation, "contours": contours}
    return [painted(drawn, colormap=colormap, **options) for drawn in every]


class Drawing(NamedTuple):
    """One map to draw.

    Attributes:
        image: the number of the image.
        target: the number of the target; None where there is one per image.
        heat: (H, W) in [0, 1], on the CPU.
        limits: the values that 0 and 1 stand for.
        photo: the photograph, (H, W, 3); None where there is none.
        frame: the part of the photograph that the map covers; None is all of it.
        depth: the slice of a volume, None for images.
        blank: why there is nothing to draw, "" where there is something.
    """

    image: int
    target: int | None
    heat: Float[Tensor, "H W"]
    limits: tuple[float, float]
    photo: NDArray[np.uint8] | None
    frame: Frame | None
    depth: int | None
    blank: str


def drawings(
    explanation: Explanation,
    photos: Photo | Sequence[Photo] | None,
    *,
    scaling: Scaling = "per_image",
    target: int | None = None,
    slice_index: int | None = None,
    interpolation: Interpolation = "bilinear",
    frame: Frame | Sequence[Frame] | None = None,
) -> Iterator[Drawing]:
    """What there is to draw, image by image and target by target. Options are those of `overlays`.

    One photograph at a time is brought into form. A drawing has no photograph where there are neither `photos` nor
    photographs of the explanation.
    """
    space = len(explanation.size)
    _check(interpolation)
    values = explanation.scaled(scaling, mode="bilinear" if space == 3 else interpolation).detach().cpu()
    wanted = numbers_of(values, space, target)
    found = explanation.photos if photos is None else listed(photos, len(explanation), space)
    given = _frames(frame, len(explanation))
    warned = False
    for image in range(len(explanation)):
        photo = None if found is None else found[image]
        for which in wanted:
            heat = values[image] if which is None else values[image, which]
            signed = scaling == "none"
            span, heat = limits(heat, signed=signed)
            heat, depth = _slice(heat, slice_index, signed=signed)
            if photo is not None and depth is not None:
                pixels: NDArray[np.uint8] | None = rgb(_photo_slice(photo, depth, values.shape[-3]))
            else:
                pixels = None if photo is None else rgb(photo)
            place = None
            if given is not None:
                place = given[image]
            elif pixels is not None:
                place, problem = _own_frame(explanation, image, pixels.shape[1::-1])
                if problem and not warned:
                    warned = True
                    warn(problem, UserWarning)
            blank = explanation.blank(image, which, scaling)
            yield Drawing(image, which, heat, span, pixels, place, depth, blank)


def painted(drawn: Drawing, **options: Any) -> Image.Image:
    """A drawing's overlay, with the options of `overlay`; of a blank map the photograph, with a line that says so."""
    assert drawn.photo is not None
    if not drawn.blank:
        return overlay(drawn.photo, drawn.heat, frame=drawn.frame, **options)
    picture = Image.fromarray(drawn.photo)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(9, picture.width // 24))
    letters = max(1, int(picture.width / font.getlength("n")))
    text = "\n".join(textwrap.wrap(f"blank map: {drawn.blank}", letters))
    draw.rectangle((0, 0, picture.width, draw.multiline_textbbox((3, 3), text, font=font)[3] + 3), fill="black")
    draw.multiline_text((3, 3), text, fill="white", font=font)
    return picture


def numbers_of(values: Tensor, space: int, target: int | None) -> Sequence[int | None]:
    """The numbers of the targets to draw, out of maps (B, [T,] *size) with `space` axes; None where there is no T."""
    several = values.ndim == space + 2
    if target is None:
        return range(values.shape[1]) if several else [None]
    if not several or not 0 <= target < values.shape[1]:
        has = f"{values.shape[1]} targets per image" if several else "one target per image"
        raise InputError("there is no such target.", got=f"target={target}", expected=f"a target out of {has}")
    return [target]


def limits(heat: Tensor, *, signed: bool) -> tuple[tuple[float, float], Tensor]:
    """The values that 0 and 1 stand for, and the map in these terms."""
    if not signed:
        return (0.0, 1.0), heat
    peak = float(heat.abs().amax())
    return (-peak, peak), 0.5 + heat / (2 * peak) if peak > 0 else torch.full_like(heat, 0.5)


def _slice(heat: Tensor, wanted: int | None, *, signed: bool) -> tuple[Float[Tensor, "H W"], int | None]:
    """The slice of a volume's map to draw and its number; the map of an image as it is, and None."""
    if heat.ndim == 2:
        if wanted is not None:
            raise InputError("these are images, not volumes.", got=f"slice_index={wanted}", do="leave it out")
        return heat, None
    strength = (heat - 0.5).abs() if signed else heat
    depth = int(strength.sum((1, 2)).argmax()) if wanted is None else wanted
    if not 0 <= depth < len(heat):
        raise InputError("there is no such slice.", got=f"slice_index={depth}", expected=f"0 to {len(heat) - 1}")
    return heat[depth], depth


def _frames(frame: Any, count: int) -> Sequence[Frame] | None:
    """The frame of each photograph, where the caller gave any."""
    if frame is None:
        return None
    frames = [frame] * count if len(frame) == 4 and not isinstance(frame[0], Sequence) else list(frame)
    if len(frames) != count or any(len(each) != 4 for each in frames):
        raise InputError(
            "the frames do not match the explanation.",
            got=f"frame={frame}",
            expected=f"(x0, y0, x1, y1) in pixels, or {count} of them, one per explained image",
        )
    return [tuple(each) for each in frames]


def _own_frame(explanation: Explanation, image: int, size: tuple[int, int]) -> tuple[Frame | None, str]:
    """What the explanation knows of the part that the model saw of a photograph, of `size` (width, height).

    Returns:
        The frame, None for all of the photograph; and what is wrong with that, "" if nothing is.
    """
    frame = None if explanation.frames is None else explanation.frames[image]
    own = None if explanation.photos is None else explanation.photos[image].size
    if frame is not None and (own is None or own == size):
        return frame, ""
    if frame is not None and own is not None and _alike(own, size):
        across, down = size[0] / own[0], size[1] / own[1]
        return (frame[0] * across, frame[1] * down, frame[2] * across, frame[3] * down), ""
    seen = explanation.size[:-3:-1] if own is None or frame is None else own
    if frame is None and (explanation.extents is not None or _alike(seen, size)):
        return None, ""
    return None, (
        f"the photograph of image {image} is {size[0]} x {size[1]}, and what was explained {seen[0]} x {seen[1]}: the "
        "map is stretched over the whole photograph. If the model saw only a part of it, such as a centre crop, pass "
        f"frame=(x0, y0, x1, y1), that part in pixels; frame=(0, 0, {size[0]}, {size[1]}) says that it saw all of it."
    )


def _alike(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Whether two sizes are of one shape, but for a pixel of rounding in each side of the smaller one."""
    small, large = sorted((first, second))
    scales = [((side - 1) / of, (side + 1) / of) for side, of in zip(small, large, strict=True)]
    return max(low for low, _ in scales) <= min(high for _, high in scales)


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


def _photo_slice(volume: Photo, depth: int, deep: int) -> Photo:
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


def _check(interpolation: str) -> None:
    if interpolation not in ("nearest", "bilinear", "bicubic"):
        raise InputError(
            "unknown interpolation.", got=repr(interpolation), expected='"nearest", "bilinear" or "bicubic"'
        )


def placed(
    heat: Float[Tensor, "h w"], size: tuple[int, ...], frame: Frame | None, interpolation: Interpolation
) -> tuple[Float[Tensor, "H W"], Bool[Tensor, "H W"]]:
    """The map at the photo's `size`, 0 outside the frame; and which of the photo's pixels have their centre in it."""
    _check(interpolation)
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
        return arrays.resize(heat, (height, width), interpolation).clamp(0, 1), torch.ones(
            height, width, dtype=torch.bool
        )
    x = ((torch.arange(width, dtype=torch.float64) + 0.5 - x0) / (x1 - x0)).float()  # 0 to 1 across the frame
    y = ((torch.arange(height, dtype=torch.float64) + 0.5 - y0) / (y1 - y0)).float()
    places = torch.stack(torch.meshgrid(2 * x - 1, 2 * y - 1, indexing="xy"), -1)
    sampled = F.grid_sample(
        heat[None, None], places[None], mode=interpolation, padding_mode="border", align_corners=False
    )
    covered = ((y >= 0) & (y < 1))[:, None] & ((x >= 0) & (x < 1))
    return torch.where(covered, sampled[0, 0].clamp(0, 1), 0), covered


def _coloured(heat: Float[Tensor, "H W"], colormap: str | Colormap) -> Float[Tensor, "H W 3"]:
    """The map in colours, in [0, 255]."""
    table = torch.from_numpy(colours(colormap) * 255)
    places = (heat * len(table)).int().clamp_(max=len(table) - 1)
    return table.index_select(0, places.flatten()).reshape(*heat.shape, 3)


def _outline(
    pixels: Float[Tensor, "H W 3"], heat: Float[Tensor, "H W"], covered: Bool[Tensor, "H W"], level: float
) -> None:
    """Draw, in place, a white line with black beside it where the map crosses `level`, inside what it covers."""
    if not 0 < level < 1:
        raise InputError("a contour lies between the map's ends.", got=level, expected="a number in (0, 1)")
    above = (heat >= level).float()[None, None]
    width = max(1, max(heat.shape) // 300)
    for reach, colour in ((2 * width, 0.0), (width, 255.0)):
        around = F.max_pool2d(above, 2 * reach + 1, 1, reach), F.max_pool2d(1 - above, 2 * reach + 1, 1, reach)
        pixels[(around[0] * around[1])[0, 0].bool() & covered] = colour


def heat_image(heat: Float[Tensor, "H W"], colormap: str | Colormap) -> Image.Image:
    """A map in [0, 1] by itself, in colour."""
    return Image.fromarray(_coloured(heat.float().cpu(), colormap).round_().to(torch.uint8).numpy())
