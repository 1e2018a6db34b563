"""Detectors that were trained: of two marks of one class in a picture each has a map with its heat there."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou

import seewhy
from seewhy.errors import TargetError
from tests.models import finders, marks
from tests.models.finders import FINDERS

pytest.importorskip("transformers")
PAIRS = [marks.scene(seed, [label, label]) for label in range(len(marks.NAMES)) for seed in (1, 2)]
CHANCE = 0.05  # of the picture a mark covers less, and a map that knows nothing has as much of its heat there


class Worth(NamedTuple):
    """What a family is held to.

    Attributes:
        found: of 26 marks in eight scenes, those with a box of their class that they share more than half with.
        pairs: of six, those of which both marks have a box.
        mass: the least share of heat on its own mark, in the mean of all maps.
        precision: likewise of average precision.
        times: how many times as much these are as on the other mark.
    """

    found: int
    pairs: int
    mass: float
    precision: float
    times: float


WORTH = {
    "rt_detr": Worth(20, 6, 0.8, 0.7, 4),
    "grounding_dino": Worth(7, 3, 0.3, 0.4, 5),
    "faster_rcnn": Worth(25, 6, 0.4, 0.4, 5),
    "fcos": Worth(26, 6, 0.25, 0.4, 2.5),
}


def listed(name: str, model: Any, scene: marks.Scene) -> tuple[Tensor, Tensor]:
    """Boxes that a model is sure of by 0.3 or more, in pixels, and the kinds of marks that it takes them for."""
    inputs = FINDERS[name].inputs([scene])
    with torch.no_grad():
        outputs = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    if isinstance(outputs, list):
        boxes, likely, kinds = outputs[0]["boxes"], outputs[0]["scores"], outputs[0]["labels"] - 1
    else:
        logits = outputs.logits[0][:, [finders.label_of(name, kind) for kind in range(len(marks.NAMES))]]
        likely, kinds = logits.sigmoid().max(1)
        boxes = box_convert(outputs.pred_boxes[0], "cxcywh", "xyxy") * marks.SIDE
    return boxes[likely > 0.3], kinds[likely > 0.3]


@pytest.mark.slow
@pytest.mark.parametrize("name", WORTH)
def test_its_boxes_are_those_of_the_marks(name: str) -> None:
    model, hits = finders.trained(name), []
    for seed in range(8):
        scene = marks.scene(seed)
        boxes, kinds = listed(name, model, scene)
        same = torch.tensor(scene.labels)[:, None] == kinds
        hits += ((box_iou(torch.tensor(scene.boxes).float(), boxes) > 0.5) & same).any(1).tolist()
    assert (sum(hits), len(hits)) == (WORTH[name].found, 26)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORTH)
def test_two_marks_of_one_class_have_heat_of_their_own(name: str) -> None:
    model, worth, found = finders.trained(name), WORTH[name], []
    for scene in PAIRS:
        label = finders.label_of(name, scene.labels[0])
        boxes = seewhy.Box([[label, label]], torch.tensor([scene.boxes]))
        try:
            explanation = seewhy.explain(model, FINDERS[name].inputs([scene]), boxes, method="layer_cam")
        except TargetError:  # one of the two has no box
            continue
        found.append(torch.stack(marks.worth(explanation.heatmap[0], torch.from_numpy(scene.masks))))
    assert len(found) == worth.pairs
    figures = torch.stack(found).transpose(0, 1)  # mass and precision, of each pair, map and mark
    own = figures.diagonal(dim1=2, dim2=3).flatten(1).mean(1)
    other = figures.flip(3).diagonal(dim1=2, dim2=3).flatten(1).mean(1)
    assert float(own[0]) > worth.mass > 4 * CHANCE
    assert float(own[1]) > worth.precision > 4 * CHANCE
    assert bool((own > worth.times * other).all()), (own, other)
