"""Which part of the picture fits the words? Two prompts, one picture, two maps, and the contrast of both.

    python examples/clip_prompt.py

Trains a small open_clip model, a ResNet with an attention pool and a text transformer, on synthetic scenes and their
captions for some seconds. With real weights it is `seewhy.load("open_clip:RN50/openai")`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from scenes import SHAPES, scenes, share_inside

import seewhy

CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
PROMPTS = [f"a {shape}" for shape in SHAPES[1:]]


def train(steps: int = 120) -> seewhy.models.Loaded:
    """A text-image model that knows discs, squares and triangles."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "shapes.json").write_text(json.dumps(CONFIG))
        open_clip.add_model_config(folder)
    torch.manual_seed(0)
    loaded = seewhy.load("open_clip:shapes", weights=None)
    model = loaded.module.train()
    tokens = open_clip.get_tokenizer("shapes")(PROMPTS)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for step in range(steps):
        seen = scenes(16, seed=step + 1)
        images, texts, _ = model(seen.images, tokens)
        likely = 10 * images @ texts.T
        present = F.one_hot(seen.kinds - 1, len(PROMPTS)).amax(1).float()
        loss = F.cross_entropy(likely, present / present.sum(1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    return loaded


def main(path: Path = Path("clip_prompt.png")) -> None:
    """Train, ask three scenes for each of their shapes, draw the maps and say how much of the heat is right."""
    explainer = seewhy.Explainer(train(), "layer_cam", layers="visual.layer3")
    seen = scenes(3)
    for number in range(2):
        kinds, others = seen.kinds[:, number].tolist(), seen.kinds[:, 1 - number].tolist()
        for image, (kind, other) in enumerate(zip(kinds, others, strict=True)):
            target = seewhy.Text(f"a {SHAPES[kind]}", against=f"a {SHAPES[other]}")
            explanation = explainer(seen.images[image : image + 1], target)
            inside = share_inside(explanation.heatmap[0], seen.masks[image, number])
            share = seen.masks[image, number].float().mean()
            print(f"image {image}, {target.prompt}: {inside:.0%} of the heat on {share:.0%} of the image")
            explanation.save(path.with_name(f"{path.stem}-{image}-{SHAPES[kind]}.png"), seen.images[image])
    print(f"wrote {path.stem}-*.png")


if __name__ == "__main__":
    main()
