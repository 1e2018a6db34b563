"""Which part of the picture fits the words? Two prompts, one picture, two maps.

    python examples/clip_prompt.py

Trains a small text-image model on synthetic scenes and their captions for some seconds. With CLIP it is two lines:

    clip = seewhy.load("open_clip:RN50/openai")
    seewhy.explain(clip, "photo.jpg", seewhy.Text("a cat", against="a dog"))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from scenes import SHAPES, Scenes, scenes, share_inside
from torch import Tensor, nn

import seewhy

WORDS = ("a", *SHAPES[1:])


class TextImage(nn.Module):
    """Pictures and prompts as vectors of length 1 that agree where the prompt fits the picture."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(*_block(3, 16), *_block(16, width))
        self.projection = nn.Linear(width, width, bias=False)
        self.words = nn.EmbeddingBag(len(WORDS), width)

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.projection(self.features(images).mean((-2, -1))))

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        return F.normalize(self.words(torch.tensor([[WORDS.index(word) for word in text.split()] for text in prompts])))


def _block(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]


def train(steps: int = 80) -> TextImage:
    """A model of discs, squares and triangles in images of 64 x 64, from which captions fit."""
    torch.manual_seed(0)
    model = TextImage()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    prompts = [f"a {shape}" for shape in SHAPES[1:]]
    for step in range(steps):
        seen = scenes(16, seed=step + 1)
        fits = F.one_hot(seen.kinds - 1, len(prompts)).amax(1).float()
        likely = 10 * model(seen.images) @ model.embed_text(prompts).T
        loss = F.binary_cross_entropy_with_logits(likely, fits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def main(path: Path = Path("clip_prompt.png")) -> None:
    """Train, ask about a disc and a square, draw both maps of the same pictures and say how much heat is right."""
    model, seen = train(), scenes(12)
    both = ((seen.kinds == 1) | (seen.kinds == 2)).all(1)
    seen = Scenes(*(part[both][:3] for part in seen))
    explainer = seewhy.Explainer(model, "hires_cam")
    for kind, other in ((1, 2), (2, 1)):
        target = seewhy.Text(f"a {SHAPES[kind]}", against=f"a {SHAPES[other]}", encode=model.embed_text)
        explanation = explainer(seen.images, target)
        explanation.save(path.with_stem(f"{path.stem}-{SHAPES[kind]}"), seen.images)
        for image, mask in enumerate(seen.masks[seen.kinds == kind]):
            inside = share_inside(explanation.heatmap[image], mask)
            print(f"image {image}, {target.prompt}: {inside:.0%} of the heat on {mask.float().mean():.0%} of the image")
    print(f"wrote {path.stem}-*.png")


if __name__ == "__main__":
    main()
