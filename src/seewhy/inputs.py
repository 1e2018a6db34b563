"""What a caller passes to a model: a tensor, a list of images, a tuple of arguments or a dict of keywords."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from seewhy.capture.nested import children, rebuild, tensors
from seewhy.errors import InputError, InputTypeError

_TORCHVISIONS_TRANSFORM = "GeneralizedRCNNTransform"  # every detector of torchvision has one


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

    canvas: what the model makes of the images before its first layer, where it lays them out by itself.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    canvas: Canvas | None = None

    @classmethod
    def of(cls, inputs: Any) -> Inputs:
        """A tensor or list is one argument, a tuple several, a mapping keywords.

        Raises `InputError` for an image without a batch dimension, `InputTypeError` where there is no image at all.
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
        found = cls(*rebuild((args, kwargs), lambda tensor: tensor.detach().clone()))
        if not len(found.images):
            raise InputTypeError(
                "there is no image among the inputs.",
                got=type(inputs).__name__,
                expected="(B, C, H, W), (B, C, D, H, W), a list of (C, H, W), or a tuple or dict that holds one",
                do="for PIL images and file names pass a model from seewhy.load, which knows the preprocessing",
            )
        return found

    @property
    def images(self) -> Tensor | list[Tensor]:
        """The first tensor with space, (B, C, *space), or list of images (C, H, W)."""
        arguments = (self.args, self.kwargs)
        batch = next((tensor for tensor in tensors(arguments) if tensor.ndim >= 4), None)
        return next(_lists_of_images(arguments), []) if batch is None else batch

    @property
    def batch(self) -> int:
        return len(self.images)

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Each image's (H, W) or (D, H, W), in pixels or voxels."""
        return tuple(tuple(image.shape[1:]) for image in self.images)

    @property
    def size(self) -> tuple[int, ...]:
        """(H, W) or (D, H, W) of the images; of images of several sizes the largest height and width."""
        images = self.images
        return tuple(images.shape[2:] if isinstance(images, Tensor) else map(max, zip(*self.sizes, strict=True)))

    @property
    def space(self) -> tuple[int, ...]:
        """What the model's layers lie over: the images, or the batch that it makes of a list of them."""
        return self.size if self.canvas is None else self.canvas.space

    @property
    def signature(self) -> tuple[int, ...]:
        """What decides which layers have space: the shape of an image, and of what the model makes of a list."""
        return (self.images[0].shape[0], *self.space)

    def laid_out(self, model: nn.Module) -> Inputs:
        """The same with the `canvas` that `model` makes of the images, asked of its own transform, if it has one.

        Raises `InputError` for images of several sizes if it has none.
        """
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
        return self

    def seen_as(self, view: Callable[[Tensor], Tensor]) -> Inputs:
        """The same inputs with every picture in them changed: all tensors of the images' size."""
        listed = {id(image) for image in self.images} if isinstance(self.images, list) else ()

        def change(tensor: Tensor) -> Tensor:
            is_batch = tensor.ndim >= 4 and tuple(tensor.shape[2:]) == self.size
            return view(tensor) if is_batch or id(tensor) in listed else tensor

        return replace(self, args=rebuild(self.args, change), kwargs=rebuild(self.kwargs, change))

    def run(self, model: nn.Module) -> Any:
        return model(*self.args, **self.kwargs)


def _lists_of_images(structure: Any) -> Iterator[list[Tensor]]:
    """Every list of nothing but tensors (C, H, W) in `structure`, depth first."""
    if isinstance(structure, list) and all(isinstance(entry, Tensor) and entry.ndim == 3 for entry in structure):
        yield structure
        return
    for _, child in children(structure):
        yield from _lists_of_images(child)
