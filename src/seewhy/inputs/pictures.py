"""The pictures in what a processor of transformers made: one by one, in tiles and thumbnails, or cut into patches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from seewhy.errors import InputError
from seewhy.inputs.expected import first_convolution

# (top, left, bottom, right), in pixels of a picture; a tile may reach beyond it, into what the processor padded
Box = tuple[float, float, float, float]
Shape = tuple[int, ...]

_ALIKE = 0.9  # the correlation of tiles with the thumbnail of the same picture


@dataclass(frozen=True)
class View:
    """One image that the vision tower is given: a whole picture, a tile of one, its thumbnail, or a frame.

    Attributes:
        key: of the tensor among the keywords of the call.
        start, stop: its entries of that tensor: one image (C, H, W), or so many patches.
        size: (H, W) in pixels.
        cells: (rows, columns) of the tower's patches in it.
        box: the part of the picture that it shows.
        merge: the side of the squares in which patches follow one another; 0 for an image that is not cut up.
        depth: how many frames a patch is of.
    """

    key: str
    start: int
    stop: int
    size: tuple[int, int]
    cells: tuple[int, int]
    box: Box
    merge: int = 0
    depth: int = 1

    def of(self, tensor: Tensor) -> Float[Tensor, "depth C H W"]:
        """The image that this view is, out of the tensor of its key."""
        if not self.merge:
            return _single(tensor)[self.start : self.stop]
        (rows, columns), m = self.cells, self.merge
        side = self.size[0] // rows
        found = tensor[self.start : self.stop].reshape(rows // m, columns // m, m, m, -1, self.depth, side, side)
        return found.permute(5, 4, 0, 2, 6, 1, 3, 7).reshape(self.depth, -1, *self.size)

    def put(self, tensor: Tensor, image: Float[Tensor, "depth C H W"]) -> None:
        """Write an image into the place that `of` reads; the tensor is contiguous."""
        if not self.merge:
            _single(tensor)[self.start : self.stop] = image
            return
        (rows, columns), m = self.cells, self.merge
        side = self.size[0] // rows
        cut = image.reshape(self.depth, -1, rows // m, m, side, columns // m, m, side)
        tensor[self.start : self.stop] = cut.permute(2, 5, 3, 6, 1, 0, 4, 7).reshape(self.stop - self.start, -1)


@dataclass(frozen=True)
class Picture:
    """One picture or frame, and the views that the model has of it.

    Attributes:
        views: the whole of it, or tiles and a thumbnail.
        size: (H, W) in pixels, at the resolution of its finest views.
        row: which prompt of the batch it belongs to.
        entry: its number among the pictures and videos that were passed; the frames of a video share one.
    """

    views: tuple[View, ...]
    size: tuple[int, int]
    row: int = 0
    entry: int = 0

    @property
    def fine(self) -> tuple[View, ...]:
        """The views at the picture's own resolution."""
        return tuple(view for view in self.views if view.size == _extent(view.box))

    def seen(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "C H W"]:
        """The picture, put together from its views."""
        first = self.views[0].of(tensors[self.views[0].key])
        canvas = first.new_zeros(first.shape[1], *self.size)
        for view in self.fine:
            shown, inner, outer = view.of(tensors[view.key]).mean(0), *_overlap(view.box, self.size)
            canvas[:, outer[0], outer[1]] = shown[:, inner[0], inner[1]]
        return canvas

    def change(self, tensors: Mapping[str, Tensor], by: Float[Tensor, "C H W"]) -> None:
        """Add a picture to all views of this one, in place."""
        for view in self.views:
            inner, outer = _overlap(view.box, self.size)
            part = by[:, outer[0], outer[1]]
            if view.size == _extent(view.box):
                added = by.new_zeros(by.shape[0], *view.size)
                added[:, inner[0], inner[1]] = part
            else:
                added = F.interpolate(part[None].float(), view.size, mode="bilinear", antialias=True)[0].to(by)
            view.put(tensors[view.key], view.of(tensors[view.key]) + added)


