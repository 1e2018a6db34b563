"""Where in a volume is the evidence? A small 3-D network that tells bright lesions from dark ones, drawn by slices.

python examples/volume.py
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from scenes import share_inside
from torch import Generator, Tensor, nn

import seewhy

KINDS = ("bright", "dark")


def volumes(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Volumes (B, 1, 16, 32, 32) of noise with a bright or a dark ball in each; its kind (B,); its mask."""
    generator = Generator().manual_seed(seed)
    size = torch.tensor([16.0, 32.0, 32.0])
    kinds = torch.randint(2, (count,), generator=generator)
    radius = 4 + 2 * torch.rand(count, 1, generator=generator)
    centre = radius + torch.rand(count, 3, generator=generator) * (size - 2 * radius)
    places = torch.stack(torch.meshgrid(*(torch.arange(side) + 0.5 for side in size), indexing="ij"))
    mask = (places - centre[:, :, None, None, None]).square().sum(1) <= radius[:, :, None, None] ** 2
    noise = 0.35 + 0.3 * torch.rand(count, 1, 16, 32, 32, generator=generator)
    sign = 1 - 2 * kinds[:, None, None, None, None]
    return noise + 0.3 * sign * mask[:, None], kinds, mask


def train(steps: int = 60) -> nn.Module:
    """A classifier of the two."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv3d(1, 8, 3, stride=2, padding=1), nn.BatchNorm3d(8), nn.ReLU(),
        nn.Conv3d(8, 16, 3, stride=2, padding=1), nn.BatchNorm3d(16), nn.ReLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, len(KINDS)),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for step in range(steps):
        images, kinds, _ = volumes(16, seed=step + 1)
        loss = F.cross_entropy(model(images), kinds)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def main(path: Path = Path("volume.png")) -> None:
    """Train, explain three volumes, draw the slice of each with most heat and say how much of the heat is right."""
    images, kinds, masks = volumes(3)
    explanation = seewhy.explain(train(), images, kinds, method="hires_cam", labels=KINDS)
    explanation.save(path, images)
    for image, kind in enumerate(kinds.tolist()):
        inside, share = share_inside(explanation.heatmap[image], masks[image]), masks[image].float().mean()
        print(f"volume {image}, {KINDS[kind]}: {inside:.0%} of the heat on {share:.0%} of the volume")
    print(f"{explanation.note}\nwrote {path}")


if __name__ == "__main__":
    main()
