"""Why did the detector see a disc here, and a square there? A map for each box, from the pyramid that reads them.

    python examples/detection.py

Trains torchvision's RetinaNet, with a small backbone, on synthetic scenes for some seconds: there are no weights to
download. LayerCAM keeps each place's own gradient, which is what tells two boxes of one image apart.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from scenes import SHAPES, Scenes, scenes, share_inside
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork

import seewhy


class Backbone(nn.Module):
    """Two levels, of an eighth and a quarter of the image's size."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(*_block(3, 16), *_block(16, 32))
        self.coarse = nn.Sequential(*_block(32, 32))
        self.fpn = FeaturePyramidNetwork([32, 32], self.out_channels)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        fine = self.fine(images)
        return self.fpn(OrderedDict(fine=fine, coarse=self.coarse(fine)))


def _block(before: int, after: int) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU(),
        nn.Conv2d(after, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(),
    ]  # fmt: skip


def train(steps: int = 60) -> nn.Module:
    """A detector of discs, squares and triangles in images of 64 x 64."""
    torch.manual_seed(0)
    anchors = AnchorGenerator(((14, 18), (22, 28)), ((1.0,),) * 2)
    head = RetinaNetHead(Backbone.out_channels, 2, len(SHAPES), norm_layer=nn.BatchNorm2d)
    model = RetinaNet(
        Backbone(), len(SHAPES), head=head, anchor_generator=anchors, min_size=64, max_size=64, score_thresh=0.2,
        image_mean=[0.5] * 3, image_std=[0.25] * 3, topk_candidates=100, detections_per_img=10,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        seen = scenes(8, seed=step + 1)
        truth = [{"boxes": boxes, "labels": kinds} for boxes, kinds in zip(seen.boxes, seen.kinds, strict=True)]
        loss = sum(model(list(seen.images), truth).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def explain(model: nn.Module, seen: Scenes) -> seewhy.Explanation:
    """A map for each of the true boxes of each image: the detection that overlaps it most is explained."""
    target = seewhy.Box(label=seen.kinds, box=seen.boxes)
    return seewhy.explain(model, list(seen.images), target, method="layer_cam", labels=SHAPES)


def main(path: Path = Path("detection.png")) -> None:
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
