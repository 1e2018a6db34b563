"""Methods of every resolution take the last layer of each, from the output of the first convolution on."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

import seewhy
from seewhy.engine.session import session
from seewhy.geometry import choose_layer
from seewhy.geometry.observe import look

RESNET = [("relu", 112), ("layer1", 56), ("layer2", 28), ("layer3", 14), ("layer4", 7)]
NAMES = {
    "resnet18": RESNET,
    "resnet50": RESNET,
    "resnet101": RESNET,
    "vgg16": [
        ("features.3", 224), ("features.8", 112), ("features.15", 56), ("features.22", 28), ("features.29", 14),
        ("avgpool", 7),
    ],
    "convnext_tiny": [("features.2.0", 56), ("features.4.0", 28), ("features.6.0", 14), ("features", 7)],
    "densenet121": [
        ("features.relu0", 112), ("features.transition1.conv", 56), ("features.transition2.conv", 28),
        ("features.transition3.conv", 14), ("features", 7),
    ],
}  # fmt: skip


@pytest.mark.few(2)
@pytest.mark.parametrize("name", NAMES)
def test_the_last_layer_of_every_resolution(name):
    """224 x 224, random weights: every grid is there, the finest of the first convolution."""
    options = {"init_weights": False} if name == "vgg16" else {}
    model = getattr(torchvision.models, name)(weights=None, **options).eval()
    with session(model, torch.zeros(1, 3, 224, 224)) as run:
        seen = look(run)
        best = choose_layer.candidates(seen, run.call.space, set())[0]
        found = choose_layer.stages(seen, best, set())
    assert [(str(call.label), call.grid.space) for call in found] == [(at, (side, side)) for at, side in NAMES[name]]


def test_explain_looks_there():
    torch.manual_seed(0)
    found = seewhy.explain(torchvision.models.resnet18().eval(), torch.randn(1, 3, 64, 64), 3, method="zoom_cam")
    assert found.layers == ("relu", "layer1", "layer2", "layer3", "layer4")
    assert [grid.shape[-1] for grid in found.maps.values()] == [32, 16, 8, 4, 2]


def test_what_comes_before_the_first_convolution_is_no_layer_of_the_model():
    """A normalisation of the input, and what is within a block: neither stands for a resolution that others have."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.halve = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, stride=2, padding=1)
            self.shortcut, self.act = nn.Conv2d(4, 4, 1, stride=2), nn.ReLU(inplace=True)

        def forward(self, x):
            y = self.halve(self.inner(x))
            y += self.shortcut(x)
            return self.act(y)

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), Block(), Block(), nn.Flatten(), nn.Linear(64, 3)
    ).eval()
    found = seewhy.explain(model, torch.randn(1, 3, 16, 16), 1, method="zoom_cam")
    assert found.layers == ("2", "3", "4")
