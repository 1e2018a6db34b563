"""What a caller passes to a model: a tensor, a list of images, a tuple of arguments or a dict of keywords."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import InputError, InputTypeError
from seewhy.hooks.nested import children, described, leaves, rebuild

_TORCHVISIONS_TRANSFORM = "GeneralizedRCNNTransform"  # every detector of torchvision has one


class Listed(list[Tensor]):
    """Images (C, H, W), one by one, as detectors take them: they may be of several sizes."""


@dataclass(frozen=True)
class Canvas:
    """What a detector makes of its images: resized and padded at the lower right they become one batch.

    space: its (H, W). extents: the share (height, width) of it that each image takes up.
    """

    space: tuple[int, int]
    extents: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Inputs:
    """The arguments of one call. Tensors in them are private copies without a graph: the caller's stay untouched.

    canvas: what the model makes of the images before its first layer, where it lays them out by itself. channel_axis:
    1, or 2 for videos frames first, (B, T, C, H, W), as transformers' models take them.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    canvas: Canvas | None = None
    channel_axis: int = 1

    @classmethod
    def of(cls, inputs: Any, model: nn.Module) -> Inputs:
        """A tensor or list is one argument for `model`, a tuple several, a mapping keywords.

        Raises `InputError` for an image without a batch dimension, and for images of several sizes if it is not known
        how the model lays them out; `InputTypeError` where there is no image at all.
        """
        if isinstance(inputs, Tensor) and inputs.ndim == 3:
            raise InputError(
                "the input has no batch dimension.",
                got=f"a tensor of shape {tuple(inputs.shape)}",
                expected="(B, C, H, W) or (B, C, D, H, W)",
                do="pass image[None] for a single image",
            )
        args: tuple[Any, ...] = (inputs,)
        kwargs: dict[str, Any] = {}
        if isinstance(inputs, Mapping):
            args, kwargs = (), dict(inputs)
        elif isinstance(inputs, tuple):
            args = inputs
        arguments = rebuild((args, kwargs), lambda tensor: tensor.detach().clone())
        found = cls(*rebuild(arguments, _listed, list))
        if not len(found.images):
            raise InputTypeError(
                "there is no image among the inputs.",
                got=described(inputs) if children(inputs) else type(inputs).__name__,
                expected="(B, C, H, W), (B, C, D, H, W), a list of (C, H, W), or a tuple or dict that holds one",
                do="for PIL images and file names pass a model from seewhy.load, which knows the preprocessing; put a "
                "model of patches or colours into a module that is given the image and makes them",
            )
        return found._laid_out(model)

    @property
    def images(self) -> Tensor | Listed:
        """The first tensor with space, (B, C, *space), or list of images (C, H, W)."""
        batches = leaves((self.args, self.kwargs), (Tensor, Listed))
        return next((batch for batch in batches if isinstance(batch, Listed) or batch.ndim >= 4), Listed())

    @property
    def image(self) -> Tensor:
        """The images as one batch (B, C, *space). Raises `InputError` where their sizes differ."""
        images = self.images
        if isinstance(images, Tensor):
            return images.movedim(self.channel_axis, 1)
        if len({*self.sizes}) > 1:
            raise InputError(
                "this method needs images of one size.",
                got=", ".join(map(str, self.sizes[:5])),
                do="explain them one at a time, or choose a method of a layer's gradients, such as layer_cam",
            )
        return torch.stack(images)

    @property
    def batch(self) -> int:
        return len(self.images)

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Each image's (H, W) or (D, H, W), in pixels or voxels."""
        return tuple(self._space(image[None]) for image in self.images)

    @property
    def size(self) -> tuple[int, ...]:
        """(H, W) or (D, H, W) of the images; of images of several sizes the largest height and width."""
        images = self.images
        return self._space(images) if isinstance(images, Tensor) else tuple(map(max, zip(*self.sizes, strict=True)))

    @property
    def space(self) -> tuple[int, ...]:
        """What the model's layers lie over: the images, or the batch that it makes of a list of them."""
        return self.size if self.canvas is None else self.canvas.space

    @property
    def signature(self) -> tuple[int, ...]:
        """What decides which layers have space: the shape of an image, and of what the model makes of a list."""
        return (self.images[0].shape[self.channel_axis - 1], *self.space)

    def _space(self, images: Tensor) -> tuple[int, ...]:
        """The sizes of a batch without those of images and channels."""
        return tuple(images.movedim(self.channel_axis, 1).shape[2:])

    def _laid_out(self, model: nn.Module) -> Inputs:
        """The same with what `model` tells: the `canvas` that its own transform makes, and where the channels are."""
        transform = next((part for part in model.modules() if type(part).__name__ == _TORCHVISIONS_TRANSFORM), None)
        if transform is not None:
            made, _ = transform(list(self.images))
            height, width = made.tensors.shape[-2:]
            extents = tuple((rows / height, columns / width) for rows, columns in made.image_sizes)
            return replace(self, canvas=Canvas((height, width), extents))
        if isinstance(self.images, list) and len({*self.sizes}) > 1:
            raise InputError(
                "how the model lays images of several sizes out is not known.",
                got=", ".join(map(str, self.sizes[:5])),
                expected="images of one size, or one of torchvision's detectors",
                do="explain them one at a time",
            )
        if isinstance(self.images, Tensor) and self.images.ndim == 5 and _is_transformers(model):
            return replace(self, channel_axis=2)
        return self

    def seen_as(self, view: Callable[[Tensor], Tensor]) -> Inputs:
        """The same inputs with every picture in them changed: all tensors of the images' size."""

        def change(entry: Tensor | Listed) -> Tensor | Listed:
            if isinstance(entry, Listed):
                return Listed(view(image[None])[0] for image in entry)
            if entry.ndim != self.images[0].ndim + 1 or self._space(entry) != self.size:
                return entry
            return view(entry.movedim(self.channel_axis, 1)).movedim(1, self.channel_axis)

        return self._changed(change)

    def with_rows(self, rows: Callable[[Tensor], Tensor], image: Tensor | None = None) -> Inputs:
        """The same inputs with every tensor of the batch changed by `rows`; the images replaced, if some are given."""
        own = self.images

        def change(entry: Tensor | Listed) -> Tensor | Listed:
            if entry is own and image is not None:
                return Listed(image.unbind()) if isinstance(entry, Listed) else image.movedim(1, self.channel_axis)
            if isinstance(entry, Listed):
                return Listed(entry[number].clone() for number in rows(torch.arange(len(entry))).tolist())
            return rows(entry) if entry.ndim and entry.shape[0] == self.batch else entry

        return self._changed(change)

    def _changed(self, change: Callable[[Any], Any]) -> Inputs:
        args, kwargs = rebuild((self.args, self.kwargs), change, (Tensor, Listed))
        return replace(self, args=args, kwargs=kwargs)

    def run(self, model: nn.Module) -> Any:
        return model(*self.args, **self.kwargs)


def _is_transformers(model: nn.Module) -> bool:
    return hasattr(getattr(model, "config", None), "model_type")


def _listed(entries: list[Any]) -> list[Any]:
    """`entries`, marked as images where they are nothing but tensors (C, H, W); so are lists inside."""
    if entries and all(isinstance(entry, Tensor) and entry.ndim == 3 for entry in entries):
        return Listed(entries)
    return [rebuild(entry, _listed, list) for entry in entries]
