"""How the methods of this folder ask what the score becomes: changes are made a batch at a time.

Everywhere in this folder `activations` A are a layer's, (B, C, *space), and `inputs` X the images, (B, c, *size).
`score` and `replay` tell S(changed X) and S(changed A): see `seewhy._types.Ask`. Random masks and noise are the same
for all images, so that an image's map does not depend on the batch it came in. Maps are signed, (B, *space) or
(B, *size).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Inexact
from torch import Tensor

from seewhy._types import Ask
from seewhy.images import arrays

Layer = Float[Tensor, "B C *space"]
Images = Inexact[Tensor, "B c *size"]
Map = Float[Tensor, "B *space"]
Make = Callable[[Tensor, Tensor], Tensor]  # (images (n,), numbers (n,)) -> (n, c, *size)


def asked(ask: Ask, which: Bool[Tensor, "B K"], make: Make, missing: Float[Tensor, "B #K"]) -> Float[Tensor, "B K"]:
    """The scores of K changes of each image.

    Args:
        ask: what the score becomes, `score` or `replay`.
        which: (B, K), the changes that are asked for.
        make: makes the changed tensors, of the images and with the numbers of the changes that it is given.
        missing: (B, 1) or (B, K), the score of a change that is not asked for.

    Returns:
        (B, K) scores.
    """
    numbers, images = which.T.nonzero().unbind(1)  # image by image within each number
    found = ask(images, lambda rows: make(images[rows], numbers[rows]))
    return missing.expand(which.shape).index_put((images, numbers), found.to(missing))


def asked_of_each(ask: Ask, inputs: Tensor, count: int, make: Make) -> Float[Tensor, "B K"]:
    """The scores of `count` changes of each image, all of them: see `asked`. No value decides what is computed."""
    images, numbers = (torch.arange(many, device=inputs.device) for many in (inputs.shape[0], count))
    images, numbers = images.repeat(count), numbers.repeat_interleave(inputs.shape[0])
    found = ask(images, lambda rows: make(images[rows], numbers[rows]))
    return found.reshape(count, -1).T


def is_constant(activations: Layer) -> Bool[Tensor, "B C"]:
    """The channels that are the same at all places: no mask can be made of them."""
    places = activations.flatten(2)
    return places.amax(-1) == places.amin(-1)


def as_masks(maps: Float[Tensor, "n *space"], size: tuple[int, ...]) -> Float[Tensor, "n 1 *size"]:
    """Maps as masks: resized to the image, then scaled to [0, 1]; all zero where a map is constant."""
    resized = arrays.resize(maps, size)
    return arrays.rescale(resized, tuple(range(1, resized.ndim)))[:, None]


def through(activations: Layer, inputs: Images, share: float = 1.0) -> Make:
    """Images seen through a channel: times its mask, and times `share`."""
    return lambda images, channels: share * as_masks(activations[images, channels], inputs.shape[2:]) * inputs[images]
