"""Small images, maps and models for the metrics: float64, nothing linear."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Generator, Tensor, nn


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def images(count: int = 3, side: int = 8, channels: int = 3, dims: int = 2) -> Tensor:
    return torch.randn(count, channels, *(side,) * dims, generator=seeded(1), dtype=torch.float64)


def maps(like: Tensor, seed: int = 2) -> Tensor:
    """In (0, 1), no two values equal."""
    return torch.rand(len(like), *like.shape[2:], generator=seeded(seed), dtype=torch.float64)


def tied(like: Tensor) -> Tensor:
    """Two thirds of the pixels 0, the others of four values."""
    return (maps(like) * 12).floor().sub(7).clamp(min=0) / 4


class Classifier(nn.Module):
    """Two convolutions and a head over the whole image."""

    def __init__(self, channels: int = 3, classes: int = 5, side: int = 8, dims: int = 2) -> None:
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.first = conv(channels, 6, 3, padding=1)
        self.second = conv(6, 4, 3, padding=1)
        self.head = nn.Linear(4 * side**dims, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(torch.relu(self.first(x)))
        return self.head(torch.tanh(x).flatten(1))


def classifier(**options: int) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Classifier(**options).double().eval()


def alone(score: Callable[[Tensor], Tensor]) -> Callable[[np.ndarray], float]:
    """The score of one image at a time, for an oracle."""
    return lambda image: float(score(torch.as_tensor(np.asarray(image))[None])[0].detach())
