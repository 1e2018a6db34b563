"""Detection: the score of one box, for each kind of detector, by hand; and whole detectors, each box its own map."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision.models import detection, resnet18
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor

import seewhy
from seewhy import Box, targets
from seewhy.errors import MapWarning, OutputError, TargetError
from seewhy.targets.boxes import dense

SIZES = ((40, 100),) * 2
LISTED = [
    {
        "boxes": torch.tensor([[0.0, 0, 10, 10], [20, 0, 40, 20], [22, 0, 42, 20]]),
        "labels": torch.tensor([1, 2, 1]),
        "scores": torch.tensor([0.9, 0.8, 0.3]),
    },
    {
        "boxes": torch.tensor([[50.0, 10, 90, 30]]),
        "labels": torch.tensor([2]),
        "scores": torch.tensor([0.6]),
    },
]
# the same boxes in units of a 100 x 40 image as centre and size, and a query that sees nothing
QUERIES = {
    "logits": torch.tensor([[[-1.0, 4.0, 0.5], [-2.0, 1.0, 3.0], [0.0, 0.1, 9.0]]]),
    "pred_boxes": torch.tensor([[[0.05, 0.125, 0.1, 0.25], [0.3, 0.25, 0.2, 0.5], [0.5, 0.5, 1.0, 1.0]]]),
}
RAW = torch.tensor(  # a column each: centre x, centre y, width, height, score of class 0, score of class 1
    [
        [5.0, 30, 32, 70, 0, 99, 9],
        [5, 10, 10, 20, 0, 9, 9],
        [10, 20, 20, 40, 1, 1, 1],
        [10, 20, 20, 20, 1, 1, 1],
        [0.9, 0.1, 0.2, 0.0, 0, 0, 0],
        [0.2, 0.8, 0.7, 0.6, 0, 0, 0],
    ]
)[None]


def found(target, outputs=LISTED, batch=2, labels=None):
    context = targets.Context(batch, sizes=SIZES[:batch], labels=labels)
    resolved = targets.resolve(target, outputs, context)
    return resolved, resolved(outputs).tolist()


@pytest.mark.parametrize(
    ("target", "scores", "labels"),
    [
        pytest.param(Box(), [0.9, 0.6], [1, 2], id="the best"),
        pytest.param(Box(2), [0.8, 0.6], [2, 2], id="the best of a class"),
        pytest.param(Box("car"), [0.8, 0.6], [2, 2], id="the best by label"),
        pytest.param(Box(index=[2, 0]), [0.3, 0.6], [1, 2], id="by number"),
        pytest.param(Box(index=0), [0.9, 0.6], [1, 2], id="one number for all"),
        pytest.param(Box(box=[[21, 0, 41, 20], [50, 10, 90, 30]]), [0.8, 0.6], [2, 2], id="nearest, first if equal"),
        pytest.param(Box(box=[[21.5, 0, 41.5, 20], [50, 10, 90, 30]]), [0.3, 0.6], [1, 2], id="nearest"),
        pytest.param(
            Box([2, 2], box=[[21.5, 0, 41.5, 20], [50, 10, 90, 30]]), [0.8, 0.6], [2, 2], id="nearest of a class"
        ),
        pytest.param(
            Box(index=[[0, 1, 2], [0, 0, 0]]), [[0.9, 0.8, 0.3], [0.6] * 3], [[1, 2, 1], [2] * 3], id="T by number"
        ),
        pytest.param(
            Box(box=[[[0, 0, 10, 10], [22, 0, 42, 20]], [[50, 10, 90, 30]] * 2]),
            [[0.9, 0.3], [0.6] * 2],
            [[1, 1], [2, 2]],
            id="T by box",
        ),
        pytest.param(Box([[1, 2], [2, 2]]), [[0.9, 0.8], [0.6, 0.6]], [[1, 2], [2, 2]], id="the best of T classes"),
    ],
)
def test_listed_boxes(target, scores, labels):
    resolved, values = found(target, labels=["background", "person", "car"])
    assert values == [pytest.approx(row) for row in scores]
    assert resolved.label.tolist() == labels
    assert target.__class__(target.label if target.label != "car" else 2, target.box, target.index)(
        LISTED
    ).tolist() == [pytest.approx(row) for row in scores]


@pytest.mark.parametrize(
    ("target", "score", "label", "box"),
    [
        (Box(), 4, 1, [0, 0, 10, 10]),
        (Box(index=1), 1, 1, [20, 0, 40, 20]),
        (Box(0), 0, 0, [0, 0, 100, 40]),
        (Box(0, index=1), -2, 0, [20, 0, 40, 20]),
        (Box(box=(21, 0, 41, 20)), 1, 1, [20, 0, 40, 20]),
        (Box(0, (21, 0, 41, 20)), -2, 0, [20, 0, 40, 20]),
    ],
)
def test_queries_have_a_box_and_a_score_of_each_class(target, score, label, box):
    """Two classes have names, so the third score, the highest of the last two queries, stands for no object."""
    resolved, values = found(target, QUERIES, 1, ["person", "car"])
    assert values == pytest.approx([score])
    assert resolved.label.tolist() == [label]
    assert resolved.box.tolist() == [pytest.approx(box, abs=1e-4)]


def test_a_query_model_without_no_object_uses_every_class():
    resolved, values = found(Box(), QUERIES, 1, ["person", "car", "bus"])
    assert (resolved.label.tolist(), values) == ([2], [9])


def test_the_class_of_a_query_has_to_be_known():
    with pytest.raises(TargetError, match=r"may stand for no object at all.\n  do: pass Box\(label=...\)"):
        found(Box(), QUERIES, 1)


@pytest.mark.parametrize(
    ("target", "score", "label"),
    [
        (Box(), 0.9, 0),
        (Box(1), 0.8, 1),
        (Box(box=(22, 0, 42, 20)), 0.7, 1),
        (Box(0, (22, 0, 42, 20)), 0.2, 0),
        (Box(index=3), 0.6, 1),
    ],
)
def test_raw_boxes_are_columns_of_centre_size_and_scores(target, score, label):
    resolved, values = found(target, (RAW, [torch.zeros(1)]), 1, ["person", "car"])
    assert values == pytest.approx([score])
    assert resolved.label.tolist() == [label]


# two classes, an angle or a keypoint's coordinate that is larger than any score, and N = 8 > 7 rows
MORE = torch.cat([torch.cat([RAW, 100 + torch.arange(7.0).reshape(1, 1, 7)], 1), torch.zeros(1, 7, 1)], 2)


@pytest.mark.parametrize(
    ("target", "context"),
    [
        (Box(), {"labels": ["person", "car"]}),
        (Box(), {"num_classes": 2}),
        (Box(num_classes=2), {}),
        (Box(num_classes=2), {"num_classes": 3, "labels": ["person"]}),
        (Box(), {"num_classes": 2, "labels": ["person", "car", "the angle"]}),
    ],
    ids=["names", "head", "caller", "caller before all", "no more than the head has"],
)
def test_rows_after_the_classes_are_no_classes(target, context):
    """Taken for a class, the last row would be the best of all, 106."""
    resolved = targets.resolve(target, MORE, targets.Context(1, sizes=SIZES[:1], **context))
    assert resolved(MORE).tolist() == pytest.approx([0.9])
    assert resolved.label.tolist() == [0]
    assert resolved.num_classes == 2
    again = targets.redetected(resolved, MORE)
    assert again.likely.shape == (1, 2)
    assert again.likely[0].tolist() == pytest.approx([0.9, 0.2])
    with pytest.raises(TargetError, match=r"no such box in image 0.\n  got: label 2"):
        targets.resolve(Box(2, num_classes=2), MORE, targets.Context(1))


@pytest.mark.parametrize(("number", "got"), [(None, r"shape \(1, 7, 8\)\n"), (4, r"shape \(1, 7, 8\) for 4 classes")])
def test_raw_rows_that_may_be_anything_are_refused(number, got):
    with pytest.raises(TargetError, match=r"cannot be told which rows.*\n  got: " + got) as caught:
        targets.resolve(Box(), MORE, targets.Context(1, num_classes=number))
    assert "do: pass Box(..., num_classes=K), or labels=[...]" in str(caught.value)
    with pytest.raises(TargetError, match="cannot be told which rows"):
        Box()(MORE)


def heads(**said):
    head = nn.Linear(2, 2)
    for name, value in said.items():
        setattr(head, name, value)
    return nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), head))


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ({"nc": 3}, 3),
        ({"num_classes": 3}, 3),
        ({"names": {0: "person", 1: "car"}}, 2),
        ({"names": ["person"]}, 1),
        ({"config": SimpleNamespace(num_labels=4)}, 4),
        ({}, None),
        ({"nc": True, "num_classes": 0, "names": ()}, None),
        ({"nc": torch.tensor(3)}, None),
    ],
)
def test_the_number_of_classes_that_a_head_declares(said, number):
    model = heads(**said)
    assert targets.declared_classes(model) == number
    model[0].nc = 9  # a backbone's is not the head's
    assert targets.declared_classes(model) == number
    model.nc = 5
    assert targets.declared_classes(model) == 5


def test_a_box_says_its_class_and_its_place():
    resolved, _ = found(Box(index=[[0, 1], [0, 0]]), labels=["background", "person", "car"])
    assert targets.describe(resolved, ["background", "person", "car"], 0, 1) == "car"
    assert targets.outline(resolved, 0, 1) == pytest.approx((0.2, 0, 0.4, 0.5))
    assert targets.outline(Box(), 0, None) is None
    assert targets.describe(targets.redetected(resolved, LISTED), None, 1, 0) == "class 2"


def test_what_was_found_is_looked_for_again_and_is_0_where_it_is_gone():
    resolved, _ = found(Box(2))
    moved = [{**image, "boxes": image["boxes"] + torch.tensor([0, 0, 4.0, 0])} for image in LISTED]
    moved[0]["scores"] = torch.tensor([0.9, 0.5, 0.3])
    assert resolved(moved).tolist() == pytest.approx([0.5, 0.6])  # overlaps of 20 / 24 and 40 / 44
    gone = [{key: value[:1] for key, value in LISTED[0].items()}, {key: value[:0] for key, value in LISTED[1].items()}]
    assert resolved(gone).tolist() == [0, 0]


def test_every_box_of_a_head_is_as_sure_as_its_likeliest_class():
    """Of three boxes the first again: its overlap and cosine are 1, so what is left is 0.6."""
    scores = torch.tensor([[[0.6, 0.2], [0.1, 0.8], [0.0, 0.9]]])
    outputs = dense(LISTED[0]["boxes"][None], scores, torch.tensor([[0, 1, -1]]))
    resolved, values = found(Box(index=0), outputs, 1)
    assert values == pytest.approx([0.6])
    assert targets.redetected(resolved, outputs)(outputs).tolist() == pytest.approx([0.6])


def test_overlap_decides_from_one_half_on():
    outputs = [{"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([1]), "scores": torch.tensor([0.5])}]
    assert found(Box(box=(0, 0, 10, 5)), outputs, 1)[1] == [0.5]
    with pytest.raises(TargetError, match="no such box"):
        found(Box(box=(0, 0, 10, 4.9)), outputs, 1)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Box(3), r"no such box in image 0.\n  got: label 3\n  expected: one of index 0: label 1 at \[0, 0, 10, 10\]; "),
        (Box(index=1), r"no such box in image 1.\n  got: index 1\n  expected: one of index 0: label 2 at \[50, 10, 90"),
        (Box(1, index=[1, 0]), r"got: label 1, index 1"),
        (Box(box=(60, 30, 70, 40)), r"got: box \[60.0, 30.0, 70.0, 40.0\]"),
        (Box(box=[[0, 0, 1, 1]]), r"the box does not fit the batch.\n  got: shape \(1, 4\)"),
        (Box(box=[0, 0, 1]), r"got: shape \(3,\)"),
        (Box([1, 2, 3]), "does not match the batch"),
        (Box([[1, 1]] * 2, index=[[0, 0, 0]] * 2), r"different numbers of targets.\n  got: \[2, 3\]"),
    ],
)
def test_what_is_not_there_is_told(target, message):
    with pytest.raises(TargetError, match=message):
        found(target)


@pytest.mark.parametrize(("count", "more"), [(5, ""), (6, " and 1 more")])
def test_the_first_five_of_what_is_there_are_listed(count, more):
    many = {"boxes": torch.tensor([[0.0, 0, 10, 10]] * count), "labels": torch.ones(count).long()}
    with pytest.raises(TargetError) as caught:
        found(Box(3), [{**many, "scores": torch.full((count,), 0.5)}], 1)
    listed = "; ".join(f"index {number}: label 1 at [0, 0, 10, 10]" for number in range(5))
    assert f"expected: one of {listed}{more}\n" in str(caught.value)


def test_an_image_without_any_detection_is_told():
    empty = [{key: value[:0] for key, value in LISTED[0].items()}]
    with pytest.raises(TargetError, match=r"got: no detection\n  expected: a detection; the model found none"):
        found(Box(), empty, 1)


def test_what_has_no_boxes_is_told():
    with pytest.raises(OutputError, match=r"no boxes were found.*\n  got: a tensor of shape \(2, 9\)"):
        found(Box(), torch.zeros(2, 9))


@pytest.mark.parametrize("outputs", [LISTED, QUERIES], ids=["listed", "queries"])
def test_a_detector_without_a_target_is_told_to_pass_one(outputs):
    with pytest.raises(OutputError, match=r"do: pass Box\(...\) as target"):
        found(None, outputs)


def test_mirrored_boxes():
    resolved, _ = found(Box(index=[[0, 1], [0, 0]]))
    assert targets.mirrored(resolved).box.tolist() == [
        [[90, 0, 100, 10], [60, 0, 80, 20]],
        [[10, 10, 50, 30], [10, 10, 50, 30]],
    ]


# whole detectors


def backbone(levels):
    return _resnet_fpn_extractor(resnet18(weights=None), 5, returned_layers=levels)


def anchors(count):
    return AnchorGenerator(tuple((8 * 2**level,) for level in range(count)), ((1.0,),) * count)


SMALL = {"min_size": 64, "max_size": 96}
DETECTORS = {
    "faster_rcnn": lambda: detection.FasterRCNN(backbone([1, 2, 3, 4]), 3, box_score_thresh=0.0, **SMALL),
    "mask_rcnn": lambda: detection.MaskRCNN(
        backbone([1, 2, 3, 4]), 3, box_score_thresh=0.0, box_detections_per_img=10, **SMALL
    ),
    "retinanet": lambda: detection.RetinaNet(
        backbone([2, 3, 4]), 3, score_thresh=0.0, anchor_generator=anchors(4), **SMALL
    ),
    "fcos": lambda: detection.FCOS(backbone([2, 3, 4]), 3, score_thresh=0.0, anchor_generator=anchors(4), **SMALL),
    "ssd": lambda: detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3, score_thresh=0.0
    ),
}


def detector(name):
    with torch.random.fork_rng(), warnings.catch_warnings():
        torch.manual_seed(0)
        return DETECTORS[name]().eval()


PHOTOS = [torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(number)) for number in range(2)]


@pytest.mark.few(1)
@pytest.mark.parametrize("name", DETECTORS)
def test_two_boxes_of_one_image_have_two_maps(name):
    """Need 1: one map per detected box, no layer named; the whole pyramid is looked at.

    A random detector scores all boxes nearly alike; the maps of two far apart must still not be each other's.
    """
    model = detector(name)
    with torch.no_grad():
        plain = model(PHOTOS)
    corners = plain[0]["boxes"]
    far = int((corners[:, :2] - corners[0, :2]).abs().sum(1).argmax())
    target = Box(index=[[0, far], [0, 1]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MapWarning)
        explanation = seewhy.explain(model, PHOTOS, target, method="layer_cam")
    torch.testing.assert_close(explanation.scores[0], plain[0]["scores"][[0, far]])
    torch.testing.assert_close(explanation.targets.box[0], corners[[0, far]])
    assert len(explanation.maps) > 1
    assert all(label.startswith("backbone[") for label in explanation.maps)
    first, second = torch.cat([grid[0].flatten(1) for grid in explanation.maps.values()], 1)
    assert float(first.abs().max()) > 0
    assert float(second.abs().max()) > 0
    assert float(torch.cosine_similarity(first, second, dim=0)) < 0.9
    assert explanation.heatmap.shape == (2, 2, 64, 96)
    assert explanation[1].outputs[0]["scores"].equal(plain[1]["scores"])
