"""The same numbers as captum, grad-cam and torchcam where they are right; the true ones where they are not."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torch.nn.functional as F
import torchcam.methods
import torchcam.utils
import torchvision
from captum.attr import LayerGradCam
from matplotlib import colormaps
from PIL import Image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

import seewhy
from seewhy import render
from seewhy.errors import TargetError
from tests.oracles import gradient as oracle

TARGETS = [1, 8]  # classes for which every map below has something positive


def vgg11():
    """VGG-11's convolutions and a small head: the stock one has 120 million weights."""
    features = make_layers(cfgs["A"], batch_norm=False)
    for module in features:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    head = (("avgpool", nn.AdaptiveAvgPool2d(2)), ("flatten", nn.Flatten()), ("classifier", nn.Linear(2048, 10)))
    return nn.Sequential(OrderedDict(features=features, **dict(head)))


BUILD = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "vgg11": vgg11,
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=10),
}
LAYERS = [
    ("resnet18", "layer4"),
    ("resnet18", "layer3"),
    ("vgg11", "features"),
    ("vgg11", "features.10"),
    ("mobilenet_v2", "features"),
    ("mobilenet_v2", "features.13"),
]
every_layer = pytest.mark.parametrize(("name", "layer"), LAYERS, ids=[f"{name} {layer}" for name, layer in LAYERS])

_built = {}


@pytest.fixture
def model(name):
    """Random weights; the batch norms know the statistics of one batch, and scale and shift what they give."""
    if name not in _built:
        torch.manual_seed(0)
        model = BUILD[name]().train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
        with torch.no_grad():
            model(torch.randn(8, 3, 64, 64))
        _built[name] = model.eval()
    return _built[name]


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def grad_cam_library(cls, model, layer, images, targets=TARGETS):
    """grad-cam's map before any scaling, (B, h, w), and its scaled one over the image."""
    module = model.get_submodule(layer)
    chosen = [ClassifierOutputTarget(target) for target in targets]
    with getattr(pytorch_grad_cam, cls)(model, [module]) as cam:
        scaled = cam(images, targets=chosen)
        seen = cam.activations_and_grads
        activations, gradients = seen.activations[0].numpy(), seen.gradients[0].numpy()
        raw = cam.get_cam_image(images, module, chosen, activations, gradients, False)
    return torch.from_numpy(raw), torch.from_numpy(scaled)


def torchcam_library(cls, model, layer, images, targets=TARGETS):
    """torchcam's map (B, h, w), unscaled, after its ReLU."""
    with getattr(torchcam.methods, cls)(model, layer) as cam:
        return cam(list(targets), model(images), normalized=False)[0]


def assert_same(found, expected, tolerance=1e-5):
    """Within `tolerance` of the largest value of each map."""
    assert found.shape == expected.shape
    for one, other in zip(found.double(), expected.double(), strict=True):
        assert (one - other).abs().max() <= tolerance * other.abs().max()
        assert other.abs().max() > 0


def distance(found, expected):
    """The largest difference, as a share of the largest value of the map."""
    return float(((found - expected).abs().amax((1, 2)) / expected.abs().amax((1, 2))).min())


@every_layer
def test_grad_cam_is_captums(model, layer, images):
    expected = LayerGradCam(model, model.get_submodule(layer)).attribute(images, target=TARGETS)
    assert_same(seewhy.explain(model, images, TARGETS, layers=layer).maps[layer], expected.detach().squeeze(1))


@every_layer
@pytest.mark.parametrize(
    ("method", "cls"),
    [
        ("grad_cam", "GradCAM"),
        ("hires_cam", "HiResCAM"),
        ("grad_cam_elementwise", "GradCAMElementWise"),
        ("x_grad_cam", "XGradCAM"),
        ("layer_cam", "LayerCAM"),
    ],
)
def test_maps_are_those_of_grad_cam(model, layer, images, method, cls):
    """As the formula gives them, and over the image: it resizes with cv2, half-pixel and linear, as is done here.

    XGrad-CAM divides by a channel's sum, which at a layer with signed activations can almost cancel; grad-cam adds 1e-7
    to it and sums quotients in float32.
    """
    cancels = (method, layer) == ("x_grad_cam", "features.13")
    raw, scaled = grad_cam_library(cls, model, layer, images)
    found = seewhy.explain(model, images, TARGETS, method=method, layers=layer)
    assert_same(found.maps[layer], raw, 1e-3 if cancels else 1e-5)
    torch.testing.assert_close(found.heatmap, scaled, rtol=0, atol=1e-3 if cancels else 5e-5)


