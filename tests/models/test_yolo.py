"""ultralytics' models as they come: boxes, scores and order are those that they predict, and each box has its heat."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.images.letterbox import Letterbox
from seewhy.models.accepted import as_module

ultralytics = pytest.importorskip("ultralytics")
SIDE = 96


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A photograph of random colours, 150 wide and 110 high."""
    levels = (np.random.default_rng(0).random((11, 15, 3)) * 255).astype(np.uint8)
    path = tmp_path_factory.mktemp("photos") / "street.jpg"
    Image.fromarray(levels).resize((150, 110), Image.Resampling.BICUBIC).save(path, quality=95)
    return str(path)


def detector(name: str):
    """A YOLO of random weights whose boxes are some three strides wide, and many of whose scores are above 0.25."""
    torch.manual_seed(0)
    model = ultralytics.YOLO(f"{name}.yaml")
    model.overrides["imgsz"] = SIDE
    head = model.model.model[-1]
    for module in model.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
    with torch.no_grad():
        for classes in [*head.cv3, *getattr(head, "one2one_cv3", [])]:
            nn.init.normal_(classes[-1].weight, std=0.3)
            nn.init.normal_(classes[-1].bias, -1.5, 0.2)
        for sides in [*head.cv2, *getattr(head, "one2one_cv2", [])]:
            sides[-1].weight.mul_(0.1)
            bins = torch.arange(head.reg_max, dtype=torch.float32)
            sides[-1].bias.copy_((-4 * (bins - 1.5).abs()).repeat(4) if head.reg_max > 1 else torch.full((4,), 1.5))
    return model


def in_photo(explanation: seewhy.Explanation, image: int = 0) -> Tensor:
    """(T, 4), the boxes that are explained in pixels of the photograph, cut off at its borders."""
    x0, y0, x1, y1 = explanation.frames[image]
    height, width = explanation.size
    scale = torch.tensor([(x1 - x0) / width, (y1 - y0) / height] * 2)
    boxes = explanation.targets.box[image] * scale + torch.tensor([x0, y0, x0, y0])
    limits = torch.tensor(explanation.photos[image].size * 2)
    return boxes.clamp(min=0).minimum(limits)


@pytest.mark.parametrize(
    "name", ["yolov8n", "yolo26n", *(pytest.param(more, marks=pytest.mark.slow) for more in ("yolo11n", "yolo12n"))]
)
def test_boxes_and_scores_are_those_that_it_predicts(name: str, street: str) -> None:
    model = detector(name)
    predicted = model.predict(street, verbose=False)[0].boxes
    assert len(predicted) > 3
    found = seewhy.explain(model, street, seewhy.Box(index=[[0, 1, 2]]), method="layer_cam")
    torch.testing.assert_close(in_photo(found), predicted.xyxy[:3], rtol=0, atol=1e-4)
    torch.testing.assert_close(found.scores[0], predicted.conf[:3], rtol=0, atol=1e-4)
    assert found.targets.label[0].tolist() == predicted.cls[:3].tolist()
    assert found.name(0, 0) == model.names[int(predicted.cls[0])]
    assert all(not layer.startswith(f"model.{len(model.model.model) - 1}") for layer in found.layers)  # not of the head
    best = seewhy.explain(model, street, seewhy.Box(), method="layer_cam")
    torch.testing.assert_close(best.scores, found.scores[:, 0])


def test_two_boxes_of_one_class_have_heat_on_their_own_object(street: str) -> None:
    model = detector("yolov8n")
    boxes = model.predict(street, verbose=False)[0].boxes
    label = int(boxes.cls.mode().values)
    alike = boxes.xyxy[boxes.cls == label]
    middles = (alike[:, :2] + alike[:, 2:]) / 2
    apart = (middles[0] - middles).norm(dim=1)
    numbers = (boxes.cls == label).nonzero().flatten()
    pair = [int(numbers[0]), int(numbers[apart.argmax()])]
    assert apart.max() > 40
    for method in ("odam", "layer_cam"):
        found = seewhy.explain(model, street, seewhy.Box(index=[pair]), method=method)
        heat = found.heatmap[0]
        for own, other in ((0, 1), (1, 0)):
            masses = [_inside(heat[own], found.targets.box[0, which]) for which in (own, other)]
            assert masses[0] > 3 * masses[1], method


def _inside(heat: Tensor, box: Tensor) -> float:
    """The share of a map's heat in a box."""
    x0, y0, x1, y1 = (max(0, round(side)) for side in box.tolist())
    return float(heat[y0:y1, x0:x1].sum() / heat.sum())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grad_cam", "hires_cam", "eigen_cam", "eigen_grad_cam", "rise"])
def test_methods_of_boxes_run_on_it(method: str, street: str) -> None:
    options = {"masks": 60, "cells": 6} if "rise" in method else {}
    found = seewhy.explain(detector("yolov8n"), street, seewhy.Box(index=[[0, 3]]), method=method, **options)
    assert found.heatmap.shape == (1, 2, *found.size)
    assert all(bool(grid.isfinite().all()) for grid in found.maps.values())
    for number in (0, 1):  # of random weights the map may be of one sign
        assert any(bool(grid[0, number].any()) for grid in found.maps.values())


@pytest.mark.slow
@pytest.mark.parametrize("task", ["obb"])
def test_other_heads_have_boxes_too(task: str, street: str) -> None:
    model = detector(f"yolov8n-{task}")
    found = seewhy.explain(model, street, seewhy.Box(index=0), method="layer_cam")
    assert found.heatmap.max() == 1


@pytest.mark.slow
def test_a_classifier_has_logits(street: str) -> None:
    torch.manual_seed(0)
    model = ultralytics.YOLO("yolov8n-cls.yaml")
    model.overrides["imgsz"] = 64
    found = seewhy.explain(model, street, method="layer_cam")
    likely = model.model.eval()(model_input(found.photos[0]))[0]
    torch.testing.assert_close(found.probabilities, likely.amax(1), rtol=0, atol=1e-6)


def model_input(photo: Image.Image) -> Tensor:
    return seewhy.models.Preprocess((64, 64), 64, (0.0,) * 3, (1.0,) * 3, "bilinear")(photo)[None]


def test_the_object_stands_for_the_network_inside(street: str) -> None:
    model = detector("yolov8n")
    assert as_module(model) is model.model
    tensor = Letterbox((SIDE, SIDE))(street)[None]
    plain = seewhy.explain(model.model, tensor, seewhy.Box(index=0), method="layer_cam")
    photo = seewhy.explain(model, street, seewhy.Box(index=0), method="layer_cam")
    assert torch.equal(plain.heatmap, photo.heatmap)


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
