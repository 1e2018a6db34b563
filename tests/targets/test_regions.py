"""Segmentation: a class inside a mask, at a pixel, or wherever the model sees it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seewhy
from seewhy import Pixel, Region, targets
from seewhy.errors import OutputError, TargetError, TargetTypeError

# one image, two classes, a 2 x 3 grid of scores; image 1 is ten times image 0
SCORES = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[0.0, 9.0, 0.0], [-1.0, 7.0, 2.0]]]])
BOTH = torch.cat([SCORES, 10 * SCORES])
SIZES = ((4, 6),) * 2  # of the input: each place of the output is 2 x 2 pixels


def scores(target, outputs=BOTH, sizes=SIZES, labels=("road", "car")):
    context = targets.Context(2, sizes=sizes, labels=labels)
    resolved = targets.resolve(target, outputs, context)
    assert resolved(outputs).tolist() == targets.resolve(resolved, outputs, context)(outputs).tolist()
    return resolved(outputs).tolist()


def mask(*places, size=(4, 6)):
    found = torch.zeros(size, dtype=torch.bool)
    for row, column in places:
        found[row, column] = True
    return found


LEFT = mask((0, 0), (1, 0), (0, 1), (1, 1))  # the four pixels of the output's first place


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(Region(0, LEFT), [1, 10], id="one place of the output"),
        pytest.param(Region("car", mask((3, 5))), [2, 20], id="a quarter of a place, by label"),
        pytest.param(Region(0, LEFT | mask((2, 2))), [(4 * 1 + 5) / 5, 18], id="weighted by area"),
        pytest.param(Region(0, torch.ones(4, 6)), [3.5, 35], id="the whole image"),
        pytest.param(Region(1), [8, 80], id="where the model sees the class: the middle column"),
        pytest.param(Region(0), [3.5, 35], id="where the model sees the other: the outer columns"),
        pytest.param(Region([0, 1], LEFT), [1, 0], id="a class per image"),
        pytest.param(Region(0, torch.stack([LEFT, mask((3, 5))])), [1, 60], id="a mask per image"),
        pytest.param(Region([[0, 1], [1, 0]], mask((0, 2))), [[2, 9], [90, 20]], id="T classes, one mask"),
        pytest.param(
            Region([[0, 0]] * 2, torch.stack([torch.stack([LEFT, mask((3, 5))])] * 2)),
            [[1, 6], [10, 60]],
            id="T masks",
        ),
        pytest.param(Region(0, np.array([[0, 0, 1], [0, 0, 1]])), [4.5, 45], id="at the output's resolution, numpy"),
        pytest.param(Region(0, torch.tensor([[3.0, 0, 0], [0, 0, 1.0]])), [(3 + 6) / 4, 22.5], id="weights"),
        pytest.param(Region(0, 255 * LEFT.to(torch.uint8)), [1, 10], id="uint8"),
        pytest.param(Region(0, LEFT.numpy().astype(np.uint8) * 255), [1, 10], id="uint8 array"),
        pytest.param(Region(0, LEFT.numpy()[::-1]), [4, 40], id="upside down"),
        pytest.param(Region(0, Image.fromarray(LEFT.numpy())), [1, 10], id="PIL, one bit"),
        pytest.param(Region(0, Image.fromarray(LEFT.numpy().astype(np.uint8) * 255)), [1, 10], id="PIL, gray"),
        pytest.param(Pixel(0, 3, 1), [4, 40], id="a pixel of the input"),
        pytest.param(Pixel("car", 0, 3), [9, 90], id="a pixel by label"),
        pytest.param(Pixel([[0, 1]] * 2, 3, 5), [[6, 2], [60, 20]], id="T classes at a pixel"),
    ],
)
def test_score_by_hand(target, expected):
    found = scores(target)
    assert found == [pytest.approx(row) for row in expected]


def test_a_target_on_its_own_counts_in_places_of_the_output():
    assert Pixel(0, 1, 2)(BOTH).tolist() == [6, 60]
    assert Region(1)(BOTH).tolist() == [8, 80]


def test_a_mask_of_odd_size_is_averaged_over_what_each_place_covers():
    """3 rows onto 2: the upper place covers rows 0 and 1, all of the mask, the lower one 1 and 2, half of it."""
    where = torch.ones(3, 6)
    where[2] = 0
    assert scores(Region(0, where), sizes=((3, 6),) * 2) == pytest.approx([(6 + 15 / 2) / 4.5, 30])


def test_two_labels_name_both_sides_of_one_output_per_place():
    outputs = BOTH[:, :1]
    assert scores(Region("car", LEFT), outputs) == scores(Region(1, LEFT), outputs) == [1, 10]
    assert scores(Region("road", LEFT), outputs) == scores(Region(0, LEFT), outputs) == [-1, -10]
    once = targets.resolve(Region(0, LEFT), outputs, targets.Context(2, SIZES, ("road", "car")))
    assert targets.resolve(once, outputs, targets.Context(2, SIZES))(outputs).tolist() == [-1, -10]
    assert [targets.describe(once, names) for names in (("road", "car"), ("car",), None)] == [
        "road", "not car", "minus the output",
    ]  # fmt: skip


@pytest.mark.parametrize("labels", [None, ("nodule",)])
def test_without_two_labels_every_class_is_the_one_output_itself(labels):
    """So it is for whole images: a depth has no negative side."""
    outputs = BOTH[:, :1] - 3.5
    for category in (0, 1, *(labels or ())):
        assert scores(Region(category, LEFT), outputs, labels=labels) == [-2.5, 6.5]
        assert scores(Pixel(category, 0, 5), outputs, labels=labels) == [-0.5, 26.5]
        assert scores(Region(category), outputs, labels=labels) == pytest.approx([(0.5 + 1.5 + 2.5) / 3, 31.5])
    resolved = targets.resolve(Region(0, LEFT), outputs, targets.Context(2, SIZES, labels))
    assert targets.describe(resolved, labels) == ("nodule" if labels else "the output")
    assert Region(0, LEFT[::2, ::2])(outputs).tolist() == [-2.5, 6.5]


def test_where_a_model_that_ends_in_a_sigmoid_sees_its_class():
    """Where p > 0.5: by the sign of p it would be everywhere."""
    logits = torch.tensor([[[[-2.0, -1.0, 1.0], [-3.0, 2.0, -4.0]]]]).requires_grad_()
    found = targets.resolve(Region(0), logits.sigmoid(), targets.Context(1))
    assert found.mask.tolist() == [[[0, 0, 1], [0, 1, 0]]]
    assert found(logits.sigmoid()).tolist() == pytest.approx([(1 / (1 + math.exp(-1)) + 1 / (1 + math.exp(-2))) / 2])


def test_weights_add_up_in_half_precision():
    """255 * 64 * 64 is above what float16 holds."""
    outputs = torch.full((1, 2, 64, 64), 0.5, dtype=torch.float16)
    assert Region(0, np.full((64, 64), 255, np.uint8))(outputs).tolist() == [0.5]


def test_a_volume_has_regions():
    volume = torch.arange(16.0).reshape(1, 2, 2, 2, 2)
    where = torch.zeros(2, 2, 2)
    where[1, 0, 1] = 1
    assert Region(1, where)(volume).tolist() == [8 + 5]


def test_frames_that_a_model_has_pooled_leave_an_image_of_scores():
    """Of a video (T, H, W) the scores may have the axes of an image; of a signal one axis is enough."""
    sizes = ((5, 4, 6),) * 2
    assert scores(Region(0, torch.ones(2, 3)), sizes=sizes) == pytest.approx([3.5, 35])
    signal = torch.tensor([[[1.0, 3.0], [5.0, 2.0]]])
    context = targets.Context(1, ((2,),))
    assert targets.resolve(Region(0, torch.tensor([0, 1])), signal, context)(signal).tolist() == [3]


def test_queries_with_masks_are_combined():
    """Two queries, two classes and "no object"; logits chosen so that the probabilities are round."""
    classes = torch.tensor([[[0.6, 0.3, 0.1], [0.1, 0.1, 0.8]]]).log()
    masks = torch.tensor([[[[0.5, 0.9]], [[0.2, 0.4]]]]).logit()
    outputs = {"class_queries_logits": classes, "masks_queries_logits": masks, "other": torch.zeros(1, 3)}
    expected = [0.6 * 0.9 + 0.1 * 0.4, 0.3 * 0.9 + 0.1 * 0.4]
    assert Pixel([[0, 1]], 0, 1)(outputs).tolist() == [pytest.approx(expected)]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Region(0, torch.ones(5, 6)), r"got: shape \(5, 6\)\n  expected: \(2, 3\) or .*\(4, 6\)"),
        (Region(0, torch.ones(3, 4, 6)), r"got: shape \(3, 4, 6\)"),
        (Region(0, torch.ones(2, 5, 4, 6)), r"got: shape \(2, 5, 4, 6\)"),
        (Region(0, torch.stack([LEFT, ~LEFT & LEFT])), r"the region is empty.\n  got: nothing for image 1\n"),
        (Region(2, LEFT), "class 2 is out of range"),
        (Region("bus", LEFT), "no class is called 'bus'"),
        (Region([0, 0, 0], LEFT), "does not match the batch"),
        (Pixel(0, 4, 0), r"got: row 4, column 0\n  expected: row 0 to 3, column 0 to 5"),
        (Pixel(0, 0, -1), r"got: row 0, column -1"),
    ],
)
def test_what_does_not_fit_is_told(target, message):
    with pytest.raises(TargetError, match=message):
        scores(target)


@pytest.mark.parametrize("mode", ["RGB", "P", "I", "F"])
def test_a_picture_in_colours_is_no_mask(mode):
    """The colours of a map of labels are not weights."""
    with pytest.raises(TargetTypeError, match=rf"got: a PIL image of mode '{mode}'\n(.|\n)*np.asarray\(mask\) == 3"):
        scores(Region(0, Image.new(mode, (6, 4))))


@pytest.mark.parametrize("weight", [-1.0, math.nan])
def test_a_weight_below_zero_is_refused(weight):
    where = torch.ones(4, 6)
    where[1, 1] = weight
    with pytest.raises(TargetError, match="the mask has weights below 0"):
        scores(Region(0, where))


def test_rows_that_mark_classes_are_refused_without_masks_of_their_own():
    outputs = torch.cat([BOTH, BOTH.flip(1)], 1)
    with pytest.raises(TargetError, match="a row of zeros and ones marks classes"):
        scores(Region([[0, 1, 1, 0]] * 2), outputs)
    masks = torch.stack([LEFT, LEFT, mask((3, 5)), LEFT]).expand(2, -1, -1, -1)
    assert scores(Region([[0, 1, 1, 0]] * 2, masks), outputs) == [[1, 0, 2, 1], [10, 0, 20, 10]]


def test_a_class_that_is_nowhere_is_told():
    with pytest.raises(
        TargetError, match=r"sees this class nowhere.\n  got: nothing for image 0, 1\n  do: pass a mask"
    ):
        scores(Region(0), torch.cat([BOTH[:, :1] - 100, BOTH[:, 1:]], 1))


def test_class_scores_have_no_regions():
    with pytest.raises(OutputError, match=r"got: a tensor of shape \(2, 5\)"):
        scores(Region(0, LEFT), torch.zeros(2, 5))
    with pytest.raises(OutputError, match="a score per class and place"):
        scores(Region(0, LEFT), SCORES.flatten(2).expand(2, -1, -1))  # a series, for images


def test_a_class_of_a_segmentation_is_refused_with_what_to_pass():
    for target in (None, 1):
        with pytest.raises(OutputError, match=r"do: pass Region\(category\) or Pixel\(category, row, column\)"):
            scores(target)
    with pytest.raises(OutputError, match=r"pass Region\(category\)"):
        scores(None, {"class_queries_logits": torch.zeros(1, 2, 3), "masks_queries_logits": torch.zeros(1, 2, 4, 4)})


class Segmenter(nn.Module):
    """Scores at half resolution: class 0 is the mean of 2 x 2 pixels, class 1 its negative."""

    def __init__(self, wrap=lambda x: {"out": x}):
        super().__init__()
        self.features = nn.AvgPool2d(2)
        self.head = nn.Conv2d(1, 2, 1)
        self.wrap = wrap
        self.load_state_dict(
            {"head.weight": torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1), "head.bias": torch.zeros(2)}
        )

    def forward(self, x):
        return self.wrap(self.head(self.features(x)))


IMAGE = torch.rand(1, 1, 8, 12, generator=torch.Generator().manual_seed(0))


def test_the_map_lies_inside_the_region():
    """HiResCAM of a mean over six places: each place's value / 6 inside, 0 outside."""
    where = torch.zeros(8, 12)
    where[2:6, 4:10] = 1
    found = seewhy.explain(Segmenter(), IMAGE, Region(0, where), method="hires_cam", layers="features")
    expected = torch.zeros(1, 4, 6)
    expected[:, 1:3, 2:5] = nn.functional.avg_pool2d(IMAGE, 2)[:, 0, 1:3, 2:5] / 6
    torch.testing.assert_close(found.maps["features"], expected)


