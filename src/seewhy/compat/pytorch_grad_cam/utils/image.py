"""Images and maps as arrays: into the model's form and back, scaled, and drawn over one another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.colors import Colormap, hsv_to_rgb, rgb_to_hsv
from numpy.typing import NDArray
from torch import Tensor

from seewhy.compat.pytorch_grad_cam._upstream import scaled
from seewhy.errors import InputError
from seewhy.images import arrays
from seewhy.render._colormap import find_colormap

Array = NDArray[np.floating]
Picture = NDArray[np.uint8]

JET = 2  # cv2.COLORMAP_JET
# OpenCV's numbers. The tables that are matplotlib's of that name, to one level of 255
_COLORMAPS = {
    0: "autumn",
    1: "bone",
    3: "winter",
    6: "summer",
    7: "spring",
    8: "cool",
    13: "magma",
    14: "inferno",
    15: "plasma",
    16: "viridis",
    17: "cividis",
    18: "twilight",
    19: "twilight_shifted",
    20: "turbo",
}
# and those that are GNU Octave's, of 64 colours on lines between (place, (red, green, blue)); for pink of their squares
_OCTAVE = {
    4: ("rainbow", (0, (1, 0, 0)), (2 / 5, (1, 1, 0)), (3 / 5, (0, 1, 0)), (4 / 5, (0, 0, 1)), (1, (2 / 3, 0, 1))),
    5: ("ocean", (0, (0, 0, 0)), (1 / 3, (0, 0, 1 / 3)), (2 / 3, (0, 1 / 2, 2 / 3)), (1, (1, 1, 1))),
    9: ("hsv", (0, (1, 0, 0)), (1 / 6, (1, 1, 0)), (1 / 3, (0, 1, 0)), (1 / 2, (0, 1, 1)), (2 / 3, (0, 0, 1)),
        (5 / 6, (1, 0, 1)), (1, (1, 0, 0))),
    10: ("pink", (0, (0, 0, 0)), (3 / 8, (7 / 12, 1 / 4, 1 / 4)), (3 / 4, (5 / 6, 5 / 6, 1 / 2)), (1, (1, 1, 1))),
    11: ("hot", (0, (0, 0, 0)), (2 / 5, (1, 0, 0)), (4 / 5, (1, 1, 0)), (1, (1, 1, 1))),
    21: ("deepgreen", (0, (0, 0, 0)), (1 / 3, (0, 1 / 3, 0)), (2 / 3, (0, 2 / 3, 1 / 2)), (1, (1, 1, 1))),
}  # fmt: skip


def preprocess_image(
    img: NDArray[np.generic], mean: Sequence[float] = (0.5, 0.5, 0.5), std: Sequence[float] = (0.5, 0.5, 0.5)
) -> Float[Tensor, "1 C H W"]:
    """(img - mean) / std as a batch of one. img: (H, W[, C]), of uint8 or of floats in [0, 1]."""
    pixels = torch.from_numpy(np.atleast_3d(img).transpose(2, 0, 1).copy())
    values = pixels / 255 if pixels.dtype == torch.uint8 else pixels
    shift, scale = (torch.tensor(by, dtype=values.dtype)[:, None, None] for by in (mean, std))
    return ((values - shift) / scale)[None]


def deprocess_image(img: Array) -> Picture:
    """Any values as a picture: their mean at half brightness, a standard deviation a tenth of the range."""
    standardised = (img - np.mean(img)) / (np.std(img) + 1e-5)
    picture: Picture = (255 * np.clip(0.1 * standardised + 0.5, 0, 1)).astype(np.uint8)
    return picture


def show_cam_on_image(
    img: Array,
    mask: Array,
    use_rgb: bool = False,
    colormap: int | str | Colormap = JET,
    image_weight: float = 0.5,
) -> Picture:
    """`image_weight` of an image with the rest of a map in colours, as bright as 8 bits allow: (H, W, 3).

    img: (H, W, 3) in [0, 1]; mask: (H, W) in [0, 1]. The colours are BGR unless `use_rgb`. colormap: one of OpenCV's
    numbers where matplotlib has the same colours, a matplotlib colormap or its name. Raises InputError out of range.
    """
    if not 0 <= image_weight <= 1:
        raise InputError("image_weight is out of range.", got=image_weight, expected="a number in [0, 1]")
    for name, values in (("image", img), ("mask", mask)):
        if not (np.min(values) >= -1e-6 and np.max(values) <= 1 + 1e-6):  # NaN fails as well
            raise InputError(
                f"the {name}'s values are out of range.",
                got=f"values from {np.min(values):.4g} to {np.max(values):.4g}",
                expected="floats in [0, 1]",
                do="divide an 8-bit image by 255, scale a map by its range",
            )
    colours = _colours(colormap)[(255 * np.clip(mask, 0, 1)).astype(np.uint8)]
    heatmap = np.float32(colours if use_rgb else colours[..., ::-1]) / 255
    mixed = (1 - image_weight) * heatmap + image_weight * img
    brightest = np.max(mixed)
    picture: Picture = (255 * np.clip(mixed / brightest if brightest > 0 else mixed, 0, 1)).astype(np.uint8)
    return picture


def _colours(colormap: int | str | Colormap) -> Picture:
    """The colours (256, 3) of the levels 0 to 255, RGB."""
    if colormap == JET:
        levels = np.arange(256)[:, None]
        table = np.clip(np.minimum(4 * levels + [-382, -128, 128], [1148, 892, 638] - 4 * levels), 0, 255) / 255
    elif isinstance(colormap, int) and colormap in _OCTAVE:
        name, *corners = _OCTAVE[colormap]
        places, colours = zip(*corners, strict=True)
        table = _between(np.linspace(0, 1, 64), places, colours)
        table = np.sqrt(table) if name == "pink" else table
    elif isinstance(colormap, int) and colormap not in _COLORMAPS:
        known = {JET: "jet", **_COLORMAPS} | {number: name for number, (name, *_) in _OCTAVE.items()}
        raise InputError(
            "there is no formula for this colormap, and matplotlib has none of these colours.",
            got=f"OpenCV's number {colormap}",
            expected=", ".join(f"{number} ({name})" for number, name in sorted(known.items())),
            do='pass a matplotlib colormap, or the name of one, such as "viridis"',
        )
    else:
        found = find_colormap(_COLORMAPS[colormap] if isinstance(colormap, int) else colormap)
        table = np.asarray(found(np.arange(found.N)))[:, :3]
    spread = _between(np.linspace(0, 1, 256), np.linspace(0, 1, len(table)), table)
    picture: Picture = np.rint(255 * spread).astype(np.uint8)
    return picture


def _between(levels: Array, places: Sequence[float] | Array, colours: Sequence[Sequence[float]] | Array) -> Array:
    """The colours at `levels`, linear between those at `places`."""
    return np.stack([np.interp(levels, places, channel) for channel in np.transpose(colours)], 1)


def create_labels_legend(concept_scores: Array, labels: Mapping[int, str] | Sequence[str], top_k: int = 2) -> list[str]:
    """For each concept its `top_k` classes of highest score, one a line: three of a class's names, and the score."""
    legend = []
    for scores in concept_scores:
        best = np.argsort(scores)[::-1][:top_k]
        legend.append("\n".join(f"{','.join(labels[k].split(',')[:3])}:{scores[k]:.2f}" for k in best))
    return legend


