"""A small model with everything that a careless look would disturb, and data that draws from every random state."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from seewhy.integrations import Look, Monitor


class AlwaysDropout(nn.Module):
    """Draws in eval mode too, as in Monte Carlo dropout."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.2, training=True)


def network() -> nn.Sequential:
    """BatchNorm, dropout of two kinds, three classes of 16x16 images; the same weights each time."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Dropout2d(0.2),
        nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        AlwaysDropout(), nn.Linear(8, 3),
    )  # fmt: skip


class Augmented(Dataset[tuple[Tensor, int]]):
    """Noise with a bright square whose place tells the class; mirrored, shifted and dimmed at random."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = scene(index)
        if random.random() < 0.5:
            image = image.flip(-2)
        image = image.roll(int(np.random.randint(-1, 2)), -1)
        return image * (0.8 + 0.4 * torch.rand(())), label


def scene(index: int) -> tuple[Tensor, int]:
    label = index % 3
    image = 0.3 * torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(index))
    image[:, 5:11, 5 * label : 5 * label + 5] += 0.7
    return image, label


IMAGES = torch.stack([scene(100 + index)[0] for index in range(3)])
LABELS = torch.tensor([scene(100 + index)[1] for index in range(3)])


class Looks(list[Look]):
    """A log that remembers."""

    def __call__(self, look: Look) -> None:
        self.append(look)

    @property
    def steps(self) -> list[int]:
        return [look.step for look in self]


def monitor(model: nn.Module, inputs: Any = IMAGES, **options: Any) -> Monitor:
    return Monitor(model, inputs, LABELS, **{"log": Looks(), "every": 2, **options})


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Everything that tells two runs apart: weights, statistics, gradients, modes and what would be drawn next."""
    tensors = {f"state.{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    tensors |= {f"grad.{name}": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    modes = {f"mode.{name}": module.training for name, module in model.named_modules()}
    return {**tensors, **modes, "torch": torch.rand(4), "numpy": np.random.rand(4), "python": random.random()}


def assert_identical(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not np.array_equal(np.asarray(one[name]), np.asarray(other[name]))]
    assert not different
