"""Draw every method's map of one photograph; those for attention draw one of the scenes that the tables measure.

PYTHONPATH=src python docs/methods/make_gallery.py          # all: half an hour on two CPU cores
PYTHONPATH=src python docs/methods/make_gallery.py grad_cam # some
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
from PIL import Image

import seewhy
from seewhy.errors import SeewhyError

ROOT = Path(__file__).parent.parent.parent
OUT = ROOT / "docs" / "images" / "methods"
SIDE = 300  # pixels


def pictures(names: list[str]) -> list[str]:
    """Write a picture for each method that one of the two models can be explained by; the names of the others."""
    loaded = seewhy.load()
    photo = Image.open(seewhy.samples.path("chelsea.png")).convert("RGB")
    scene, seen, vit = _scene()
    left = []
    for name in names:
        try:
            explanation = seewhy.explain(loaded, photo, method=name)
            drawn = explanation.overlay()[0]
        except SeewhyError:
            try:
                drawn = seewhy.explain(vit, scene, method=name).overlay(seen)[0]
            except SeewhyError:
                left.append(name)
                continue
        drawn.thumbnail((SIDE, SIDE))
        OUT.mkdir(parents=True, exist_ok=True)
        drawn.save(OUT / f"{name}.jpg", quality=80)
        print(name, flush=True)
    return left


def _scene() -> tuple[torch.Tensor, Image.Image, torch.nn.Module]:
    """A scene of marks as an input and as a picture, and the small ViT that has learnt them."""
    sys.path.insert(0, str(ROOT))
    from tests.truth import scenes
    from tests.truth.models import CASES

    case = CASES["vit"]
    images = case.scenes(1).images
    levels = (scenes.pictures(images)[0] * 255).round().to(torch.uint8).movedim(0, -1)
    return images, Image.fromarray(levels.numpy()).resize((200, 200), Image.Resampling.NEAREST), case.model().eval()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print("without a picture:", *pictures(sys.argv[1:] or list(seewhy.methods.available())))
