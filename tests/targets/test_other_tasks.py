"""Keypoints, depth, regression, many labels, two sides; one channel and many; every kind of output: no layer named."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection, resnet18
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor

import seewhy
from seewhy import Box, Probability, targets
from seewhy.errors import OutputError

pytestmark = pytest.mark.filterwarnings("ignore:.*nothing positive:seewhy.errors.MapWarning")


def seeded(build):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().eval()


def images(count=2, channels=3, size=(32, 48), seed=0):
    return torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(seed))


def test_keypoints_by_a_function():
    """The score of one keypoint of the best person; the box of the same model has another map."""
    backbone = seeded(lambda: _resnet_fpn_extractor(resnet18(weights=None), 5, returned_layers=[1, 2, 3, 4]))
    model = seeded(
        lambda: detection.KeypointRCNN(
            backbone, 2, num_keypoints=4, min_size=64, max_size=96, box_score_thresh=0.0, box_detections_per_img=2,
            rpn_post_nms_top_n_test=20,
        )
    )  # fmt: skip
    photo = [images(1, size=(64, 96))[0]]

    def third_keypoint(output):
        return output[0]["keypoints_scores"][:1, 2]

    found = seewhy.explain(model, photo, third_keypoint, method="layer_cam")
    with torch.no_grad():
        torch.testing.assert_close(found.scores, third_keypoint(model(photo)))
    assert all(label.startswith("backbone[") for label in found.layers)
    box = seewhy.explain(model, photo, Box(index=0), method="layer_cam")
    first, second = (torch.cat([grid.flatten() for grid in explanation.maps.values()]) for explanation in (found, box))
    assert float(first.abs().max()) > 0
    assert float(torch.cosine_similarity(first, second, dim=0)) < 0.99


@pytest.mark.parametrize("name", ["dpt", "glpn"])
def test_depth_by_a_function(name):
    """The mean depth of a corner, of DPT and GLPN. What decides it is looked for in maps, not in the depth itself."""
    transformers = pytest.importorskip("transformers")
    if name == "dpt":
        config = transformers.DPTConfig(
            hidden_size=24, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=64,
            patch_size=16, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, backbone_out_indices=[0, 1, 2, 3],
            reassemble_factors=[4, 2, 1, 0.5], is_hybrid=False,
        )  # fmt: skip
        model = seeded(lambda: transformers.DPTForDepthEstimation(config))
    else:
        config = transformers.GLPNConfig(
            hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8
        )
        model = seeded(lambda: transformers.GLPNForDepthEstimation(config))
    image = images(1, size=(64, 64))
    explanation = seewhy.explain(
        model, image, lambda output: output.predicted_depth[:, :16, :16].mean((1, 2)), method="grad_cam"
    )
    with torch.no_grad():
        expected = model(image).predicted_depth[:, :16, :16].mean()
    torch.testing.assert_close(explanation.scores[0], expected)
    layer = {"dpt": "neck.fusion_stage.layers.3", "glpn": "decoder.stages.3"}[name]  # before the head's convolutions
    grid = explanation.maps[layer]
    assert grid.shape == (1, 32, 32)
    assert grid.isfinite().all()
    assert grid.std() > 0


class Small(nn.Module):
    """Means over the image of some convolved channels; `wrap` makes the output of them."""

    def __init__(self, outputs=3, channels=3, wrap=lambda logits: logits):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(channels, 6, 3, stride=4, padding=1), nn.ReLU())
        self.head = nn.Linear(6, outputs)
        self.wrap = wrap

    def forward(self, image):
        return self.wrap(self.head(self.features(image).mean((-2, -1))))


def map_of(model, inputs, target=None):
    (grid,) = seewhy.explain(model, inputs, target, method="grad_cam").maps.values()
    return grid


def by_hand(model, image, weights):
    """Grad-CAM where a mean and a linear layer follow: the features weighted by the head's weights, / the places."""
    with torch.no_grad():
        features = model.features(image)
    return torch.einsum("bc,bchw->bhw", weights.expand(len(image), -1), features) / features[0, 0].numel()


def test_regression_explains_the_value():
    """Need 8: class 0 is the value itself, and so is 1; a function any reading of it: here what pulls it towards 5."""
    model, image = seeded(lambda: Small(1)), images()
    nn.init.constant_(model.head.bias, -10)  # a value below 0 is no negative class
    for target in (0, 1):
        torch.testing.assert_close(map_of(model, image, target), by_hand(model, image, model.head.weight))
    far = map_of(model, image, lambda value: -((value[:, 0] - 5) ** 2))
    slope = -2 * (model(image).detach() - 5)
    torch.testing.assert_close(far, by_hand(model, image, slope * model.head.weight))


