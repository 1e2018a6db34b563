"""What a caller passes to a model: a tensor, a tuple of arguments or a dict of keywords."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from seewhy.capture.nested import rebuild, tensors
from seewhy.errors import InputError, InputTypeError


@dataclass(frozen=True)
class Inputs:
    """The arguments of one call. Tensors in them are private copies without a graph: the caller's stay untouched."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, inputs: Any) -> Inputs:
        """A tensor or list is one argument, a tuple several, a mapping keywords."""
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
        if not any(tensor.ndim >= 4 for tensor in tensors((args, kwargs))):
            raise InputTypeError(
                "there is no image among the inputs.",
                got=type(inputs).__name__,
                expected="a tensor (B, C, H, W) or (B, C, D, H, W), or a tuple, list or dict that holds one",
                do="for PIL images and file names pass a model from seewhy.load, which knows the preprocessing",
            )
        return found

    @property
    def image(self) -> Tensor:
        """The first tensor with space: (B, C, *space)."""
        return next(tensor for tensor in tensors((self.args, self.kwargs)) if tensor.ndim >= 4)

    @property
    def batch(self) -> int:
        return self.image.shape[0]

    @property
    def space(self) -> tuple[int, ...]:
        """(H, W) or (D, H, W), in pixels or voxels."""
        return tuple(self.image.shape[2:])

    def seen_as(self, view: Callable[[Tensor], Tensor]) -> Inputs:
        """The same inputs with every picture in them changed: all tensors of the image's size."""

        def change(tensor: Tensor) -> Tensor:
            return view(tensor) if tensor.ndim >= 4 and tuple(tensor.shape[2:]) == self.space else tensor

        return Inputs(*rebuild((self.args, self.kwargs), change))

    def with_rows(self, rows: Callable[[Tensor], Tensor], image: Tensor | None = None) -> Inputs:
        """The same inputs with every tensor of the batch changed by `rows`; the image replaced, if one is given."""
        own = self.image

        def change(tensor: Tensor) -> Tensor:
            if tensor is own and image is not None:
                return image
            return rows(tensor) if tensor.ndim and tensor.shape[0] == self.batch else tensor

        return Inputs(*rebuild((self.args, self.kwargs), change))

    def run(self, model: nn.Module) -> Any:
        return model(*self.args, **self.kwargs)
