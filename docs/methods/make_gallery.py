"""Draw every method's map: of one photograph, or of one of the scenes that the tables measure.

PYTHONPATH=src python docs/methods/make_gallery.py          # all: half an hour on two CPU cores
PYTHONPATH=src python docs/methods/make_gallery.py grad_cam # some
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

import seewhy
from seewhy.errors import SeewhyError

ROOT = Path(__file__).parent.parent.parent
OUT = ROOT / "docs" / "images" / "methods"
SIDE = 300  # pixels


class Subject(NamedTuple):
    """What is explained, and the picture that its map is laid over; None is the photograph itself."""

    model: Any
    inputs: Any
    target: Any = None
    seen: Image.Image | None = None


def photograph() -> Subject:
    """Chelsea, and the network that `seewhy.load` brings."""
    return Subject(seewhy.load(), Image.open(seewhy.samples.path("chelsea.png")).convert("RGB"))


def marks() -> Subject:
    """A scene of marks, and the ViT that has learnt them: for the methods of attention."""
    return _of_case("vit")


def boxes() -> Subject:
    """A scene of shapes, and the detector that has learnt them."""
    return _of_case("detector", seewhy.Box())


def words() -> Subject:
    """A scene of two figures, and the language model that says which; of the word for the first one's kind."""
    from tests.language import scenes
    from tests.language.train import SAVED, small_llava

    model = small_llava()
    stored = torch.load(SAVED, weights_only=True)  # in half precision
    model.load_state_dict({name: value.float() for name, value in stored.items()})
    inputs, answers, drawn = scenes.batch(1, seed=3)
    return Subject(model.eval(), inputs, seewhy.Token(2, of=answers), _picture(drawn[0].image))


SUBJECTS = (photograph, marks, boxes, words)
FIRST = {"d_rise": boxes, "tam": words, "eagle": words}  # of what they are made for
FEWER = {"ss_cam": {"samples": 1}, "rise": {"masks": 500}, "d_rise": {"masks": 500}}  # draws than by default


def pictures(names: list[str]) -> list[str]:
    """Write a picture for each method of the first subject that it can explain; the names of the others."""
    known: dict[Callable[[], Subject], Subject] = {}
    left = []
    OUT.mkdir(parents=True, exist_ok=True)
    for name in names:
        for make in dict.fromkeys((FIRST.get(name, photograph), *SUBJECTS)):
            subject = known[make] = known.get(make) or make()
            options = FEWER.get(name, {})
            try:
                found = seewhy.explain(subject.model, subject.inputs, subject.target, method=name, **options)
                drawn = found.overlay(None if subject.seen is None else [subject.seen])[0]
            except SeewhyError:
                continue
            drawn.thumbnail((SIDE, SIDE))
            drawn.save(OUT / f"{name}.jpg", quality=80)
            print(name, flush=True)
            break
        else:
            left.append(name)
    return left


def _of_case(name: str, target: Any = None) -> Subject:
    from tests.truth import scenes
    from tests.truth.models import CASES

    case = CASES[name]
    images = case.scenes(1).images
    return Subject(case.model().eval(), images, target, _picture(scenes.pictures(images)[0]))


def _picture(values: Tensor) -> Image.Image:
    """Values in [0, 1] as a picture that is large enough to be seen."""
    levels = (values * 255).round().to(torch.uint8).movedim(0, -1)
    return Image.fromarray(levels.numpy()).resize((240, 240), Image.Resampling.NEAREST)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(ROOT))
    print("without a picture:", *pictures(sys.argv[1:] or list(seewhy.methods.available())))
