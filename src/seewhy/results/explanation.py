"""The result of explaining: maps, scores and outputs; how it is scaled, sliced, drawn and saved."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy._late import late
from seewhy._types import Frame
from seewhy.errors import InputError
from seewhy.geometry.placement import Placement, draw
from seewhy.hooks.nested import rebuild
from seewhy.images import arrays
from seewhy.methods.fuse import Fuse, fuse_maps, local_product
from seewhy.results import _words
from seewhy.results.origin import Origin

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from seewhy.images.photo import Photo

Scaling = Literal["per_image", "shared", "none"]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a model answered as it did, for B images and, where asked, T targets for each.

    Attributes:
        maps: for each layer (B, [T,] *grid), signed and unscaled: positive where the image spoke for the score.
        scores: (B, [T]), what was explained.
        outputs: what the model returned, without a graph. None in an explanation that was read from a file, if the
            outputs were no tensor.
        targets: what was asked, made definite: for class scores `Category` with the index of each image.
        method: the method's name.
        size: the input's (H, W), (D, H, W) or (L,).
        fuse: how several layers become one heatmap. "sum" is of parallel layers, by which the input goes different ways
            to the score: each has a part of what speaks for it.
        probabilities: (B, [T]), of the classes explained: softmax, for one logit the sigmoid, or the model's own where
            it ends in either. None where a function was explained.
        labels: a name per class, where the model came with them.
        frames: the rectangle (x0, y0, x1, y1) of each photograph that its input showed, in pixels; None for all of it.
        extents: the share (height, width) of its maps that each image takes up, where the model pads images. The
            heatmap shows that part.
        placements: for layers whose grid does not cover the whole input as it is (the model mirrors, pads or crops its
            input), where it lies. The heatmap is drawn there.
        photos: the photographs, where those were passed instead of tensors.
        files: the names of the photographs' files, where they are known.
        axes: what the axes of the maps are called, for signals ("time",) and for spectrograms of sound ("time",
            "frequency"), as far as the model tells.
        note: why this layer was chosen, if it was.
        gap: (B, [T]), of methods whose map adds up to a change of the score, such as integrated gradients: the share of
            that change which the map misses.
        doubts: for layers with maps that were blanked because they mean nothing: for each image what is wrong and what
            to try, or two empty texts.
        input: which of the model's arguments the maps lie on, by keyword or position; "" where there is one image.
        others: the explanations that lie on the model's other images, by the name of these.
        origin: the model and inputs, held weakly, for `check`; None in an explanation that was read from a file.
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
    placements: Mapping[str, Placement] = field(default_factory=dict)
    photos: tuple[Image.Image, ...] | None = None
    files: tuple[str, ...] | None = None
    axes: tuple[str, ...] = ()
    note: str = ""
    gap: Float[Tensor, "..."] | None = None
    doubts: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict, repr=False)
    input: str = ""
    others: Mapping[str, Explanation] = field(default_factory=dict, repr=False)
    origin: Origin | None = field(default=None, repr=False)

    @classmethod
    def load(cls, path: str | Path) -> Explanation:
        """The explanation in a .npz file that `save` wrote. No pickles are read.

        Args:
            path: the file.

        Returns:
            The explanation, on the CPU and without photographs: pass them to `overlay` and `figure`. Its targets are
            the classes that were explained, or the prompt, or what else the target said of itself, as a text.

        Raises:
            InputError: if the file is none that `save` wrote.
        """
        from seewhy.render._save import load

        return load(cls, Path(path))

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers that were looked at, in the order they ran."""
        return tuple(self.maps)

    @property
    def images(self) -> dict[str, Explanation]:
        """For a model of several images, as a siamese network is, the explanation on each of them, by its name."""
        return {self.input: self, **self.others}

    @property
    def index(self) -> Int[Tensor, "B *T"] | None:
        """(B, [T]), the class that each map explains; None where the target is not about classes."""
        return _words.class_index(self)

    def name(self, image: int = 0, target: int | None = None) -> str:
        """What one map is about.

        Args:
            image: the number of the image.
            target: the number of the target; None where there is one per image.

        Returns:
            A text such as "tabby", "not nodule", "class 7" or the prompt; "" where nothing is known.
        """
        return _words.name(self, image, target)

    def side(self, image: int = 0, target: int | None = None) -> _words.Side:
        """Whether a map explains the one logit or probability of a model, or its opposite.

        Args:
            image: the number of the image.
            target: the number of the target; None where there is one per image.

        Returns:
            "positive" or "negative"; "" for a model with several classes, and for a target that is not about classes.
        """
        return _words.side(self, image, target)

    def top(self, count: int = 5) -> list[list[tuple[str, float]]]:
        """The most likely classes of each image: names with probabilities, the likeliest first.

            for name, probability in explanation.top(3)[0]: ...

        Args:
            count: how many; a model of fewer classes gives all of them.

        Returns:
            For each image a list of (name, probability): softmax, for one logit the sigmoid, or the model's own.

        Raises:
            OutputError: if the model ranks no classes of an image, or its outputs are not there.
        """
        return _words.top(self, count)

    @cached_property
    def heatmap(self) -> Float[Tensor, "..."]:
        """(B, [T,] *size) float32 in [0, 1]: each map by itself, 1 where hottest, 0 where nothing spoke for it."""
        return self.scaled("per_image")

    def scaled(
        self, scaling: Scaling = "per_image", *, size: tuple[int, ...] | None = None, mode: str = "bilinear"
    ) -> Float[Tensor, "..."]:
        """The layers' maps resized to one size and fused.

        Args:
            scaling: "per_image" drops what is negative and scales every map by its own range; "shared" by the range of
                all maps together, so that they compare; "none" returns signed values as the method's formula gives
                them. A map that is not finite is all zero, unless for "none".
            size: (H, W) or (D, H, W); None is the input's.
            mode: how to resize: "bilinear", "bicubic" or "nearest".

        Returns:
            (B, [T,] *size) float32.

        Raises:
            InputError: for an unknown scaling.
        """
        if scaling not in ("per_image", "shared", "none"):
            raise InputError("unknown scaling.", got=repr(scaling), expected='"per_image", "shared" or "none"')
        size = size or self.size

        def scale(maps: Tensor) -> Tensor:
            if scaling == "none":
                return maps
            per_map = tuple(range(-len(size), 0))
            return arrays.rescale(maps, per_map if scaling == "per_image" else tuple(range(maps.ndim)))

        def positive(maps: Tensor) -> Tensor:
            finite = maps.isfinite().flatten(-len(self.size)).all(-1).reshape(*maps.shape[: -len(self.size)], *ones)
            return torch.where(finite, maps, 0).clamp(min=0)

        ones = [1] * len(self.size)
        grids = {
            layer: grid.float() if scaling == "none" else positive(grid.float()) for layer, grid in self.maps.items()
        }
        if self.fuse == "local_product":  # of the layers at their own resolutions
            grids = {"": local_product(list(grids.values()), len(size))}
        drawn = [self._drawn(layer, grid, size, mode) for layer, grid in grids.items()]
        drawn = drawn if scaling == "none" else [maps.clamp(min=0) for maps in drawn]  # bicubic overshoots
        if self.fuse == "sum":
            return scale(fuse_maps(drawn, self.fuse))
        drawn = [scale(maps) for maps in drawn]
        return drawn[0] if len(drawn) == 1 else scale(fuse_maps(drawn, self.fuse))

    def _drawn(self, layer: str, grid: Tensor, size: tuple[int, ...], mode: str) -> Tensor:
        """The maps of a layer where they lie. Of those that add up each pixel has its share of its cell."""
        if layer not in self.placements:
            shares = float(grid.shape[-len(size) :].numel()) if self.fuse == "sum" else 1.0
            return arrays.resize(grid, size, mode, self.extents) * shares
        placement = self.placements[layer]
        shares = 1.0
        if self.fuse == "sum":
            covered = math.prod(side.extent / placement.space[side.axis] for side in placement.sides)
            shares = grid.shape[-len(placement.sides) :].numel() / covered
        return draw(grid, placement, size, mode) * shares

    def blank(self, image: int = 0, target: int | None = None, scaling: Scaling = "per_image") -> str:
        """Why the map of an image shows nothing.

        Args:
            image: the number of the image.
            target: the number of the target; None where there is one per image.
            scaling: as for `scaled`. With "none" a map of negative values shows something, with "shared" one that is
                the same everywhere does.

        Returns:
            Words such as "zero everywhere"; "" where it shows something.
        """
        place = image if target is None else (image, target)
        grids = [grid[place].float() for grid in self.maps.values()]
        if not all(bool(grid.isfinite().all()) for grid in grids):
            return "not finite"
        if not any(bool(grid.any()) for grid in grids):
            return "zero everywhere"
        if scaling == "none":
            return ""
        if not any(bool((grid > 0).any()) for grid in grids):
            return "nothing positive in it"
        if scaling == "shared" or bool(self.heatmap[place].any()):
            return ""
        return "the same everywhere" if len(grids) == 1 else "no place is hot in all of its layers"

    def boxes(self, threshold: float = 0.5) -> list[Any]:
        """Boxes around the regions of the heatmap at or above `threshold`, hottest first.

        Args:
            threshold: a value of the heatmap, above 0 and at most 1.

        Returns:
            For each image an integer tensor (N, 4) of (x0, y0, x1, y1) in pixels of the input, (N, 6) for volumes,
            upper ends exclusive; with T targets a list of T of them for each image.

        Raises:
            InputError: for a threshold out of range.
        """
        if not 0 < threshold <= 1:
            raise InputError("the threshold is out of range.", got=threshold, expected="a number in (0, 1]")
        if self.scores.ndim == 1:
            return arrays.boxes_of_each(self.heatmap, threshold)
        return [arrays.boxes_of_each(heat, threshold) for heat in self.heatmap]

    def to(self, device: torch.device | str) -> Explanation:
        """The same with all tensors on `device`.

        Args:
            device: such as "cuda" or "cpu".

        Returns:
            The explanation there.
        """
        return self._changed(lambda tensor: tensor.to(device))

    def cpu(self) -> Explanation:
        """The same with all tensors on the CPU.

        Returns:
            The explanation there.
        """
        return self.to("cpu")

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Explanation:
        fields = ("maps", "scores", "outputs", "targets", "probabilities", "gap")
        others = {name: other._changed(change) for name, other in self.others.items()}
        changed = {field: rebuild(getattr(self, field), change) for field in fields}
        return dataclasses.replace(self, **changed, others=others)

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
            gap=None if self.gap is None else self.gap[index],
            outputs=self.outputs[index] if isinstance(self.outputs, list) else rebuild(self.outputs, cut),
            targets=rebuild(self.targets, cut),
            frames=self.frames and self.frames[index],
            extents=self.extents and self.extents[index],
            photos=self.photos and self.photos[index],
            files=self.files and self.files[index],
            doubts={name: told[index] for name, told in self.doubts.items()},
            others={name: other[index] for name, other in self.others.items()},
            origin=self.origin and self.origin.cut(index),
        )

    def check(self, model: Any = None, inputs: Any = None, **options: Any) -> Any:
        """How far each map is from chance, as a p-value: see `seewhy.check`.

            print(explanation.check())

        Args:
            model: what was explained; None is the one that was, if it is still there.
            inputs: of the explanation; None are those that were explained, if they are still there: an explanation does
                not keep them.
            **options: of `seewhy.check`.

        Returns:
            A `seewhy.evaluation.Check`.

        Raises:
            InputError: if model or inputs are gone and were not passed.
        """
        if (model is None or inputs is None) and self.origin is None:
            raise InputError(
                "this explanation does not know its model and inputs.",
                got="one that was read from a file",
                do="explanation.check(model, inputs)",
            )
        model = self.origin.model() if model is None and self.origin else model
        if inputs is None and self.origin:
            inputs = self.origin.inputs() if self.photos is None else list(self.photos)
        return late("check")(self, model, inputs, **options)

    def overlay(self, photos: Photo | Sequence[Photo] | None = None, **options: Any) -> list[Image.Image]:
        """The heatmaps over the photographs, at their own size.

        Args:
            photos: the photographs before normalisation; None takes the explanation's own.
            **options: those of `seewhy.render.overlays`.

        Returns:
            A picture for each image; for T targets B * T of them, all of the first image first.

        Raises:
            InputError: where there are no photographs, or one of the arguments does not fit the explanation.
        """
        from seewhy.render._overlay import overlays

        return overlays(self, photos, **options)

    def figure(self, photos: Photo | Sequence[Photo] | None = None, **options: Any) -> Figure:
        """Photograph, heatmap and overlay side by side, a row per map.

        Args:
            photos: the photographs before normalisation; None takes the explanation's own.
            **options: those of `seewhy.render.figure`.

        Returns:
            A matplotlib figure that a notebook shows.

        Raises:
            InputError: where one of the arguments does not fit the explanation.
        """
        from seewhy.render._figure import figure

        return figure(self, photos, **options)

    def save(self, path: str | Path, photos: Photo | Sequence[Photo] | None = None, **options: Any) -> Path:
        """Write a picture, the numbers or the heatmap, by the ending of `path`. Folders on the way are made.

        Args:
            path: .png, .jpg, .pdf and .svg are of the figure, .html a page of all images, .npy the heatmap, .npz
                everything that `load` reads.
            photos: the photographs before normalisation; None takes the explanation's own.
            **options: those of `seewhy.render.save`.

        Returns:
            The path.

        Raises:
            InputError: for any other ending, and for options that do not fit it.
        """
        from seewhy.render._save import save

        return save(self, Path(path), photos, **options)

    def _repr_png_(self) -> bytes:
        from seewhy.render._figure import png

        return png(self)

    def __repr__(self) -> str:
        maps = ", ".join(f"{name} {tuple(grid.shape)}" for name, grid in self.maps.items())
        return f"Explanation({self.method}, {len(self)} image{'s'[: len(self) != 1]}, {maps})"


class Explanations(dict[str, Explanation]):
    """Explanations of the same images by the names of their methods. A notebook shows their figures."""

    def _repr_png_(self) -> bytes | None:
        from seewhy.render._figure import stacked

        return stacked(list(self.values())) if self else None
