"""The result of explaining: maps, scores and outputs; how it is scaled, sliced, drawn and saved."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy import arrays
from seewhy.capture.nested import rebuild
from seewhy.errors import InputError, warn
from seewhy.methods import combine

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from seewhy.render.photo import Photo

Scaling = Literal["per_image", "shared", "none"]
Frame = tuple[float, float, float, float]


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
    fuse: combine.Fuse = "mean"
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
            grids = [combine.local_product(grids, len(size))]
        drawn = []
        for grid in grids:
            resized = arrays.resize(grid, size, mode, self.extents)
            drawn.append(scale(resized if scaling == "none" else resized.clamp(min=0)))  # bicubic overshoots
        return drawn[0] if len(drawn) == 1 else scale(combine.fuse(drawn, self.fuse))

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
        from seewhy.render.overlay import overlays

        return overlays(self, photos, **options)

    def figure(self, photos: Photo | Sequence[Photo] | None = None, **options: Any) -> Figure:
        """Photograph, heatmap and overlay side by side, a row per map: see `seewhy.render.figure`."""
        from seewhy.render.figure import figure

        return figure(self, photos, **options)

    def save(self, path: str | Path, photos: Photo | Sequence[Photo] | None = None, **options: Any) -> Path:
        """Write to `path` by its ending: .png a figure, .npz everything, .npy the heatmap: see `seewhy.render.save`."""
        from seewhy.render.save import save

        return save(self, Path(path), photos, **options)

    def _repr_png_(self) -> bytes:
        from seewhy.render.figure import png

        return png(self)

    def __repr__(self) -> str:
        maps = ", ".join(f"{name} {tuple(grid.shape)}" for name, grid in self.maps.items())
        return f"Explanation({self.method}, {len(self)} image{'s'[: len(self) != 1]}, {maps})"


@dataclass(frozen=True, eq=False)
class Concepts:
    """What a layer of a model sees in B images, as K concepts that they share.

    maps: (B, K, *grid) how much of each concept is where, from 0 up. vectors: (K, C) what each is made of, of length 1.
    scores: (K, classes) the model's scores of a picture that is nothing but the concept. layer: its name; size, labels,
    frames, photos: as in `Explanation`. Concepts come in the order of how much of the activations they make up.
    """

    maps: Float[Tensor, "B K ..."]
    vectors: Float[Tensor, "K C"]
    scores: Float[Tensor, "K classes"]
    layer: str
    size: tuple[int, ...]
    labels: Sequence[str] | None = None
    frames: tuple[Frame, ...] | None = None
    photos: tuple[Image.Image, ...] | None = None

    @cached_property
    def heatmaps(self) -> Float[Tensor, "B K ..."]:
        """(B, K, *size) float32: each concept by its own strongest place in the batch, which is 1."""
        strongest = self.maps.movedim(1, 0).flatten(1).amax(1).reshape(1, -1, *[1] * len(self.size))
        scaled = self.maps / torch.where(strongest > 0, strongest, 1)
        return arrays.resize(scaled.float(), self.size)

    def legend(self, top: int = 2) -> list[str]:
        """For each concept the classes that it speaks for most, with their probabilities."""
        likely = self.scores.float().softmax(1)
        values, classes = likely.topk(min(top, likely.shape[1]))
        return [
            ", ".join(
                f"{self.labels[index].split(',')[0] if self.labels else f'class {index}'} {value:.2f}"
                for index, value in zip(row, shares, strict=True)
            )
            for row, shares in zip(classes.tolist(), values.tolist(), strict=True)
        ]

    def figure(self, photos: Photo | Sequence[Photo] | None = None, **options: Any) -> Figure:
        """Every image with its concepts in colours, and the legend: see `seewhy.render.concepts`."""
        from seewhy.render.concepts import figure

        return figure(self, photos, **options)


_BLANKS = (
    ("is not finite", "weights or activations overflow: try float32, or look for inf and nan in the input"),
    ("is zero everywhere", "no gradient reaches this layer for this target: try an earlier layer, or another target"),
    (
        "has nothing positive",
        "nothing here spoke for this target: try Contrast, an earlier layer, or read the signed .maps",
    ),
)


def warn_of_blanks(explanation: Explanation) -> None:
    """A warning for each layer with maps that cannot mean anything: which images, why, and what to try.

    A pyramid is judged as a whole: a detector reads each box from the level that fits its size.
    """
    layers: dict[str, list[Tensor]] = {}
    pyramid = len({grid.shape for grid in explanation.maps.values()}) == len(explanation.maps)
    for label, grid in explanation.maps.items():
        places = grid.reshape(len(explanation), -1, math.prod(grid.shape[-len(explanation.size) :]))
        layers.setdefault(re.split(r"[\[#]", label)[0] if pyramid else label, []).append(places)
    verdicts = []
    for levels in layers.values():
        places = torch.cat(levels, -1)
        problems = (~places.isfinite().all(-1), ~places.any(-1), ~(places > 0).any(-1))
        verdict = torch.zeros(len(explanation), dtype=torch.long, device=places.device)
        for number, found in reversed(list(enumerate(problems, 1))):
            verdict = torch.where(found.any(-1), number, verdict)
        verdicts.append(verdict)
    for label, row in zip(layers, torch.stack(verdicts).tolist(), strict=True):
        for number, (problem, advice) in enumerate(_BLANKS, 1):
            if images := [image for image, told in enumerate(row) if told == number]:
                which = ", ".join(map(str, images[:5])) + (" and more" if len(images) > 5 else "")
                warn(f"the {explanation.method} map of {label} {problem} for image {which}: {advice}.")