@every_layer
@pytest.mark.parametrize(
    ("method", "cls"), [("grad_cam", "GradCAM"), ("x_grad_cam", "XGradCAM"), ("layer_cam", "LayerCAM")]
)
def test_maps_are_those_of_torchcam(model, layer, images, method, cls):
    found = seewhy.explain(model, images, TARGETS, method=method, layers=layer).maps[layer]
    assert_same(found.clamp(min=0), torchcam_library(cls, model, layer, images))


@pytest.mark.parametrize("name", ["resnet18"])
def test_predicted_class_is_grad_cams(model, images):
    with pytorch_grad_cam.GradCAM(model, [model.layer4]) as cam:
        expected = torch.from_numpy(cam(images, targets=None))
    torch.testing.assert_close(seewhy.explain(model, images, layers="layer4").heatmap, expected, rtol=0, atol=2e-5)


def test_volumes_are_grad_cams():
    """NEEDS 13: the maps agree; only the way to the input's size differs (cubic with aligned corners there)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(1, 4, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 27, 10)).eval()
    volumes = torch.randn(2, 1, 8, 8, 8)
    for method, cls in (("grad_cam", "GradCAM"), ("layer_cam", "LayerCAM"), ("hires_cam", "HiResCAM")):
        raw, _ = grad_cam_library(cls, model, "1", volumes)
        found = seewhy.explain(model, volumes, TARGETS, method=method, layers="1").maps["1"]
        assert_same(found, raw)


# where they are wrong


def resnet_truth(model, images):
    """What layer4.1.bn2 returned, and what the block then makes of it in place, with their gradients."""
    x = F.relu(model.bn1(model.conv1(images)))
    x = model.layer4[0](model.layer3(model.layer2(model.layer1(model.maxpool(x)))))
    block = model.layer4[1]
    activations = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x))))).detach().requires_grad_()
    after = F.relu(activations + x)
    return with_gradients(model.fc, activations, after)


def densenet_truth(model, images):
    """The same for DenseNet's `features`, whose forward goes on with `F.relu(features, inplace=True)`."""
    activations = model.features(images).detach().clone().requires_grad_()
    return with_gradients(model.classifier, activations, F.relu(activations))


def with_gradients(head, *tensors):
    scores = head(tensors[-1].mean((2, 3)))[range(2), TARGETS]
    slopes = torch.autograd.grad(scores.sum(), tensors)
    return [(tensor.detach().numpy(), slope.numpy()) for tensor, slope in zip(tensors, slopes, strict=True)]


BUILD["densenet"] = lambda: torchvision.models.DenseNet(8, (2, 2), 16, num_classes=10)