def test_mirrored_views_take_the_region_along():
    """A mask off the centre: were it not mirrored with the image, half of the heat would lie on the other side."""
    where = torch.zeros(8, 12)
    where[:, :4] = 1
    options = {"method": "hires_cam", "layers": "features", "augment_smooth": True}
    found = seewhy.explain(Segmenter(), IMAGE, Region(0, where), **options)
    assert found.maps["features"][:, :, :2].min() > 0
    assert torch.equal(found.maps["features"][:, :, 2:], torch.zeros(1, 4, 4))


@pytest.mark.filterwarnings("ignore:.*nothing positive:seewhy.errors.MapWarning")
def test_two_regions_of_one_image_have_two_maps():
    left, right = torch.zeros(8, 12), torch.zeros(8, 12)
    left[:, :6], right[:, 6:] = 1, 1
    target = Region([[0, 0]], torch.stack([left, right])[None])
    found = seewhy.explain(Segmenter(), IMAGE, target, method="hires_cam", layers="features").maps["features"]
    assert found[0, 0, :, :3].min() > 0
    assert found[0, 1, :, 3:].min() > 0
    assert found[0, 0, :, 3:].abs().max() == found[0, 1, :, :3].abs().max() == 0


def test_slicing_keeps_what_was_explained():
    images = torch.rand(3, 1, 8, 12)
    explanation = seewhy.explain(Segmenter(), images, Region([0, 1, 0], torch.ones(8, 12)), layers="features")
    second = explanation[1]
    assert second.targets.category.tolist() == [1]
    assert second.targets(second.outputs).tolist() == pytest.approx(second.scores.tolist())
