"""What the methods of this folder share. `gradients_at` tells the score's gradients at changed images: `AskSlopes`.

Random numbers are the same for all images, so that an image's map does not depend on the batch it came in. Maps are
signed and lie on the input, (B, *size).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy._types import AskSlopes
from seewhy.errors import InputError

Image = Float[Tensor, "B C *size"]
Map = Float[Tensor, "B *size"]
Make = Callable[[Tensor, Tensor], Tensor]  # (images (n,), numbers (n,)) -> (n, C, *size)
Take = Callable[[Tensor, Tensor, Tensor], Tensor]  # (gradients, images, numbers) -> what each row adds


def summed(
    gradients_at: AskSlopes, inputs: Image, count: int, make: Make, take: Take
) -> tuple[Float[Tensor, "B C2 *size"], Float[Tensor, "B count"]]:
    """The sum over `count` changes of each image of what is made of the gradients there, and the scores there.

    Added up in float64: hundreds of gradients may almost cancel, and a variance is a difference of two such sums.
    """
    batch = len(inputs)
    images = torch.arange(batch, device=inputs.device).repeat(count)
    numbers = torch.arange(count, device=inputs.device).repeat_interleave(batch)
    scores, total = inputs.new_zeros(batch, count, dtype=torch.float64), inputs.new_zeros(0)
    for rows, found, slopes in gradients_at(images, lambda rows: make(images[rows], numbers[rows])):
        taken = take(slopes.double(), images[rows], numbers[rows])
        if not len(total):
            total = taken.new_zeros(batch, *taken.shape[1:])
        total.index_add_(0, images[rows], taken)
        scores[images[rows], numbers[rows]] = found.double()
    return total, scores


def at_least(least: int, **numbers: int) -> None:
    """Refuse an option that counts something and is too small."""
    for name, number in numbers.items():
        if number < least:
            raise InputError(f"`{name}` is too small.", got=number, expected=f"at least {least}")


def column(values: Tensor, like: Tensor) -> Tensor:
    """Values (n,) that go with the rows of a tensor (n, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
