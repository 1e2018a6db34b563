"""Ready-made functions for `edit`: from a layer's tensor to the one that takes its place. None changes its argument."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from seewhy.errors import InputError

Edit = Callable[[Tensor], Tensor]


def clip(max_norm: float) -> Edit:
    """Scale each sample (each entry of the first dimension) down to a Euclidean norm of `max_norm` if it is above.

    By sample, so that the images of a batch do not see each other.

    Args:
        max_norm: the largest norm that is left, above 0.

    Returns:
        A function for `edit`.

    Raises:
        InputError: unless `max_norm` is positive.
    """
    if not max_norm > 0:
        raise InputError("a norm to clip to is positive.", got=max_norm, do="scale(0) gives zeros")

    def change(tensor: Tensor) -> Tensor:
        rows = tensor.reshape(len(tensor), -1) if tensor.ndim else tensor.reshape(1, 1)
        norms: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        return (rows * (max_norm / norms.clamp(min=max_norm))).reshape(tensor.shape)

    return change


def scale(factor: float) -> Edit:
    """Multiply by `factor`.

    Args:
        factor: any number.

    Returns:
        A function for `edit`.
    """
    return lambda tensor: tensor * factor


def mask(weights: Tensor, *, dim: int = 1) -> Edit:
    """Multiply by `weights`. With zeros and ones this prunes channels.

    Args:
        weights: (C,), one for each entry of dimension `dim`, or any shape that broadcasts to the tensor.
        dim: the dimension that weights (C,) are of. Channels lie in dimension 1, in the last one of tokens (B, N, C).

    Returns:
        A function for `edit`. It raises `InputError` for a tensor without C entries in that dimension.
    """

    def change(tensor: Tensor) -> Tensor:
        factors = weights.to(tensor)
        if factors.ndim == 1:
            _check(tensor, dim, len(factors))
            factors = factors.reshape([-1 if axis == dim % tensor.ndim else 1 for axis in range(tensor.ndim)])
        return tensor * factors

    return change


def zero(channels: int | Sequence[int], *, dim: int = 1) -> Edit:
    """Set these entries of dimension `dim` to zero, also where they are not finite.

    Args:
        channels: the index of an entry, or several.
        dim: which dimension. Channels lie in dimension 1, in the last one of tokens (B, N, C).

    Returns:
        A function for `edit`. It raises `InputError` for a tensor without that dimension.
    """
    index = torch.tensor([channels] if isinstance(channels, int) else list(channels), dtype=torch.long)

    def change(tensor: Tensor) -> Tensor:
        _check(tensor, dim)
        return tensor.index_fill(dim, index.to(tensor.device), 0)

    return change


def noise(std: float, *, generator: Generator | None = None) -> Edit:
    """Add normal noise of standard deviation `std`.

    Under gradient checkpointing the repeated forward would draw anew: edit layers outside of the checkpoints.

    Args:
        std: the deviation, in units of the tensor.
        generator: draws the noise; None makes one that starts from the same seed for each edit.

    Returns:
        A function for `edit`.
    """
    source = generator or Generator().manual_seed(0)

    def change(tensor: Tensor) -> Tensor:
        drawn = torch.randn(tensor.shape, generator=source, device=source.device)
        return tensor + std * drawn.to(tensor)

    return change


def replace(value: Tensor | float) -> Edit:
    """Put `value` in place of what was there.

    Args:
        value: a number, or a tensor that broadcasts to what was there.

    Returns:
        A function for `edit`.
    """

    def change(tensor: Tensor) -> Tensor:
        given = value if isinstance(value, Tensor) else torch.tensor(value)
        return given.to(tensor).expand_as(tensor).clone()

    return change


def _check(tensor: Tensor, dim: int, size: int | None = None) -> None:
    """Raise `InputError` if the tensor has no dimension `dim`, or not of `size`."""
    known = -tensor.ndim <= dim < tensor.ndim
    if not known or (size is not None and tensor.shape[dim] != size):
        raise InputError(
            "the edit does not fit what passes through the layer.",
            got=f"shape {tuple(tensor.shape)}",
            expected=f"a dimension {dim}" + ("" if size is None else f" of size {size}"),
            do="pass dim=, the dimension of the channels",
        )
