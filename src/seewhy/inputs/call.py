"""What a caller passes to a model: a tensor, a list of images, a tuple of arguments or a dict of keywords."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import InputError
from seewhy.hooks.nested import leaves, rebuild
from seewhy.inputs import mistakes
from seewhy.inputs.adapters import Canvas, Images, Listed, layout_of
from seewhy.inputs.expected import signals
from seewhy.inputs.frames import has_frames_first


@dataclass(frozen=True)
class Inputs:
    """The arguments of one call. Tensors in them are private copies without a graph: the caller's stay untouched.

    Attributes:
        args: by position.
        kwargs: by keyword.
        canvas: what the model makes of the images before its first layer, where it lays them out by itself.
        channel_axis: 1; 2 for videos frames first, (B, T, C, H, W), as transformers' models take them, and for series
            (B, L, C); None where there is no such axis, as in sounds (B, L).
        rank: how many dimensions a batch of images has at least: 4, or fewer for signals.
        which: of several images among the arguments, as a siamese network takes them, the one that is meant.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    canvas: Canvas | None = None
    channel_axis: int | None = 1
    rank: int = 4
    which: int = 0

    @classmethod
    def of(cls, inputs: Any, model: nn.Module) -> Inputs:
        """The call of `model` that `inputs` means. A detector's own transform runs once: call this under the guard.

        Args:
            inputs: a tensor or list is one argument, a tuple several, a mapping keywords.
            model: what is to be called. What it begins with tells whether it takes signals, and how these lie.

        Raises:
            InputError: for an image without a batch dimension, an empty batch, and images of several sizes if it is
                not known how the model lays them out.
            InputTypeError: where there is no image at all. The message names the mistake and the line that mends it.
        """
        args: tuple[Any, ...] = (inputs,)
        kwargs: dict[str, Any] = {}
        if isinstance(inputs, Mapping):
            args, kwargs = (), dict(inputs)
        elif isinstance(inputs, tuple):
            args = inputs
        arguments = rebuild((args, kwargs), lambda tensor: tensor.detach().clone())
        found = cls(
            *rebuild(arguments, _listed, list),
        )
        if _is_missing(found.images) and (taken := signals(model, _floats(found))):
            found = replace(found, rank=taken.rank, channel_axis=taken.channel_axis)
        images = found.images
        if _is_missing(images):
            raise mistakes.refusal(inputs)
        if isinstance(images, Tensor) and not len(images):
            raise InputError(
                "the batch is empty.", got=f"a tensor of shape {tuple(images.shape)}", expected="one image or more"
            )
        layout = layout_of(model, images)
        if layout is not None:
            return replace(found, canvas=layout.canvas, channel_axis=layout.channel_axis)
        if isinstance(images, Listed) and len({*found.sizes}) > 1:
            raise InputError(
                "how the model lays images of several sizes out is not known.",
                got=", ".join(map(str, found.sizes[:5])),
                expected="images of one size, or one of torchvision's detectors",
                do="explain them one at a time",
            )
        if isinstance(images, Tensor) and images.ndim == 5 and images.is_floating_point():
            first = has_frames_first(images, lambda batch: found._with(images, batch).run(model), model)
            return replace(found, channel_axis=2 if first else 1)
        return found

    @cached_property
    def images(self) -> Images:
        """The tensor with space, (B, C, *space), or list of images (C, H, W), that is meant; an empty list for none."""
        return next(islice(self._with_space, self.which, None), Listed())

    @property
    def _with_space(self) -> Iterator[Images]:
        """Every tensor and list of the arguments that can be a batch of images, all with as many as the first."""
        batches = leaves((self.args, self.kwargs), (Tensor, Listed))
        found = [batch for batch in batches if isinstance(batch, Listed) or self._has_space(batch)]
        if len(found) < 2:  # `len` would fix a traced size
            return iter(found)
        return (batch for batch in found if len(batch) == len(found[0]))

    @cached_property
    def count(self) -> int:
        """How many images there are for each row of the batch: two for a siamese network."""
        return sum(1 for _ in self._with_space)

    def names(self, model: nn.Module) -> tuple[str, ...]:
        """What each of these is called: by the model's own name of the argument, or its position as a text."""
        known = _parameters(model)
        unnamed = map(str, range(len(known), len(self.args)))
        arguments = [*zip((*known, *unnamed), self.args, strict=False), *self.kwargs.items()]
        names = []
        for name, argument in arguments:
            inside = list(leaves(argument, (Tensor, Listed)))
            count = sum(any(entry is batch for batch in self._with_space) for entry in inside)
            names += [name] if count == 1 else [f"{name}[{number}]" for number in range(count)]
        return tuple(names)

    @property
    def image(self) -> Tensor:
        """The images as one batch (B, C, *space).

        Raises:
            InputError: where their sizes differ.
        """
        images = self.images
        if isinstance(images, Tensor):
            return self.channels_first(images)
        if len({*self.sizes}) > 1:
            raise InputError(
                "this method needs images of one size.",
                got=", ".join(map(str, self.sizes[:5])),
                do="explain them one at a time, or choose a method of a layer's gradients, such as layer_cam",
            )
        return torch.stack(images)

    @cached_property
    def batch(self) -> int:
        """How many images there are."""
        images = self.images
        return images.shape[0] if isinstance(images, Tensor) else len(images)  # `len` would fix a traced size

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Each image's (H, W), (D, H, W) or (L,), in pixels, voxels or samples."""
        return tuple(self._space(image[None]) for image in self.images)

    @cached_property
    def size(self) -> tuple[int, ...]:
        """(H, W), (D, H, W) or (L,) of the images; of images of several sizes the largest height and width."""
        images = self.images
        return self._space(images) if isinstance(images, Tensor) else tuple(map(max, zip(*self.sizes, strict=True)))

    @property
    def space(self) -> tuple[int, ...]:
        """What the model's layers lie over: the images, or the batch that it makes of a list of them."""
        return self.size if self.canvas is None else self.canvas.space

    @property
    def axes(self) -> tuple[str, ...]:
        """What the axes of a signal, or of a spectrogram of sound, are called; none for images."""
        return ("time", "frequency")[: len(self.size)] if self.rank < 4 else ()

    @property
    def signature(self) -> tuple[int, ...]:
        """What decides which layers have space: the shape of an image, and of what the model makes of a list."""
        return (self.channels_first(self.images[0][None]).shape[1], *self.space)

    def _space(self, images: Tensor) -> tuple[int, ...]:
        """The sizes of a batch without those of images and channels."""
        return tuple(self.channels_first(images).shape[2:])

    def channels_first(self, images: Tensor) -> Tensor:
        """Images laid out as the model takes them as (B, C, *space)."""
        return images[:, None] if self.channel_axis is None else images.movedim(self.channel_axis, 1)

    def _as_taken(self, images: Tensor) -> Tensor:
        """Images (B, C, *space) as the model takes them."""
        return images[:, 0] if self.channel_axis is None else images.movedim(1, self.channel_axis)

    def _has_space(self, tensor: Tensor) -> bool:
        """Whether a tensor can be a batch of images; of three dimensions only floats are."""
        return tensor.ndim >= self.rank and (tensor.ndim > 3 or tensor.is_floating_point())

    def seen_as(self, view: Callable[[Tensor], Tensor]) -> Inputs:
        """The same inputs with every picture in them changed: all tensors of the images' size.

        Args:
            view: from images (N, C, *space) to as many.
        """

        def change(entry: Tensor | Listed) -> Tensor | Listed:
            if isinstance(entry, Listed):
                return Listed(view(image[None])[0] for image in entry)
            if entry.ndim != self.images[0].ndim + 1 or self._space(entry) != self.size:
                return entry
            return self._as_taken(view(self.channels_first(entry)))

        return self._changed(change)

    def with_rows(self, rows: Callable[[Tensor], Tensor], image: Tensor | None = None) -> Inputs:
        """The same inputs with every tensor of the batch changed by `rows`; the images replaced, if some are given.

        Args:
            rows: from a tensor (B, ...) to (N, ...): which rows, in what order.
            image: the images to put in, (N, C, *space); None takes the own ones through `rows`.
        """
        own = self.images

        def change(entry: Tensor | Listed) -> Tensor | Listed:
            if entry is own and image is not None:
                return Listed(image.unbind()) if isinstance(entry, Listed) else self._as_taken(image)
            if isinstance(entry, Listed):
                return Listed(entry[number].clone() for number in rows(torch.arange(len(entry))).tolist())
            return rows(entry) if entry.ndim and entry.shape[0] == self.batch else entry

        return self._changed(change)

    def _with(self, images: Tensor, others: Tensor) -> Inputs:
        """The same inputs with other images, laid out as these are. Tensors are copies: the model may write to them."""
        return self._changed(lambda entry: (others if entry is images else entry).clone())

    def _changed(self, change: Callable[[Any], Any]) -> Inputs:
        args, kwargs = rebuild((self.args, self.kwargs), change, (Tensor, Listed))
        return replace(self, args=args, kwargs=kwargs)

    def run(self, model: nn.Module) -> Any:
        """What `model` returns. What it raises comes through, with a note where the images are not what it takes."""
        try:
            return model(*self.args, **self.kwargs)
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            if told := mistakes.note(self, model, error):
                error.add_note(told)
            raise


def _parameters(model: nn.Module) -> tuple[str, ...]:
    """The names of the positional arguments of a model, those behind `*args` left out."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):  # of a scripted module
        return ()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(found.name for found in parameters if found.kind in kinds)


def _is_missing(images: Images) -> bool:
    return isinstance(images, Listed) and not images


def _floats(call: Inputs) -> list[Tensor]:
    """The tensors of floats among the arguments."""
    return [tensor for tensor in leaves((call.args, call.kwargs), Tensor) if tensor.is_floating_point()]


def _listed(entries: list[Any]) -> list[Any]:
    """`entries`, marked as images where they are nothing but tensors (C, H, W); so are lists inside."""
    if entries and all(isinstance(entry, Tensor) and entry.ndim == 3 for entry in entries):
        return Listed(entries)
    return [rebuild(entry, _listed, list) for entry in entries]
