"""ultralytics' models as they come: boxes, scores and order are those that they predict, and each box has its heat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import seewhy
from seewhy import targets
from seewhy.errors import TargetError
from seewhy.images.letterbox import Letterbox
from seewhy.models import yolo
from seewhy.models.accepted import as_module, with_preprocessing
from seewhy.models.yolo import reading
from tests.models.yolos import FAMILIES, SIDE, detector, picture

ultralytics = pytest.importorskip("ultralytics")
FAST = ("yolov8", "yolo26")  # a list that is thinned out, and one that is given
TASKS = ("", "-seg", "-pose", "-obb")
WITH_BOXES = [
    pytest.param(family, task, marks=() if family in FAST else pytest.mark.slow, id=family + task)
    for family in FAMILIES
    for task in TASKS
]


def predicted(model: Any, photo: Image.Image) -> Any:
    """The boxes that it reports."""
    found = model.predict(photo, verbose=False)[0]
    return found.boxes if found.obb is None else found.obb


def in_photo(explanation: seewhy.Explanation) -> Tensor:
    """(T, 4), the boxes that are explained in pixels of the photograph."""
    x0, y0, x1, y1 = explanation.frames[0]
    height, width = explanation.size
    scale = torch.tensor([(x1 - x0) / width, (y1 - y0) / height] * 2)
    return explanation.targets.box[0] * scale + torch.tensor([x0, y0, x0, y0])


def cut(boxes: Tensor, photo: Image.Image) -> Tensor:
    """Boxes without what of them lies outside the photograph."""
    return boxes.clamp(min=0).minimum(torch.tensor(photo.size * 2))


@pytest.mark.parametrize(("family", "task"), WITH_BOXES)
def test_boxes_scores_and_order_are_those_that_it_predicts(family: str, task: str, tmp_path: Path) -> None:
    """All of the list, by one forward; the box after the last is not there."""
    model, photo = detector(family, task, tmp_path), picture()
    expected = predicted(model, photo)
    count = len(expected)
    assert count > 3
    loaded = with_preprocessing(model)
    inputs, _, _ = loaded.prepare([photo])
    outputs = reading(loaded.module)(loaded.module.eval()(inputs))
    context = targets.Context(1, sizes=(inputs.shape[2:],), labels=loaded.labels)
    found = targets.resolve(seewhy.Box(index=[list(range(count))]), outputs, context)
    scores = found(outputs)[0]
    torch.testing.assert_close(scores, expected.conf, rtol=0, atol=1e-4)
    boxes = found.box[0] * 2 - torch.tensor([0, 16, 0, 16])  # of 192 x 160 there is 96 x 80 in the middle of 96 x 96
    boxes = boxes if task == "-obb" else cut(boxes, photo)
    ours = torch.cat([boxes, scores[:, None], found.label[0][:, None]], 1)
    theirs = torch.cat([expected.xyxy, expected.conf[:, None], expected.cls[:, None]], 1)
    same = (ours[:, None] - theirs).abs().amax(-1) < 1e-4  # of two whose scores round alike either may come first
    assert bool(same.any(0).all())
    assert bool(same.any(1).all())
    with pytest.raises(TargetError, match=f"got: index {count}"):
        targets.resolve(seewhy.Box(index=count), outputs, context)


def test_some_masks_are_empty_and_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the list of a segmenter leaves out, which that of a detector with the same head would hold."""
    loaded = with_preprocessing(detector("yolov8", "-seg", tmp_path))
    inputs, _, _ = loaded.prepare([picture()])
    outputs = loaded.module.eval()(inputs)
    listed = int((reading(loaded.module)(outputs)["dense_numbers"] >= 0).sum())
    monkeypatch.setattr(yolo, "_have_masks", lambda boxes, *_: torch.ones(len(boxes), dtype=torch.bool))
    every = int((reading(loaded.module)(outputs)["dense_numbers"] >= 0).sum())
    assert 3 < listed < every


