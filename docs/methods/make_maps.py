"""Every method's map as a small picture: of one photograph, or of one of the scenes that the tables measure.

The site draws them as it is built. To draw some of them into a folder:

PYTHONPATH=src:. python docs/methods/make_maps.py /tmp/maps grad_cam rise
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

import seewhy

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


def small() -> Subject:
    """Such a scene, and a small ResNet that has learnt them: for what would take minutes on the photograph."""
    return _of_case("resnet")


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


OTHERS: dict[str, Callable[[], Subject]] = {  # than the photograph
    **{name: marks for name, found in seewhy.methods.available().items() if found.attends},
    "poly_cam": small,
    "vit_cx": marks,
    "d_rise": boxes,
    "tam": words,
    "eagle": words,
}
_EARLIER = {"layers": "blocks.4"}  # a layer of 112 channels, where the last one has 1280
CHEAPER: dict[str, dict[str, Any]] = {  # than by default: what would take minutes takes seconds
    "smooth_grad": {"samples": 10},
    "smooth_grad_squared": {"samples": 10},
    "var_grad": {"samples": 10},
    "integrated_gradients": {"steps": 20},
    "expected_gradients": {"samples": 20},
    "guided_integrated_gradients": {"steps": 20},
    "score_cam": _EARLIER,
    "ss_cam": _EARLIER | {"samples": 1},
    "is_cam": _EARLIER | {"steps": 2},
    "gscore_cam": {"channels": 60},
    "opti_cam": {"steps": 30},
    "lime": {"samples": 120},
    "kernel_shap": {"samples": 120},
    "rise": {"masks": 150},
    "occlusion": {"window": 32, "stride": 32},
    "d_rise": {"masks": 300},
    "sobol": {"designs": 2},
    "hsic": {"samples": 150},
}


def drawn(name: str) -> bytes:
    """The JPEG of a method's map, laid over what it is of."""
    subject = _ready(OTHERS.get(name, photograph))
    found = seewhy.explain(subject.model, subject.inputs, subject.target, method=name, **CHEAPER.get(name, {}))
    picture = found.overlay(None if subject.seen is None else [subject.seen])[0]
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=80)
    return file.getvalue()


def told(name: str) -> str:
    """What was asked of a method beside its defaults; "" for nothing."""
    return ", ".join(f"`{option}={value!r}`" for option, value in CHEAPER.get(name, {}).items())


@cache
def _ready(make: Callable[[], Subject]) -> Subject:
    return make()


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


def write(folder: Path, names: Iterable[str]) -> None:
    """Draw into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.jpg").write_bytes(drawn(name))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    write(Path(sys.argv[1]), sys.argv[2:] or seewhy.methods.available())
