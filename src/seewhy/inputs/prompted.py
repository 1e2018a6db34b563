"""A call of a model that answers a prompt about pictures: rows are prompts, and the image is their pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seewhy.errors import InputError
from seewhy.hooks.nested import rebuild
from seewhy.inputs.call import Inputs
from seewhy.inputs.pictures import Picture, pictures_of


@dataclass(frozen=True)
class Prompted(Inputs):
    """The keywords that a processor of transformers made of prompts and pictures.

    The image is what a row's pictures look like, (B, C, H, W); of several pictures or frames (B, C, N, H, W), in the
    order in which they are passed, and as large as the largest of them. What is changed in it is changed in every view
    that the model has of the picture.

    Attributes:
        pictures: all of them, with the row that each belongs to.
        layers: the names of the layers that the prompt's tokens go through, once that is known.
    """

    pictures: tuple[Picture, ...] = field(default=(), kw_only=True)
    layers: tuple[str, ...] = field(default=(), kw_only=True)

    @classmethod
    def of(cls, inputs: Any, model: nn.Module) -> Prompted:
        """The call that a processor's output means.

        Raises:
            InputError: where it is none, or holds no picture.
        """
        if not isinstance(inputs, Mapping) or not isinstance(inputs.get("input_ids"), Tensor):
            raise InputError(
                "a token is explained of a prompt with pictures.",
                got=type(inputs).__name__ + (f" with {', '.join(inputs)}" if isinstance(inputs, Mapping) else ""),
                expected="what a processor of transformers returns: input_ids, pixel_values and what belongs to them",
                do='processor(images=photo, text=prompt, return_tensors="pt")',
            )
        given = dict(inputs)
        kwargs = rebuild(given, lambda tensor: tensor.detach().clone(memory_format=torch.contiguous_format))
        return cls((), kwargs, pictures=pictures_of(kwargs, model))

    @property
    def ids(self) -> Int[Tensor, "B L"]:
        """The tokens of the prompts."""
        ids: Tensor = self.kwargs["input_ids"]
        return ids

    @cached_property
    def count(self) -> int:
        """The pictures of a row are one image."""
        return 1

    @cached_property
    def batch(self) -> int:
        """How many prompts there are."""
        return len(self.ids)

    @property
    def length(self) -> int:
        """How many tokens a prompt has, with those that stand for the pictures."""
        return self.ids.shape[1]

    def of_row(self, row: int) -> list[Picture]:
        """The pictures of a prompt."""
        return [picture for picture in self.pictures if picture.row == row]

    @property
    def _most(self) -> int:
        return max(len(self.of_row(row)) for row in range(self.batch))

    @cached_property
    def size(self) -> tuple[int, ...]:
        """(H, W) of the largest picture; (N, H, W) where a prompt has several."""
        height, width = (max(sides) for sides in zip(*(picture.size for picture in self.pictures), strict=True))
        return (height, width) if self._most == 1 else (self._most, height, width)

    @property
    def space(self) -> tuple[int, ...]:
        return self.size

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        return (self.size,) * self.batch

    @property
    def signature(self) -> tuple[int, ...]:
        return (self.images.shape[1], *self.size)

    @cached_property
    def images(self) -> Tensor:
        """The pictures of each row."""
        first = self.pictures[0].seen(self.kwargs)
        height, width = self.size[-2:]
        canvas = first.new_zeros(self.batch, len(first), self._most, height, width)
        for row in range(self.batch):
            for number, picture in enumerate(self.of_row(row)):
                rows, columns = picture.size
                canvas[row, :, number, :rows, :columns] = picture.seen(self.kwargs)
        return canvas[:, :, 0] if self._most == 1 else canvas

    @property
    def image(self) -> Float[Tensor, "B C *size"]:
        return self.images

    def with_rows(self, rows: Callable[[Tensor], Tensor], image: Tensor | None = None) -> Prompted:
        """The same call with other rows; see `Inputs.with_rows`. Tensors without rows go with the pictures in them."""
        numbers = rows(torch.arange(self.batch, device=self.ids.device)).tolist()
        moved = [replace(picture, row=row) for row, number in enumerate(numbers) for picture in self.of_row(number)]
        kwargs = {key: self._picked(key, value, rows, moved) for key, value in self.kwargs.items()}
        found = replace(self, kwargs=kwargs, pictures=self._moved(moved, numbers))
        if image is not None:
            several = self._most > 1
            own = self.images[torch.tensor(numbers, device=self.images.device)]
            by = image - own if several else (image - own)[:, :, None]
            for row in range(len(numbers)):
                for number, picture in enumerate(found.of_row(row)):
                    height, width = picture.size
                    changed = by[row, :, number, :height, :width]
                    if changed.requires_grad or bool(changed.any()):
                        picture.change(kwargs, changed)
        return found

    def _moved(self, picked: Sequence[Picture], numbers: Sequence[int]) -> tuple[Picture, ...]:
        """Pictures whose views lie where `_picked` puts them."""
        starts, moved = Counter[str](), []
        for picture in picked:
            views = []
            for view in picture.views:
                shift = (picture.row - numbers[picture.row]) * self.kwargs[view.key].shape[1]
                start = starts[view.key] if self._is_flat(view.key) else view.start + shift
                views.append(replace(view, start=start, stop=start + view.stop - view.start))
                starts[view.key] += view.stop - view.start
            moved.append(replace(picture, views=tuple(views)))
        return tuple(moved)

    def _is_flat(self, key: str) -> bool:
        """Whether a tensor holds the views of all rows one after the other, and not a row for each prompt."""
        return self.kwargs[key].ndim in (2, 4)

    def _picked(self, key: str, value: Any, rows: Callable[[Tensor], Tensor], picked: Sequence[Picture]) -> Any:
        """What a keyword becomes for the pictures of other rows."""
        if not isinstance(value, Tensor) or not value.ndim:
            return value
        if key in {view.key for picture in self.pictures for view in picture.views} and self._is_flat(key):
            views = [view for picture in picked for view in picture.views if view.key == key]
            return torch.cat([value[view.start : view.stop] for view in views])
        if len(value) == self.batch:
            return rows(value)
        if len(value) == len({picture.entry for picture in self.pictures}):
            entries = dict.fromkeys((picture.row, picture.entry) for picture in picked)
            return value[[entry for _, entry in entries]]
        return value

    def seen_as(self, view: Callable[[Tensor], Tensor]) -> Prompted:
        """The same call with its pictures changed; see `Inputs.seen_as`."""
        return self.with_rows(Tensor.clone, view(self.image))
