"""Feature maps and kernels as one picture: tiles side by side."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from seewhy.engine.session import plain_session
from seewhy.errors import InputError, LayerError
from seewhy.geometry.grid import read
from seewhy.hooks.activations import activation_in, call_labels
from seewhy.hooks.attach import after_forward
from seewhy.hooks.select import Layers, check_ran, find
from seewhy.hooks.wrappers import unwrap
from seewhy.images import arrays
from seewhy.inputs.call import Inputs
from seewhy.render._overlay import find_colormap

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
    """Maps (N, H, W) painted, or (N, 3, H, W) taken for colours, row by row in a picture as near square as can be.

    Each is scaled by its own range; a constant one has the lowest colour, what is not finite is magenta. A value is
    `zoom` x `zoom` pixels, None enlarging small pictures to at most 1024, and `gap` pixels of white lie between two
    tiles. Raises `InputError` for any other shape.
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


def feature_maps(model: nn.Module, inputs: Any, *, layers: Layers, **drawing: Any) -> dict[str, list[Image.Image]]:
    """What each of `layers` returned for `inputs`, every channel a tile (of a volume every slice): a picture per image.

    By layer, in the order they ran: "relu#0", "relu#1" for one that ran more than once. `layers` are those of
    `Explainer`, `inputs` what the model takes, `drawing` the options of `tile`. The model runs once, in eval mode, and
    is left as found. Raises `LayerError` for a layer that does not exist, did not run or has no space.
    """
    modules = find(unwrap(model), layers)
    kept: list[tuple[str, Tensor]] = []

    def keep(name: str, _: tuple[Any, ...], output: Any) -> None:
        if (activation := activation_in(output)) is not None:
            kept.append((name, activation.to("cpu", copy=True)))  # the next layer may work in place

    with plain_session(model, inputs) as run, after_forward(modules, keep):
        run.run()
    names = [name for name, _ in kept]
    check_ran(modules, names)
    return {
        str(label): [tile(channels.flatten(0, -3), **drawing) for channels in _over(str(label), activation, run.call)]
        for label, (_, activation) in zip(call_labels([(name, "") for name in names]), kept, strict=True)
    }


def kernels(model: nn.Module, *, layers: Layers | None = None, **drawing: Any) -> dict[str, Image.Image]:
    """The kernels of `layers`, by layer; None is the first convolution among the model's modules.

    With three input channels each kernel is a tile in colours; otherwise each of its input channels (of a volume each
    slice) is a tile, kernel by kernel. `drawing` are the options of `tile`. Raises `LayerError` for a layer without
    kernels.
    """
    model = unwrap(model)
    modules = _first_convolution(model) if layers is None else find(model, layers)
    return {name: tile(_kernels(name, module), **drawing) for name, module in modules.items()}


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


def _over(label: str, activation: Tensor, call: Inputs) -> Float[Tensor, "B C *space"]:
    shape = tuple(activation.shape)
    grid = read(shape, call.space, call.batch)
    if grid is None:
        raise LayerError(
            f"the output of {label} does not lie over the input, so it has no maps.",
            got=f"shape {shape} for {call.batch} inputs of size {call.space}",
            do="choose among the layers that `seewhy layers` lists with a grid",
        )
    return grid.fold(activation)


def _first_convolution(model: nn.Module) -> dict[str, nn.Module]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            return {name: module}
    raise LayerError("this model has no convolution.", got=type(model).__name__, do="pass layers=")


def _kernels(name: str, module: nn.Module) -> Float[Tensor, "N *rgb H W"]:
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim < 4:
        raise LayerError(
            f"{name} has no kernels.", got=type(module).__name__, expected="a convolution of images or volumes"
        )
    return weight if weight.ndim == 4 and weight.shape[1] == 3 else weight.flatten(0, -3)
