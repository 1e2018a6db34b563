"""Feature maps and kernels as one picture: tiles side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from seewhy.errors import InputError
from seewhy.images import arrays
from seewhy.render._colormap import find_colormap

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

_PAPER = (255, 255, 255)  # between the tiles, and where there is none
_NOT_FINITE = (255, 0, 255)
_SMALL = 1024  # pixels: smaller pictures are enlarged, up to this


def tile(
    maps: Float[Tensor, "N *rgb H W"],
    *,
    colormap: str | Colormap = "viridis",
    gap: int = 3,
    zoom: int | None = None,
) -> Image.Image:
    """Maps side by side, row by row, in a picture as near square as can be.

    Args:
        maps: (N, H, W), painted, or (N, 3, H, W), taken for colours. Each is scaled by its own range. A constant one
            has the lowest colour; what is not finite is magenta.
        colormap: a matplotlib colormap or the name of one.
        gap: pixels of white between two tiles.
        zoom: a value becomes zoom x zoom pixels. None enlarges small pictures to at most 1024 pixels.

    Returns:
        An RGB image.

    Raises:
        InputError: for any other shape, and for a negative gap or a zoom below 1.
    """
    if maps.ndim not in (3, 4) or (maps.ndim == 4 and maps.shape[1] != 3) or not maps.numel():
        raise InputError(
            "these are no maps.", got=f"a tensor of shape {tuple(maps.shape)}", expected="(N, H, W) or (N, 3, H, W)"
        )
    if gap < 0 or (zoom is not None and zoom < 1):
        raise InputError("a picture needs pixels.", got=f"gap={gap}, zoom={zoom}", expected="gap >= 0 and zoom >= 1")
    count, height, width = maps.shape[0], *maps.shape[-2:]
    columns = _columns(count, height, width)
    rows = math.ceil(count / columns)
    if zoom is None:
        fitting = (_SMALL - (rows - 1) * gap) // (rows * height), (_SMALL - (columns - 1) * gap) // (columns * width)
        zoom = max(1, min(fitting))
    tiles = _painted(maps.detach().cpu(), colormap).repeat(zoom, 1).repeat(zoom, 2)
    height, width = height * zoom, width * zoom
    paper = np.full((rows, columns, height + gap, width + gap, 3), _PAPER, np.uint8)
    paper.reshape(-1, *paper.shape[2:])[:count, :height, :width] = tiles
    picture = paper.swapaxes(1, 2).reshape(rows * (height + gap), columns * (width + gap), 3)
    return Image.fromarray(picture[: len(picture) - gap, : picture.shape[1] - gap])


def feature_maps(features: Mapping[str, Tensor], **drawing: Any) -> dict[str, list[Image.Image]]:
    """Every channel of what layers returned as a tile; of a volume every slice of it.

    Args:
        features: for each layer (N, C, *grid), with a grid of two or three dimensions: what `seewhy.features` returns.
        drawing: the options of `tile`.

    Returns:
        For each layer a picture per image.

    Raises:
        InputError: for a layer without a grid.
    """
    for label, maps in features.items():
        if maps.ndim not in (4, 5):
            raise InputError(
                f"{label} has no maps to draw: what it returned does not lie over the input.",
                got=f"features of shape {tuple(maps.shape)}",
                expected="(N, C, H, W) or (N, C, D, H, W)",
                do="choose among the layers that `seewhy layers` lists with a grid",
            )
    return {label: [tile(channels.flatten(0, -3), **drawing) for channels in maps] for label, maps in features.items()}


def kernels(weights: Mapping[str, Tensor], **drawing: Any) -> dict[str, Image.Image]:
    """The kernels of convolutions as tiles.

    With three input channels each kernel is a tile in colours. Otherwise each of its input channels, of a volume each
    slice of these, is a tile, kernel by kernel.

    Args:
        weights: for each layer (out, in, *kernel): what `seewhy.inspect.kernels` returns.
        drawing: the options of `tile`.

    Returns:
        A picture for each layer.

    Raises:
        InputError: for weights that are no kernels of images or volumes.
    """
    for label, weight in weights.items():
        if weight.ndim not in (4, 5):
            raise InputError(
                f"{label} has no kernels to draw.",
                got=f"weights of shape {tuple(weight.shape)}",
                expected="(out, in, H, W) or (out, in, D, H, W)",
            )
    coloured = {label: weight.ndim == 4 and weight.shape[1] == 3 for label, weight in weights.items()}
    return {
        label: tile(weight if coloured[label] else weight.flatten(0, -3), **drawing)
        for label, weight in weights.items()
    }


def _columns(count: int, height: int, width: int) -> int:
    """How many tiles in a row bring the picture, gaps aside, nearest to a square; of two numbers that do, the larger.

    Only as many as a number of rows needs: room to spare would make a squarer picture, of more white.
    """

    def oblong(columns: int) -> tuple[float, int]:
        sides = columns * width, math.ceil(count / columns) * height
        return max(sides) / min(sides), -columns

    return min((math.ceil(count / rows) for rows in range(1, count + 1)), key=oblong)


def _painted(maps: Float[Tensor, "N *rgb H W"], colormap: str | Colormap) -> NDArray[np.uint8]:
    """(N, H, W, 3), every map scaled by the range of what is finite in it."""
    finite = maps.isfinite()
    every = tuple(range(1, maps.ndim))
    known = torch.where(finite, maps.double(), torch.inf)
    scaled = arrays.rescale(torch.where(finite, known, known.amin(every, keepdim=True)), every)
    if maps.ndim == 4:
        finite = finite.all(1)
        painted = (scaled * 255).round().to(torch.uint8).movedim(1, -1).numpy()
    else:
        painted = find_colormap(colormap)(scaled.numpy(), bytes=True)[..., :3]
    return np.where(finite.numpy()[..., None], painted, np.array(_NOT_FINITE, np.uint8))