@pytest.mark.parametrize(
    ("name", "layer", "truth", "method"),
    [  # a ReLU alone lets gradients through only where it leaves the activation as it is: HiResCAM does not see it
        ("resnet18", "layer4.1.bn2", resnet_truth, "grad_cam"),
        ("resnet18", "layer4.1.bn2", resnet_truth, "hires_cam"),
        ("resnet18", "layer4.1.bn2", resnet_truth, "layer_cam"),
        ("densenet", "features", densenet_truth, "grad_cam"),
    ],
    ids=["resnet18 grad_cam", "resnet18 hires_cam", "resnet18 layer_cam", "densenet grad_cam"],
)
def test_in_place_operation_after_the_layer_does_not_reach_the_map(model, layer, truth, images, method):
    """NEEDS 1: grad-cam pairs the layer's gradient with what the operation left in its activation; torchcam takes both
    from after the operation, another layer's map; seewhy both from the layer.
    """
    with torch.no_grad():
        expected_scores = model(images)[range(2), TARGETS]
    before, after = truth(model, images)
    right, mixed, later = (
        torch.from_numpy(getattr(oracle, method)(activations, gradients).sum(1)).float()
        for activations, gradients in (before, (after[0], before[1]), after)
    )
    assert distance(mixed, right) > 0.05

    found = seewhy.explain(model, images, TARGETS, method=method, layers=layer)
    assert_same(found.maps[layer], right)
    torch.testing.assert_close(found.scores, expected_scores)

    cls = {"grad_cam": "GradCAM", "hires_cam": "HiResCAM", "layer_cam": "LayerCAM"}[method]
    theirs, _ = grad_cam_library(cls, model, layer, images)
    assert_same(theirs, mixed)
    if cls != "HiResCAM":
        assert distance(later.clamp(min=0), right.clamp(min=0)) > 0.05
        assert_same(torchcam_library(cls, model, layer, images), later.clamp(min=0))


@pytest.mark.parametrize("name", ["resnet18"])
def test_fewer_targets_than_images_is_an_error_and_not_a_blank_map(model):
    """NEEDS 2: grad-cam's maps of the second and third image are zero."""
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    _, theirs = grad_cam_library("GradCAM", model, "layer4", images, targets=[1])
    assert theirs.amax((1, 2)).tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    with pytest.raises(TargetError, match=r"got: targets of shape \(1,\) for 3 images"):
        seewhy.explain(model, images, [1], layers="layer4")
    assert seewhy.explain(model, images, 1, layers="layer4").heatmap.amax((1, 2)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["resnet18"])
def test_grad_cam_plus_plus_keeps_its_denominator(model):
    """NEEDS 9: on a pooled ResNet g^2 is about 1e-7. grad-cam adds 1e-6 to the denominator, so its weights are far too
    small; torchcam divides a copy, so its weights are sums of g^3.
    """
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    recorded = {}
    handle = model.layer4.register_forward_hook(lambda module, args, output: recorded.update(A=output.detach().clone()))
    with torch.no_grad():
        model(images)
    handle.remove()
    activations = recorded["A"].requires_grad_()
    score = model.fc(activations.mean((2, 3)))[0, 1]
    gradients = torch.autograd.grad(score, activations)[0]
    activations = activations.detach()
    right = torch.from_numpy(oracle.grad_cam_plus_plus(activations.numpy(), gradients.numpy()).sum(1)).float()
    cubes = gradients.clamp(min=0).pow(3).sum((2, 3), keepdim=True)

    found = seewhy.explain(model, images, 1, method="grad_cam_plus_plus", layers="layer4").maps["layer4"]
    assert_same(found, right)

    theirs, _ = grad_cam_library("GradCAMPlusPlus", model, "layer4", images, targets=[1])
    assert theirs.max() < 0.8 * right.max()
    undivided = torchcam_library("GradCAMpp", model, "layer4", images, targets=[1])
    assert_same(undivided, (cubes * activations).sum(1), 1e-4)
    assert undivided.max() < 1e-3 * right.max()


def test_hottest_place_of_a_map_is_drawn_hottest():
    """NEEDS 20: torchcam squares a uint8 mask, where 255 becomes 1, and colours the hottest place as the coldest."""
    photo = Image.new("RGB", (4, 4))
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[1, 2] = 1
    jet = colormaps["jet"]
    coldest, hottest = (np.array(jet(value, bytes=True)[:3], dtype=int) for value in (0.0, 1.0))

    theirs = np.asarray(torchcam.utils.overlay_mask(photo, Image.fromarray(np.uint8(255 * heat)), alpha=0.0), dtype=int)
    assert abs(theirs[1, 2] - coldest).max() <= 5
    ours = np.asarray(render.overlay(photo, torch.from_numpy(heat), colormap="jet", alpha=1), dtype=int)
    assert abs(ours[1, 2] - hottest).max() <= 2
    assert abs(ours[0, 0] - coldest).max() <= 2
