"""Where does a vision transformer look? Tokens become a map, the class token left out.

    python examples/vit.py

Trains timm's vision transformer, two blocks of it, on synthetic scenes with one shape for some seconds. With a real one
it is `seewhy.explain(seewhy.load("timm:vit_base_patch16_224"), "photo.jpg")`.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from scenes import SHAPES, Scenes, scenes, share_inside
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import seewhy


def train(steps: int = 120) -> nn.Module:
    """A classifier of discs, squares and triangles in images of 64 x 64."""
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=64, patch_size=8, num_classes=len(SHAPES), embed_dim=48, depth=2, num_heads=4, mlp_ratio=2
    )
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for step in range(steps):
        seen = scenes(16, shapes=1, seed=step + 1)
        loss = F.cross_entropy(model(seen.images), seen.kinds[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def explain(model: nn.Module, seen: Scenes) -> seewhy.Explanation:
    """A map for the true class. After the last block only the class token counts, so a layer before it is chosen."""
    return seewhy.explain(model, seen.images, seen.kinds[:, 0], method="hires_cam", labels=SHAPES)


def main(path: Path = Path("vit.png")) -> None:
    """Train, explain three scenes, draw them and say how much of the heat lies on the object."""
    seen = scenes(3, shapes=1)
    explanation = explain(train(), seen)
    explanation.save(path, seen.images)
    for image, kind in enumerate(seen.kinds[:, 0].tolist()):
        mask = seen.masks[image, 0]
        inside = share_inside(explanation.heatmap[image], mask)
        print(f"image {image}, {SHAPES[kind]}: {inside:.0%} of the heat on {mask.float().mean():.0%} of the image")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
