"""D-RISE: how surely a detection is found again in a masked image, by hand, by a slow oracle, and on a detector."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

import seewhy
from seewhy import Box, methods, targets
from seewhy.errors import TargetError
from tests.oracles import d_rise, perturbation
from tests.targets.test_boxes import LISTED, SIZES


def again(target, outputs, labels=None, batch=1):
    """The resolved `target`, to be looked for again."""
    context = targets.Context(batch, sizes=SIZES[:batch], labels=labels)
    return targets.redetected(targets.resolve(target, outputs, context), outputs)


def test_overlap_times_cosine_times_how_sure_it_is_by_hand():
    """Boxes of 10 x 10; the classes of the raw outputs are probabilities: (0.6, 0.8) is of length 1."""

    def raw(*columns):
        filler = [(500.0, 500.0, 1.0, 1.0, 0.0, 0.0)] * (7 - len(columns))
        return torch.tensor([[*columns, *filler]]).mT

    found = again(Box(num_classes=2), raw((5, 5, 10, 10, 0.6, 0.8)))
    assert found(raw((5, 5, 10, 10, 0.6, 0.8))).tolist() == pytest.approx([0.8])
    assert found(raw((5, 5, 10, 10, 0.3, 0.4))).tolist() == pytest.approx([0.4])  # half as sure: the same cosine
    assert found(raw((10, 5, 10, 10, 0.6, 0.8))).tolist() == pytest.approx([0.8 / 3])  # moved by half
    assert found(raw((10, 5, 10, 10, 0.6, 0.8), (5, 5, 10, 10, 1.0, 0.0))).tolist() == pytest.approx([0.6])  # the best
    assert found(raw()).tolist() == [0]


def test_an_objectness_of_its_own_is_taken():
    """YOLOv5's and YOLOX's (B, N, 5 + K): the classes' length does not count, the score of any object does."""
    outputs = torch.tensor([[[5.0, 5, 10, 10, 0.5, 0.3, 0.4]] + [[500.0, 500, 1, 1, 0, 0, 0]] * 8])
    found = again(Box(num_classes=2), outputs)
    assert found(outputs).tolist() == pytest.approx([0.5])
    surer = outputs.clone()
    surer[0, 0, 4] = 0.9
    assert found(surer).tolist() == pytest.approx([0.9])


def test_a_label_and_a_score_count_by_the_label_alone():
    """torchvision's detectors give no other probabilities, so that their confidence does not count."""
    found = again(Box(index=[1, 0]), LISTED, batch=2)
    unsure = [{**image, "scores": image["scores"] / 10} for image in LISTED]
    assert found(LISTED).tolist() == found(unsure).tolist() == [1, 1]
    other = [{**image, "labels": torch.full_like(image["labels"], 5)} for image in LISTED]
    assert found(other).tolist() == [0, 0]
    none = [{key: value[:0] for key, value in image.items()} for image in LISTED]
    assert found(none).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("labels", "likely"),
    [
        (["person", "car"], lambda logits: logits.softmax(-1)[..., :2]),  # the third stands for no object
        (["person", "car", "bus"], lambda logits: logits.sigmoid()),
    ],
)
def test_queries_equal_the_slow_twin(labels, likely):
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(1, 3, 2, generator=generator, dtype=torch.float64) * 0.2 + 0.3
    changed = {
        "logits": torch.randn(1, 3, 3, generator=generator, dtype=torch.float64),
        "pred_boxes": torch.cat([centres, torch.full_like(centres, 0.4)], -1),
    }
    original = {"logits": changed["logits"] + 0.3, "pred_boxes": changed["pred_boxes"] * 0.95}

    def proposals(outputs):
        x, y, width, height = (outputs["pred_boxes"][0] * torch.tensor([100, 40, 100, 40])).unbind(-1)
        corners = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], -1)
        return list(zip(corners.tolist(), likely(outputs["logits"])[0].tolist(), strict=True))

    found = again(Box(index=[[0, 1, 2]]), original, labels)
    expected = [d_rise.similarity(target, proposals(changed)) for target in proposals(original)]
    # a box is kept in float32 with its target
    assert found(changed)[0].tolist() == pytest.approx(expected, rel=1e-6)
    assert len({round(value, 3) for value in expected}) == 3


