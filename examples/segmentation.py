"""Why did the segmenter colour this region as it did? The evidence for a class inside one object's mask.

    python examples/segmentation.py

Trains torchvision's LR-ASPP, with a small backbone, on synthetic scenes for some seconds.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from scenes import SHAPES, Scenes, scenes, share_inside
from torch import Tensor, nn
from torchvision.models.segmentation.lraspp import LRASPP

import seewhy


class Backbone(nn.Module):
    """Features at a quarter and an eighth of the image's size."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(*_block(3, 16), *_block(16, 24))
        self.high = nn.Sequential(*_block(24, 32))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        low = self.low(images)
        return {"low": low, "high": self.high(low)}


def _block(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]


def train(steps: int = 80) -> nn.Module:
    """A segmenter of discs, squares and triangles in images of 64 x 64."""
    torch.manual_seed(0)
    model = LRASPP(Backbone(), low_channels=24, high_channels=32, num_classes=len(SHAPES), inter_channels=32)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for step in range(steps):
        seen = scenes(16, seed=step + 1)
        truth = (seen.masks * seen.kinds[:, :, None, None]).amax(1)
        loss = F.cross_entropy(model(seen.images)["out"], truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def explain(model: nn.Module, seen: Scenes) -> seewhy.Explanation:
    """For each object of each image a map of what speaks for its class inside its mask."""
    target = seewhy.Region(seen.kinds, seen.masks)
    return seewhy.explain(model, seen.images, target, method="layer_cam", labels=SHAPES)


def main(path: Path = Path("segmentation.png")) -> None:
    """Train, explain three scenes, draw them and say how much of the heat lies on each object."""
    seen = scenes(3)
    explanation = explain(train(), seen)
    explanation.save(path, seen.images)
    for image, kinds in enumerate(seen.kinds.tolist()):
        for number, kind in enumerate(kinds):
            mask = seen.masks[image, number]
            inside = share_inside(explanation.heatmap[image, number], mask)
            print(f"image {image}, {SHAPES[kind]}: {inside:.0%} of the heat on {mask.float().mean():.0%} of the image")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