@pytest.mark.slow
@pytest.mark.parametrize(("family", "task"), [case for case in WITH_BOXES if case.id in ("yolov8", "yolo26-seg")])
def test_the_object_and_the_network_in_it_are_explained_alike(family: str, task: str, tmp_path: Path) -> None:
    model, photo = detector(family, task, tmp_path), picture()
    expected = predicted(model, photo)
    found = seewhy.explain(model, photo, seewhy.Box(index=0), method="layer_cam")
    torch.testing.assert_close(cut(in_photo(found), photo), expected.xyxy[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(found.scores, expected.conf[:1], rtol=0, atol=1e-4)
    assert found.name(0) == model.names[int(expected.cls[0])]
    assert found.heatmap.max() == 1
    assert as_module(model) is model.model
    model.model.args = {"imgsz": SIDE}  # what a trained one keeps
    alone = seewhy.explain(model.model, photo, seewhy.Box(index=0), method="layer_cam")
    assert torch.equal(alone.heatmap, found.heatmap)
    assert alone.frames == found.frames


METHODS = {"grad_cam": {}, "layer_cam": {}, "odam": {}, "eigen_cam": {}, "d_rise": {"masks": 60, "cells": 6}}


@pytest.mark.slow
@pytest.mark.parametrize(("family", "task"), WITH_BOXES)
@pytest.mark.filterwarnings("ignore:.*nothing positive:seewhy.errors.MapWarning")
def test_every_method_has_a_map_for_each_box(family: str, task: str, tmp_path: Path) -> None:
    """From the first block that the head reads on. Of random weights a map may be of one sign; it is not 0.

    `d_rise` finds a box of random weights again in hardly any masked picture: test_marks.py holds what it shows of one
    that was trained.
    """
    model, photo = detector(family, task, tmp_path), picture()
    boxes = seewhy.Box(index=[[0, 3]])
    first = min(model.model.model[-1].f)
    for method, options in METHODS.items():
        found = seewhy.explain(model, photo, boxes, method=method, **options)
        assert found.heatmap.shape == (1, 2, SIDE, SIDE)
        maps = torch.cat([grid[0].flatten(1) for grid in found.maps.values()], 1)
        assert maps.isfinite().all(), method
        if method == "d_rise":
            continue
        assert min(int(layer.split(".")[1]) for layer in found.layers) >= first, method
        assert bool((maps.std(1) > 0).all()), method
        if method not in ("eigen_cam", "grad_cam"):  # which do not tell boxes of one image and class apart
            assert not torch.equal(*maps), method


@pytest.mark.parametrize(
    "family", [FAMILIES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES[1:])]
)
@pytest.mark.filterwarnings("ignore:.*nothing positive:seewhy.errors.MapWarning")
def test_a_classifier_has_logits(family: str, tmp_path: Path) -> None:
    model, photo = detector(family, "-cls", tmp_path), picture()
    found = seewhy.explain(model, photo, method="layer_cam")
    expected = model.predict(photo, verbose=False)[0].probs
    torch.testing.assert_close(found.probabilities, expected.data.max()[None], rtol=0, atol=1e-6)
    assert found.targets.classes().tolist() == [expected.top1]


@pytest.mark.parametrize("size", [(150, 110), (64, 200), (97, 33), (96, 96)])
@pytest.mark.parametrize("whole", [False, True])
def test_the_letterbox_is_theirs(size: tuple[int, int], whole: bool) -> None:
    augment = pytest.importorskip("ultralytics.data.augment")
    pixels = (np.random.default_rng(1).random((size[1], size[0], 3)) * 255).astype(np.uint8)
    expected = augment.LetterBox((SIDE, SIDE), auto=not whole, stride=32)(image=pixels)
    found = Letterbox((SIDE, SIDE), whole=whole)(Image.fromarray(pixels))
    assert torch.equal((found * 255).round().byte().permute(1, 2, 0), torch.from_numpy(expected))
    x0, y0, x1, y1 = Letterbox((SIDE, SIDE), whole=whole).frame(size)
    assert (x1 - x0) / (y1 - y0) == pytest.approx(found.shape[2] / found.shape[1] * 1.0, rel=0.03)