class Spots(nn.Module):
    """Two detections at most, (B, 6, 7): one where the left half is bright, one where the right half is."""

    def forward(self, images):
        bright = torch.stack([images[..., :6].mean((1, 2, 3)), images[..., 6:].mean((1, 2, 3))], -1)
        boxes = torch.tensor([[3.0, 4, 6, 8], [9, 4, 6, 8]]).mT.expand(len(images), 4, 2)
        classes = torch.stack([bright.clamp(max=0.3), (bright - 0.3).clamp(min=0)], 1)
        found = torch.cat([boxes, classes], 1)
        return nn.functional.pad(found, (0, 5))


def test_the_map_is_rises_of_the_similarity():
    """Against the oracles in full: masks as drawn by rise, each scored by the similarity of what is detected then."""
    image = torch.rand(1, 1, 8, 12, generator=torch.Generator().manual_seed(3)) + 0.2
    method = methods.get("d_rise", masks=12, cells=3)
    found = seewhy.explain(Spots(), image, Box(index=[[0, 1]], num_classes=2), method=method)
    sure = Spots()(image)[0, 4:, :2].amax(0)  # of what it found in the whole image, all is found again
    assert found.scores.tolist() == [pytest.approx(sure.tolist())]
    masks = drawn(image, masks=12, cells=3)

    def proposals(pixels):
        columns = Spots()(torch.from_numpy(pixels).float()[None])[0].double().mT[:2].tolist()
        boxes = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h, *_ in columns]
        return [(box, column[4:]) for box, column in zip(boxes, columns, strict=True) if any(column[4:])]

    for number in range(2):
        wanted = proposals(image[0].numpy())[number]
        expected = perturbation.rise(
            lambda pixels, wanted=wanted: d_rise.similarity(wanted, proposals(pixels)),
            image[0].numpy(), masks.double().numpy(), 0.5,
        )  # fmt: skip
        torch.testing.assert_close(
            found.maps["input"][0, number].double(), torch.from_numpy(expected), atol=1e-5, rtol=1e-4
        )
    left, right = found.heatmap[0]
    assert left[:, :6].sum() > left[:, 6:].sum()
    assert right[:, 6:].sum() > right[:, :6].sum()


def drawn(image, **options):
    """rise's masks: it is asked for the score of a white image seen through each of them."""
    seen = []

    def score(images, make):
        seen.append(make(torch.arange(len(images)))[:, 0])
        return torch.zeros(len(images))

    methods.get("rise", **options).function(
        inputs=torch.ones_like(image), score=score, generator=torch.Generator().manual_seed(0)
    )
    return seen[0]


def test_a_detector_of_torchvision():
    """One bright square in the dark, seen by a RetinaNet by hand: the heat lies on it, 5 times as much as elsewhere."""
    backbone = nn.Sequential(nn.AvgPool2d(8))
    backbone.out_channels = 3

    class Head(nn.Module):
        def forward(self, levels):
            (level,) = levels
            scores = (level.mean(1).flatten(1)[..., None] * 20 - 10).expand(-1, -1, 2) - torch.tensor([20.0, 0])
            return {"cls_logits": scores, "bbox_regression": torch.zeros(*scores.shape[:2], 4)}

    model = RetinaNet(
        backbone, 2, head=Head(), anchor_generator=AnchorGenerator(((8,),), ((1.0,),)), min_size=64, max_size=64,
        image_mean=[0.0] * 3, image_std=[1.0] * 3, score_thresh=0.3,
    ).eval()  # fmt: skip
    image = torch.zeros(3, 64, 64)
    image[:, 16:24, 40:48] = 1
    options = {"masks": 200, "cells": 8}
    found = seewhy.explain(model, [image], Box(), method="d_rise", **options)
    assert found.targets.label.tolist() == [1]
    heat = found.heatmap[0]
    assert float(heat[16:24, 40:48].mean()) > 5 * float(heat.mean())
    assert int(heat.argmax()) // 64 in range(12, 28)
    assert int(heat.argmax()) % 64 in range(36, 52)
    with pytest.raises(TargetError, match=r"got: function\n  expected: Box\(...\).*\n  do: pass Box\(\) as target"):
        seewhy.explain(model, [image], lambda found: found[0]["scores"].sum()[None], method="d_rise", **options)


def test_what_is_no_box_is_refused():
    with pytest.raises(TargetError, match=r"got: Category\n  expected: Box\(...\), one or several"):
        seewhy.explain(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.rand(1, 3, 2, 2), 1, method="d_rise")


def test_the_papers_masks():
    found = methods.get("D-RISE")
    assert (found.options["masks"], found.options["cells"], found.options["keep"]) == (5000, 16, 0.5)
