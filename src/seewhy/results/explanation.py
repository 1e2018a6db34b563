"""The result of explaining: maps, scores and outputs; how it is scaled, sliced, drawn and saved."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxtyping import Float
from torch import Tensor

from seewhy._types import Frame
from seewhy.errors import InputError
from seewhy.hooks.nested import rebuild
from seewhy.images import arrays
from seewhy.methods.fuse import Fuse, fuse_maps, local_product

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from seewhy.images.photo import Photo

Scaling = Literal["per_image", "shared", "none"]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a model answered as it did, for B images and, where asked, T targets of each.

    maps: per layer (B, [T,] *grid), signed and unscaled: positive where the image spoke for the score.
    scores: (B, [T]) what was explained. outputs: what the model returned, without a graph.
    targets: what was asked, made definite: `Category` with the index of each image, for class scores.
    size: the input's (H, W) or (D, H, W). fuse: how several layers become one heatmap.
    probabilities: (B, [T]) of the classes explained: softmax, or for one logit the sigmoid; a model's own where it ends
    in either; None where a function was explained. labels: class names, where the model came with them.
    frames: the rectangle (x0, y0, x1, y1) of each photograph that its input showed, in pixels; None for all of it.
    extents: the share (height, width) of its maps that each image takes up, where the model pads images; the heatmap
    shows that part. photos: the photographs, where those were passed instead of tensors. note: why this layer was
    chosen, if it was.
    """

    maps: dict[str, Float[Tensor, "..."]]
    scores: Float[Tensor, "..."]
    outputs: Any
    targets: Any
    method: str
    size: tuple[int, ...]
    fuse: Fuse = "mean"
    probabilities: Float[Tensor, "..."] | None = None
    labels: Sequence[str] | None = None
    frames: tuple[Frame, ...] | None = None
    extents: tuple[tuple[float, float], ...] | None = None
    photos: tuple[Image.Image, ...] | None = None
    note: str = ""

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers that were looked at, in the order they ran."""
        return tuple(self.maps)

    @cached_property
    def heatmap(self) -> Float[Tensor, "..."]:
        """(B, [T,] *size) float32 in [0, 1]: each map by itself, 1 where hottest, 0 where nothing spoke for it."""
        return self.scaled("per_image")

    def scaled(
        self, scaling: Scaling = "per_image", *, size: tuple[int, ...] | None = None, mode: str = "bilinear"
    ) -> Float[Tensor, "..."]:
        """The layers' maps resized to `size` (the input's unless told) and fused: (B, [T,] *size) float32.

        "per_image" drops what is negative and scales every map by its own range, "shared" by the range of all maps
        together, so that they compare; "none" returns signed values as the method's formula gives them.
        `mode` is "bilinear", "bicubic" or "nearest".
        """
        if scaling not in ("per_image", "shared", "none"):
            raise InputError("unknown scaling.", got=repr(scaling), expected='"per_image", "shared" or "none"')
        size = size or self.size

        def scale(maps: Tensor) -> Tensor:
            if scaling == "none":
                return maps
            per_map = tuple(range(-len(size), 0))
            return arrays.rescale(maps, per_map if scaling == "per_image" else tuple(range(maps.ndim)))

        grids = [grid.float() if scaling == "none" else grid.float().clamp(min=0) for grid in self.maps.values()]
        if self.fuse == "local_product":  # of the layers at their own resolutions
            grids = [local_product(grids, len(size))]
        drawn = []
        for grid in grids:
            resized = arrays.resize(grid, size, mode, self.extents)
            drawn.append(scale(resized if scaling == "none" else resized.clamp(min=0)))  # bicubic overshoots
        return drawn[0] if len(drawn) == 1 else scale(fuse_maps(drawn, self.fuse))

    def boxes(self, threshold: float = 0.5) -> list[Any]:
        """Boxes around the regions of the heatmap at or above `threshold`, in pixels of the input, hottest first.

        One integer tensor (N, 4) of (x0, y0, x1, y1) per image ((N, 6) for volumes), upper ends exclusive; with T
        targets a list of T of them per image.
        """
        if not 0 < threshold <= 1:
            raise InputError("the threshold is out of range.", got=threshold, expected="a number in (0, 1]")
        if self.scores.ndim == 1:
            return [arrays.boxes(heat, threshold) for heat in self.heatmap]
        return [[arrays.boxes(heat, threshold) for heat in targets] for targets in self.heatmap]

    def __len__(self) -> int:
        return self.scores.shape[0]

    def __getitem__(self, index: int | slice) -> Explanation:
        """The explanation of one image (still a batch, of one) or of a slice of them."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"image {index} of an explanation of {len(self)} images")
            index = slice(index, index + 1 or None)
        batch = len(self)

        def cut(tensor: Tensor) -> Tensor:
            return tensor[index] if tensor.ndim and tensor.shape[0] == batch else tensor

        return dataclasses.replace(
            self,
            maps={name: grid[index] for name, grid in self.maps.items()},
            scores=self.scores[index],
            probabilities=None if self.probabilities is None else self.probabilities[index],
            outputs=self.outputs[index] if isinstance(self.outputs, list) else rebuild(self.outputs, cut),
            targets=rebuild(self.targets, cut),
            frames=self.frames and self.frames[index],
            extents=self.extents and self.extents[index],
            photos=self.photos and self.photos[index],
        )

    def overlay(self, photos: Photo | Sequence[Photo] | None = None, **options: Any) -> list[Image.Image]:
        """The heatmaps over the photographs, at their own size: see `seewhy.render.overlay`."""
        from seewhy.render._overlay import overlays

        return overlays(self, photos, **options)

    def figure(self, photos: Photo | Sequence[Photo] | None = None, **options: Any) -> Figure:
        """Photograph, heatmap and overlay side by side, a row per map: see `seewhy.render.figure`."""
        from seewhy.render._figure import figure

        return figure(self, photos, **options)

    def save(self, path: str | Path, photos: Photo | Sequence[Photo] | None = None, **options: Any) -> Path:
        """Write to `path` by its ending: .png a figure, .npz everything, .npy the heatmap: see `seewhy.render.save`."""
        from seewhy.render._save import save

        return save(self, Path(path), photos, **options)

    def _repr_png_(self) -> bytes:
        from seewhy.render._figure import png

        return png(self)

    def __repr__(self) -> str:
        maps = ", ".join(f"{name} {tuple(grid.shape)}" for name, grid in self.maps.items())
        return f"Explanation({self.method}, {len(self)} image{'s'[: len(self) != 1]}, {maps})"
