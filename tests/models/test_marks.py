"""A YOLO that was trained: its boxes are right, and the heat of each lies on its own object."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

import seewhy
from seewhy import metrics
from seewhy.models.yolo import reading
from tests.models import marks

pytest.importorskip("ultralytics")
PAIRS = [marks.scene(seed, [label, label]) for label in range(len(marks.NAMES)) for seed in (1, 2)]


@pytest.fixture(scope="module")
def model() -> Any:
    return marks.trained()


def pixels(scene: marks.Scene) -> Tensor:
    return torch.from_numpy(scene.pixels).permute(2, 0, 1)[None].float() / 255


def test_its_boxes_are_those_of_the_marks(model: Any) -> None:
    """Of 26 marks in eight scenes 25 are listed, by a box of their class that they share more than half with."""
    hits = []
    for seed in range(8):
        scene = marks.scene(seed)
        with torch.no_grad():
            outputs = reading(model)(model(pixels(scene)))
        listed = outputs["dense_numbers"][0] >= 0
        boxes, classes = outputs["dense_boxes"][0, listed], outputs["dense_scores"][0, listed].argmax(1)
        overlaps = box_iou(torch.tensor(scene.boxes).float(), boxes)
        same = torch.tensor(scene.labels)[:, None] == classes
        hits += ((overlaps > 0.5) & same).any(1).tolist()
    assert (sum(hits), len(hits)) == (25, 26)


def heat_on_objects(model: Any, pairs: list[marks.Scene], method: str, **options: Any) -> tuple[Tensor, Tensor]:
    """(pairs, 2, 2) each: of the map of either mark of a pair the share of heat in, and the average precision against,
    the box of either."""
    masses, precisions = [], []
    for scene in pairs:
        boxes = seewhy.Box(box=torch.tensor([scene.boxes]))
        found = seewhy.explain(model, pixels(scene), boxes, method=method, **options)
        if method != "d_rise":
            assert found.layers == ("model.15",)  # marks of up to 34 pixels are of the head's first level
        masks = metrics.box_masks([torch.tensor([box]) for box in scene.boxes], found.size)
        mass, precision = marks.worth(found.heatmap[0], masks)
        masses.append(mass)
        precisions.append(precision)
    return torch.stack(masses), torch.stack(precisions)


def test_odam_tells_two_marks_of_one_class_apart(model: Any) -> None:
    masses, precisions = heat_on_objects(model, PAIRS, "odam")
    own, other = masses.diagonal(dim1=1, dim2=2), masses.flip(2).diagonal(dim1=1, dim2=2)
    assert float(own.min()) > 0.4
    assert float(other.max()) < 0.02
    assert float(precisions.diagonal(dim1=1, dim2=2).min()) > 0.5


def test_d_rise_tells_two_marks_of_one_class_apart(model: Any) -> None:
    """With few masks, that hide little: what it hides is black, as some marks are."""
    masses, precisions = heat_on_objects(model, PAIRS[:1], "d_rise", masks=300, cells=8, keep=0.8)
    own, other = masses[0].diagonal(), masses[0].flip(1).diagonal()
    assert bool((own > 3 * other).all())
    assert bool((precisions[0].diagonal() > 2 * precisions[0].flip(1).diagonal()).all())


def test_grad_cam_does_not_tell_them_apart(model: Any) -> None:
    """Its weights are means over all places: a map has no more heat on its own mark than on the other one."""
    masses, _ = heat_on_objects(model, PAIRS, "grad_cam")
    own, other = masses.diagonal(dim1=1, dim2=2), masses.flip(2).diagonal(dim1=1, dim2=2)
    assert float((own - other).mean()) < 0.1
    assert float(masses.sum(2).mean()) > 0.25