def pictures_of(call: Mapping[str, Any], model: nn.Module) -> tuple[Picture, ...]:
    """The pictures among the keywords of a call, in the order of the tensors.

    Args:
        call: what a processor of transformers returned. Its images are under names that begin with "pixel_values".
        model: its first convolution tells the size of a patch.

    Raises:
        InputError: where there is none.
    """
    found = [
        picture
        for key, tensor in call.items()
        if key.startswith("pixel_values") and isinstance(tensor, Tensor) and tensor.is_floating_point()
        for picture in _pictures(key, tensor, call, model)
    ]
    if not found:
        raise InputError(
            "there is no picture among the inputs.",
            got=", ".join(call),
            expected="what a processor returns, with pixel_values in it",
            do='processor(images=photo, text=prompt, return_tensors="pt")',
        )
    return tuple(found)


def _pictures(key: str, tensor: Tensor, call: Mapping[str, Any], model: nn.Module) -> list[Picture]:
    first = first_convolution(model)
    stride = max(first[1].stride) if first else 1
    if tensor.ndim == 2:
        return _cut_up(key, tensor, call, model)
    if tensor.ndim not in (4, 5):
        raise InputError(
            f"how {key} holds its images is not known.",
            got=f"shape {tuple(tensor.shape)}",
            expected="(N, C, H, W), (B, N, C, H, W), or (N, D) of patches with their grid_thw",
            do="pass grid=, a function from the tokens (B, L, C) of a layer to (B, C, *grid)",
        )
    size = tensor.shape[-2], tensor.shape[-1]
    cells = size[0] // stride, size[1] // stride
    box = (0.0, 0.0, float(size[0]), float(size[1]))
    count = 1 if tensor.ndim == 4 else tensor.shape[1]
    views = [View(key, n, n + 1, size, cells, box) for n in range(len(_single(tensor)))]
    if "video" in key:
        return [Picture((view,), size, entry=n // count) for n, view in enumerate(views)]
    sizes = call.get("image_sizes")
    groups = [views] if tensor.ndim == 4 else [views[n : n + count] for n in range(0, len(views), count)]
    found: list[Picture] = []
    for number, group in enumerate(groups):
        used = [view for view in group if bool(view.of(tensor).any())]  # short rows are filled up with zeros
        known = isinstance(sizes, Tensor) and len(sizes) == len(groups) and tensor.ndim == 5
        whole = tuple(sizes[number].tolist()) if known and isinstance(sizes, Tensor) else None
        found += _grouped(used, tensor, whole)
    return [replace(picture, entry=number) for number, picture in enumerate(found)]


def _grouped(views: Sequence[View], tensor: Tensor, whole: Shape | None) -> list[Picture]:
    """The pictures that a row of images is: the longest group from the first on that is tiles and a thumbnail."""
    found: list[Picture] = []
    while views:
        for count in range(len(views), 0, -1):
            arranged = _arranged(torch.cat([view.of(tensor) for view in views[:count]]), whole)
            if arranged is not None:
                space, boxes = arranged
                pairs = zip(views, boxes, strict=False)
                found.append(Picture(tuple(replace(view, box=box) for view, box in pairs), space))
                break
        else:
            count = 1
            found.append(Picture((views[0],), views[0].size))
        views = views[count:]
    return found


def _cut_up(key: str, tensor: Tensor, call: Mapping[str, Any], model: nn.Module) -> list[Picture]:
    """Pictures in patches (N, D), each frame by itself: their grids (frames, rows, columns) are passed beside them."""
    grids = call.get("video_grid_thw" if "video" in key else "image_grid_thw")
    config = getattr(getattr(model, "config", None), "vision_config", None)
    side, merge = getattr(config, "patch_size", None), getattr(config, "spatial_merge_size", None)
    if not isinstance(grids, Tensor) or side is None or merge is None:
        raise InputError(
            f"{key} holds patches, and how they lie is not known.",
            got=f"shape {tuple(tensor.shape)}, " + ("no grid_thw" if grids is None else "a config without patch_size"),
            expected="image_grid_thw beside them, and patch_size and spatial_merge_size in the model's vision_config",
            do="pass all that the processor returned",
        )
    depth = getattr(config, "temporal_patch_size", 1)
    found, start = [], 0
    for entry, (frames, rows, columns) in enumerate(grids.tolist()):
        size = rows * side, columns * side
        box = (0.0, 0.0, float(size[0]), float(size[1]))
        for _ in range(frames):
            view = View(key, start, start + rows * columns, size, (rows, columns), box, merge, depth)
            found.append(Picture((view,), size, entry=entry))
            start += rows * columns
    return found


def _arranged(images: Float[Tensor, "n C h w"], whole: Shape | None) -> tuple[tuple[int, int], list[Box]] | None:
    """How images of one size are tiles of a picture and its thumbnail, which is first or last; None where they are not.

    Every arrangement of the tiles is made smaller and held against the thumbnail. Where the picture's own size is
    known, the tiles may hold it in the middle of a padded canvas.
    """
    count, (height, width) = len(images) - 1, images.shape[-2:]
    if count < 2:  # a single tile is the picture
        return None
    best: tuple[float, tuple[int, int], list[Box]] | None = None
    for rows in (rows for rows in range(1, count + 1) if count % rows == 0):
        columns = count // rows
        canvas = rows * height, columns * width
        for window in _windows(canvas, whole):
            top, left, bottom, right = window
            for first in (True, False):
                thumbnail, tiles = (images[0], images[1:]) if first else (images[-1], images[:-1])
                stitched = tiles.reshape(rows, columns, -1, height, width).permute(2, 0, 3, 1, 4)
                shown = stitched.reshape(-1, *canvas)[:, top:bottom, left:right]
                small = F.interpolate(shown[None].float(), (height, width), mode="bilinear", antialias=True)[0]
                alike = float(torch.corrcoef(torch.stack([small.flatten(), thumbnail.float().flatten()]))[0, 1])
                if not alike > (best[0] if best else _ALIKE):
                    continue
                space = bottom - top, right - left
                corners = [(n // columns * height - top, n % columns * width - left) for n in range(count)]
                boxes: list[Box] = [(float(y), float(x), float(y + height), float(x + width)) for y, x in corners]
                over: Box = (0.0, 0.0, float(space[0]), float(space[1]))
                best = alike, space, [over, *boxes] if first else [*boxes, over]
    return None if best is None else best[1:]


def _windows(canvas: tuple[int, int], whole: Shape | None) -> list[tuple[int, int, int, int]]:
    """The parts of a canvas that a picture can take up: all of it, or what is left where it is padded to fit."""
    found = [(0, 0, *canvas)]
    if whole is not None:
        scale = min(side / own for side, own in zip(canvas, whole, strict=True))
        height, width = (min(side, math.floor(own * scale)) for side, own in zip(canvas, whole, strict=True))
        top, left = (canvas[0] - height) // 2, (canvas[1] - width) // 2
        found.append((top, left, top + height, left + width))
    return found


def _single(tensor: Tensor) -> Tensor:
    """All images of a tensor (N, C, H, W) or (B, N, C, H, W), one after the other."""
    return tensor.flatten(0, -4)


def _extent(box: Box) -> tuple[int, int]:
    return round(box[2] - box[0]), round(box[3] - box[1])


def _overlap(box: Box, size: Sequence[int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a box and its picture overlap: in the box, and in the picture."""
    inner, outer = [], []
    for low, high, side in zip(box[:2], box[2:], size, strict=True):
        start, stop = max(0, round(low)), min(side, round(high))
        outer.append(slice(start, stop))
        inner.append(slice(start - round(low), stop - round(low)))
    return (inner[0], inner[1]), (outer[0], outer[1])
