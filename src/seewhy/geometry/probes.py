"""Changed copies of an image: one tile changed in each, and all of it more or less along each axis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from seewhy.geometry.placement import Shape

_TILES = {1: (12,), 2: (4, 4), 3: (2, 3, 3)}  # along each axis, by the number of axes


@dataclass(frozen=True)
class Probes:
    """Where the copies of an image of size `space` are changed.

    The tiles have soft edges and add up to the whole image. A ramp rises evenly along an axis, from 0 to 1.
    """

    space: Shape
    counts: Shape

    @classmethod
    def of(cls, space: Shape) -> Probes:
        return cls(space, tuple(min(pair) for pair in zip(_TILES[len(space)], space, strict=True)))

    @cached_property
    def windows(self) -> list[Float[Tensor, "count pixels"]]:
        """Along each axis how much each of its tiles covers each pixel."""
        return [_windows(pixels, count) for pixels, count in zip(self.space, self.counts, strict=True)]

    @property
    def tiles(self) -> Float[Tensor, "tiles *space"]:
        masks = torch.ones(1, dtype=torch.float64)
        for window in self.windows:
            masks = torch.einsum("k...,ip->ki...p", masks, window).flatten(0, 1)
        return masks

    @property
    def ramps(self) -> Float[Tensor, "axes *space"]:
        shares = []
        for axis, pixels in enumerate(self.space):
            shape = [pixels if axis == other else 1 for other in range(len(self.space))]
            shares.append((centres(pixels) / pixels).reshape(shape).expand(self.space))
        return torch.stack(shares)

    @property
    def copies(self) -> int:
        """How many images `changed` makes."""
        return 2 + math.prod(self.counts) + 2 * len(self.space)

    def changed(
        self, image: Shaped[Tensor, "C *space"], draw: torch.Generator, *, blank: bool
    ) -> Shaped[Tensor, "N C *space"]:
        """Copies: the image; along its first axis, more and more, less and less, and half of both; tiles; other axes.

        What is put in are the image's own colours, at random, half of them one by one and half in blocks, so that
        values stay where they were between. More and less are the roots of shares of one, as the variances of changes
        add up, be they as fine as noise or as wide as a receptive field. blank: the ground is the mean colour instead.
        """
        colours = _colours(image.flatten(1), draw)
        ground = image
        if blank:
            mean = colours.double().mean(1).to(image.dtype)
            ground = mean.reshape(-1, *[1] * len(self.space)).expand_as(image)

        def put(share: Tensor, other: Tensor) -> Tensor:
            mixed = ground.float() + (other.float() - ground.float()) * share.to(image.device, torch.float32)
            return (mixed if image.dtype.is_floating_point else mixed.round()).to(image.dtype)

        other = self._redrawn(colours, draw)
        roots = [root for share in self.ramps for root in (share.sqrt(), (1 - share).sqrt())]
        ramps = [put(root, other) for root in roots]
        half = put((roots[0] + roots[1]) / 2, other)
        tiles = [put(tile, self._redrawn(colours, draw)) for tile in self.tiles]
        return torch.stack([ground, *ramps[:2], half, *tiles, *ramps[2:]])

    def _redrawn(self, colours: Shaped[Tensor, "C pixels"], draw: torch.Generator) -> Shaped[Tensor, "C *space"]:
        """Noise of these colours, every other pixel as fine as the image, the rest in blocks."""
        blocks = max(2, round(max(self.space) / 16))
        fine, coarse = (self._drawn(colours, block, draw) for block in (1, blocks))
        return torch.where((torch.rand(self.space, generator=draw) < 0.5).to(colours.device), fine, coarse)

    def _drawn(
        self, colours: Shaped[Tensor, "C pixels"], block: int, draw: torch.Generator
    ) -> Shaped[Tensor, "C *space"]:
        small = [-(-pixels // block) for pixels in self.space]
        places = torch.randint(colours.shape[1], (math.prod(small),), generator=draw).to(colours.device)
        noise = colours[:, places].reshape(-1, *small)
        for axis, pixels in enumerate(self.space, 1):
            noise = noise.repeat_interleave(block, axis).narrow(axis, 0, pixels)
        return noise


def centres(pixels: int) -> Float[Tensor, " pixels"]:
    """Where pixels lie: the first reaches from 0 to 1."""
    return torch.arange(pixels, dtype=torch.float64) + 0.5


def _windows(pixels: int, count: int) -> Float[Tensor, "count pixels"]:
    edges = torch.linspace(0, pixels, count + 1, dtype=torch.float64)[1:-1]
    soft = max(pixels / count / 4, 1.0)
    steps = ((centres(pixels) - edges[:, None]) / soft + 0.5).clamp(0, 1)
    ends = torch.ones(1, pixels, dtype=torch.float64)
    steps = torch.cat([ends, steps, 0 * ends])
    return steps[:-1] - steps[1:]


def _colours(colours: Shaped[Tensor, "C pixels"], draw: torch.Generator) -> Shaped[Tensor, "C pixels"]:
    """The colours of an image; of one without any contrast some around its own."""
    values = colours.double()
    largest = float(values.abs().max())
    if float((values - values.mean(1, keepdim=True)).abs().max()) > 1e-6 * largest:
        return colours
    size = largest or 1.0
    if colours.dtype.is_floating_point:
        return colours + (size * torch.randn(colours.shape, generator=draw)).to(colours)
    most = 255 if colours.dtype == torch.uint8 else max(1, round(size))
    return torch.randint(most + 1, colours.shape, generator=draw).to(colours)
