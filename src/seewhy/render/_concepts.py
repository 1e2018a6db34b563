"""A figure of concepts: each image with its concepts in colours, and a legend of what they speak for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from seewhy.errors import InputError
from seewhy.images.photo import Photo, rgb
from seewhy.render._colormap import find_colormap
from seewhy.render._overlay import listed, placed

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from seewhy.results import Concepts

_PANEL = 3.0  # inches


def figure(
    concepts: Concepts,
    photos: Photo | Sequence[Photo] | None = None,
    *,
    colormap: str | Colormap = "tab10",
    alpha: float = 0.7,
    top: int = 2,
    max_images: int = 8,
) -> Figure:
    """Each image with every place in the colour of its strongest concept, and a legend under them.

    Args:
        concepts: of images.
        photos: as for `overlays`; without any the concepts are drawn on white.
        colormap: a matplotlib colormap or the name of one.
        alpha: how opaque a concept is at its strongest place, from 0 to 1.
        top: how many classes the legend names for each concept.
        max_images: how many images to draw.

    Returns:
        A matplotlib figure that a notebook shows.

    Raises:
        InputError: for volumes.
    """
    from matplotlib.patches import Patch

    from seewhy.render._canvas import Canvas

    if len(concepts.size) != 2:
        raise InputError("concepts are drawn over images.", got=f"a volume of {concepts.size}", do="draw .heatmaps")
    batch, count = concepts.maps.shape[:2]
    colours = palette(count, colormap)
    white = [np.full((*concepts.size, 3), 255, np.uint8)] * batch
    given = concepts.photos if photos is None else listed(photos, batch, 2)
    drawn = list(zip(given or white, concepts.heatmaps, concepts.frames or [None] * batch, strict=True))[:max_images]
    drawing = Canvas((_PANEL * len(drawn), _PANEL + 0.25 * count), "constrained")
    for axes, (photo, heat, frame) in zip(drawing.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        pixels = rgb(photo)
        over = [placed(one.detach().cpu(), pixels.shape[:2], frame if given else None, "bilinear")[0] for one in heat]
        axes.imshow(painted(pixels, torch.stack(over), colours, alpha))
        axes.set(xticks=[], yticks=[])
    patches = [Patch(color=tuple(colour)) for colour in colours]
    drawing.legend(patches, concepts.legend(top), loc="outside lower left", fontsize=8, frameon=False)
    drawing.suptitle(f"{count} concepts at {concepts.layer}", fontsize=10)
    return drawing


def palette(count: int, colormap: str | Colormap) -> NDArray[np.float64]:
    """`count` colours (count, 3) in [0, 1]: the first of a list of at most 20, or evenly spread over another map."""
    chosen = find_colormap(colormap)
    places = np.arange(count) if count <= chosen.N <= 20 else np.linspace(0, 1, count)
    colours: NDArray[np.float64] = np.asarray(chosen(places))[:, :3]
    return colours


def painted(
    photo: NDArray[np.uint8], heat: Float[Tensor, "K H W"], colours: NDArray[np.float64], alpha: float
) -> NDArray[np.uint8]:
    """(H, W, 3): `alpha` times a place's strongest heat of that concept's colour, the rest photograph."""
    strongest, which = heat.max(0)
    weight = alpha * strongest.numpy()[..., None]
    mixed: NDArray[np.uint8] = np.rint(photo * (1 - weight) + 255 * colours[which.numpy()] * weight).astype(np.uint8)
    return mixed