def show_factorization_on_image(
    img: Array,
    explanations: Array,
    colors: Sequence[Sequence[float] | Array] | None = None,
    image_weight: float = 0.5,
    concept_labels: Sequence[str] | None = None,
) -> Picture:
    """Each place in the colour of its strongest concept, as bright as that is strong, over an RGB image: (H, W, 3).

    img: (H, W, 3) in [0, 1]. explanations: (K, H, W) in [0, 1]. colors: K of them, RGB in [0, 1]. With `concept_labels`
    a legend of the same size stands to the right: (H, 2 W, 3).
    """
    count = len(explanations)
    spread = find_colormap("gist_rainbow")(np.arange(count) / count)
    chosen = np.asarray(spread if colors is None else colors)[:, :3]
    strongest = explanations.max(0)
    value = np.floor(255 * np.clip(strongest, 0, 1))[..., None] / 255
    mask = np.rint(255 * _purest(chosen)[explanations.argmax(0)] * value) / 255
    picture: Picture = (255 * np.clip(img * image_weight + mask * (1 - image_weight), 0, 1)).astype(np.uint8)
    if concept_labels is None:
        return picture
    return np.hstack([picture, _legend(chosen, concept_labels, picture.shape[:2])])


def _purest(colours: Array) -> Array:
    """Colours (K, 3) at their brightest; hue and saturation in OpenCV's 8 bits, that is 180 and 255 steps."""
    hue, saturation, _ = rgb_to_hsv(np.floor(255 * colours) / 255).T
    purest: Array = hsv_to_rgb(np.stack([np.rint(180 * hue) / 180, np.rint(255 * saturation) / 255, hue**0], 1))
    return purest


def _legend(colours: Array, labels: Sequence[str], size: tuple[int, ...]) -> Picture:
    """Lines in colours with their labels beside them, (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    height, width = size
    figure = Figure(figsize=((width + 0.5) / 100, (height + 0.5) / 100), dpi=100)  # parts of a pixel are cut off
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.legend(
        [Line2D([0], [0], color=tuple(colour), lw=5 * height / 256) for colour in colours],
        labels,
        mode="expand",
        shadow=True,
        fontsize=int(14 * height / 256 / max(1, len(colours) / 6)),
    )
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def scale_cam_image(cam: Iterable[Array | Tensor], target_size: tuple[int, ...] | None = None) -> NDArray[np.float32]:
    """Each map `scaled` to [0, 1], all zero where it is constant, and resized: (B, *size) of float32.

    target_size: (width, height), or (width, height, depth) for volumes, which are resized linearly as well, pixel
    centres kept; grad-cam takes cubic splines with the corners aligned for those.
    """
    maps = torch.stack([torch.as_tensor(one) for one in cam])
    maps = scaled(maps, 1)
    if target_size is not None:
        maps = arrays.resize(maps, tuple(reversed(target_size)))
    result: NDArray[np.float32] = maps.float().numpy()
    return result


def scale_accross_batch_and_channels(tensor: Array | Tensor, target_size: tuple[int, int]) -> NDArray[np.float32]:
    """Every channel (B, C, H, W) scaled and resized as `scale_cam_image` does it."""
    maps = torch.as_tensor(tensor)
    flat = scale_cam_image(maps.flatten(0, 1), target_size)
    return flat.reshape(*maps.shape[:2], *flat.shape[1:])