def test_a_binary_model_explains_the_side_it_predicts():
    """Need 8, and a wrong map elsewhere (part 2, 3): grad-cam explains yes of an image that the model says no to."""
    from pytorch_grad_cam import GradCAM

    model, image = seeded(lambda: Small(1)), images()
    nn.init.constant_(model.head.bias, -10)
    found = map_of(model, image)
    yes = by_hand(model, image, model.head.weight)
    torch.testing.assert_close(found, -yes)
    with GradCAM(model, [model.features]) as cam:
        theirs = torch.from_numpy(cam(image, None))
    assert theirs.flatten(1).amax(1).tolist() == pytest.approx([1, 1], abs=1e-3)  # theirs is of yes, and not blank:
    wrong = seewhy.explain(model, image, 1, layers="features").heatmap
    torch.testing.assert_close(theirs, wrong, atol=0.02, rtol=0)  # they resize by OpenCV


def test_labels_say_which_side_of_one_logit_is_explained():
    """One label is that of the positive side; by its index, 0, the other side would be explained in its name."""
    model, image = seeded(lambda: Small(1)), images()
    nn.init.constant_(model.head.bias, -10)
    yes = by_hand(model, image, model.head.weight)
    for target, labels, sign, name in (
        ("nodule", ["nodule"], 1, "nodule"),
        (0, ["nodule"], 1, "nodule"),
        (None, ["nodule"], -1, "not nodule"),
        ("healthy", ["healthy", "nodule"], -1, "healthy"),
        ("nodule", ["healthy", "nodule"], 1, "nodule"),
    ):
        found = seewhy.explain(model, image, target, labels=labels, method="grad_cam")
        (grid,) = found.maps.values()
        torch.testing.assert_close(grid, sign * yes)
        assert targets.describe(found.targets, found.labels) == name
        assert found.probabilities.tolist() == pytest.approx((sign * model(image)[:, 0]).sigmoid().tolist())


def test_without_a_target_each_image_explains_the_class_predicted_of_itself():
    """NEEDS part 2, 23: MONAI, given no class, explains all classes that the batch predicts at every image."""
    model, image = seeded(lambda: Small(4)), images()
    with torch.no_grad():  # logits of mean 0: whatever speaks for a class in one image speaks against it in the other
        model.head.bias -= model(image).mean(0)
        predicted = model(image).argmax(1)
    assert predicted[0] != predicted[1]
    torch.testing.assert_close(map_of(model, image), by_hand(model, image, model.head.weight[predicted]))


def test_many_labels_at_once():
    """Need 8: of a multi-label model each label by itself, by (B, T); the probability is the sigmoid."""
    model, image = seeded(lambda: Small(4)), images()
    found = seewhy.explain(
        model, image, Probability(torch.tensor([[0, 3], [2, 1]]), multi_label=True), method="grad_cam"
    )
    logits = model(image).detach()
    torch.testing.assert_close(found.scores, logits.sigmoid().gather(1, torch.tensor([[0, 3], [2, 1]])))
    (grid,) = found.maps.values()
    for number, label in enumerate((3, 1)):
        slope = (logits.sigmoid() * (1 - logits.sigmoid()))[number, label]
        expected = by_hand(model, image[number : number + 1], slope * model.head.weight[label])
        torch.testing.assert_close(grid[number, 1], expected[0])


def test_without_a_target_each_image_explains_its_own_class():
    """A wrong map elsewhere (part 2, 23): MONAI lets each image explain every class that any of the batch is given."""
    model = seeded(Small)
    image = images(4)
    with torch.no_grad():
        model.head.bias -= model(image).mean(0)  # so that the images differ in what they predict
        predicted = model(image).argmax(1)
    assert len(set(predicted.tolist())) > 1
    torch.testing.assert_close(map_of(model, image), by_hand(model, image, model.head.weight[predicted]))


@pytest.mark.parametrize("channels", [1, 4, 12])
def test_one_channel_and_many(channels):
    model, image = seeded(lambda: Small(3, channels)), images(channels=channels)
    torch.testing.assert_close(map_of(model, image, 2), by_hand(model, image, model.head.weight[2]))
    assert seewhy.explain(model, image, 2, method="rise", masks=8).heatmap.shape == (2, 32, 48)


@dataclass
class Answer:
    logits: Tensor
    features: Tensor


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: (logits, "a note"),
        lambda logits: {"logits": logits, "features": logits[:, :1]},
        lambda logits: Answer(logits, logits[:, :1]),
    ],
    ids=["tuple", "dict", "dataclass"],
)
def test_outputs_of_every_kind(wrap):
    """Need 25: tuples, dicts and dataclasses give the map that the bare tensor gives."""
    model, image = seeded(lambda: Small(wrap=wrap)), images()
    torch.testing.assert_close(map_of(model, image, 1), by_hand(model, image, model.head.weight[1]))


def test_an_output_without_scores_lists_its_keys():
    """Need 25: two tensors, either of which could be meant."""
    model = seeded(lambda: Small(wrap=lambda logits: {"age": logits[:, :1], "sex": logits[:, 1:]}))
    with pytest.raises(OutputError, match=r"got: dict with 'age': \(2, 1\), 'sex': \(2, 2\)"):
        seewhy.explain(model, images(), method="grad_cam")
    found = map_of(model, images(), lambda output: output["sex"][:, 1])
    torch.testing.assert_close(found, by_hand(model, images(), model.head.weight[2]))
