"""The concepts that a layer of a model sees in images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy._types import Frame
from seewhy.images import arrays

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from seewhy.images.photo import Photo


@dataclass(frozen=True, eq=False)
class Concepts:
    """What a layer of a model sees in B images, as K concepts that they share.

    The one that makes up most of the activations comes first; where there is an importance, the most important one.

    Attributes:
        maps: (B, K, *grid), how much of each concept is where, from 0 up.
        vectors: (K, C), what each is made of, of length 1.
        scores: (K, classes), the model's scores of a picture that is nothing but the concept.
        layer: its name.
        size: the input's (H, W), (D, H, W) or (L,).
        labels: a name per class, where the model came with them.
        frames: the rectangle (x0, y0, x1, y1) of each photograph that its input showed, in pixels; None for all of it.
        photos: the photographs, where those were passed instead of tensors.
        importance: (K,), the total Sobol index of each concept for the score, meaned over images: the share of the
            score's variance that it has a part in. None where no score was asked about.
        crops: (N, 1 + 2 S), of which the concepts were made: the number of the image, then where the crop begins and
            ends along each of S axes, in pixels of the input.
        shares: (N, K), how much of each concept is in each crop.
        parts: for each concept what it is made of at an earlier layer, where one was named.
    """

    maps: Float[Tensor, "B K ..."]
    vectors: Float[Tensor, "K C"]
    scores: Float[Tensor, "K classes"]
    layer: str
    size: tuple[int, ...]
    labels: Sequence[str] | None = None
    frames: tuple[Frame, ...] | None = None
    photos: tuple[Image.Image, ...] | None = None
    importance: Float[Tensor, " K"] | None = None
    crops: Int[Tensor, "N bounds"] | None = None
    shares: Float[Tensor, "N K"] | None = None
    parts: tuple[Concepts, ...] = ()

    @cached_property
    def heatmaps(self) -> Float[Tensor, "B K ..."]:
        """(B, K, *size) float32, each concept divided by its strongest place in the batch."""
        strongest = self.maps.movedim(1, 0).flatten(1).amax(1).reshape(1, -1, *[1] * len(self.size))
        scaled = self.maps / torch.where(strongest > 0, strongest, 1)
        return arrays.resize(scaled.float(), self.size)

    def legend(self, top: int = 2) -> list[str]:
        """For each concept its importance, where known, and the classes that it speaks for most.

        Args:
            top: how many classes to name.

        Returns:
            K texts such as "0.31: tabby 0.62, tiger cat 0.20", the first number where the importance is known.
        """
        known = [""] * len(self.scores) if self.importance is None else [f"{one:.2f}: " for one in self.importance]
        likely = self.scores.float().softmax(1)
        values, classes = likely.topk(min(top, likely.shape[1]))
        return [
            weight
            + ", ".join(
                f"{self.labels[index].split(',')[0] if self.labels else f'class {index}'} {value:.2f}"
                for index, value in zip(row, shares, strict=True)
            )
            for weight, row, shares in zip(known, classes.tolist(), values.tolist(), strict=True)
        ]

    def seen_in(
        self,
        labels: Sequence[str] | None,
        frames: tuple[Frame, ...] | None,
        photos: tuple[Image.Image, ...] | None,
    ) -> Concepts:
        """The same, of these photographs and with these names, and so are its parts.

        Args:
            labels: a name per class.
            frames: the rectangle (x0, y0, x1, y1) of each photograph that its input showed, in pixels.
            photos: the photographs.

        Returns:
            The concepts with these in place of their own.
        """
        parts = tuple(part.seen_in(labels, frames, photos) for part in self.parts)
        return replace(self, labels=labels, frames=frames, photos=photos, parts=parts)

    def figure(self, photos: Photo | Sequence[Photo] | None = None, **options: Any) -> Figure:
        """Every image with its concepts in colours, and the legend.

        Args:
            photos: as for `seewhy.render.overlays`; None takes the concepts' own. Without any they are drawn on white.
            **options: colormap: a matplotlib colormap or the name of one; alpha: how opaque a concept is at its
                strongest place, from 0 to 1; top: how many classes the legend names for each concept; max_images: how
                many images to draw.

        Returns:
            A matplotlib figure that a notebook shows.

        Raises:
            InputError: for volumes.
        """
        from seewhy.render._concepts import figure

        return figure(self, photos, **options)

    def _repr_png_(self) -> bytes | None:
        from seewhy.render._canvas import png

        return png(self.figure()) if len(self.size) == 2 else None

    def __repr__(self) -> str:
        batch, count = self.maps.shape[:2]
        return f"Concepts({count} at {self.layer}, {batch} image{'s'[: batch != 1]}, {tuple(self.maps.shape)})"
