"""Models small enough to know what the right map is, and maps that are right or wrong by design."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZE = 32
SPOT = (slice(4, 12), slice(18, 26))  # an eighth of the side of each image lies in it: a sixteenth of the pixels


class Spot(nn.Module):
    """Two classes: how bright the red of the spot is, and its opposite. The layer returns the colours as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.head = nn.Linear(1, 2)
        self.head.weight.data = torch.tensor([[4.0], [-4.0]])
        self.head.bias.data = torch.tensor([-2.0, 2.0])

    def forward(self, images: Tensor) -> Tensor:
        red = self.layer(images)[:, :1, SPOT[0], SPOT[1]]
        return self.head(red.mean((2, 3)))


class Corner(nn.Module):
    """Looks at a few pixels in a corner, which are the same in every image: no other pixel changes its score."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(0 * self.layer(images).mean((2, 3))) + 0 * images.mean((1, 2, 3))[:, None]


def spotted(count: int = 4, *, seed: int = 0) -> Tensor:
    """(count, 3, 32, 32): dim noise, and bright red in the spot."""
    images = 0.2 * torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    images[:, 0, SPOT[0], SPOT[1]] = 1.0
    return images


def right(count: int = 4) -> Tensor:
    """(count, 32, 32): 1 in the spot, a smooth slope elsewhere."""
    slope = torch.linspace(0, 0.2, SIZE).expand(count, SIZE, SIZE).clone()
    slope[:, SPOT[0], SPOT[1]] = 1.0
    return slope


def shifted(count: int = 4) -> Tensor:
    """The same values, half an image further."""
    return right(count).roll((SIZE // 2, SIZE // 2), (1, 2))
