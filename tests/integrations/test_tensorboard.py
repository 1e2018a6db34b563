"""What is written is read back from the event file."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from seewhy import inspect
from seewhy.errors import LayerError, MapWarning
from seewhy.explainer import explain
from seewhy.integrations import tensorboard
from seewhy.render import grids
from tests.integrations.events import pixels, read
from tests.render.test_grids import NEGATED, PLAIN, SUMS, Summing


def test_feature_maps_and_kernels(tmp_path):
    model, inputs = Summing(), torch.ones(2, 1, 4, 4)
    with SummaryWriter(tmp_path) as writer:
        tensorboard.feature_maps(writer, model, inputs, layers=["conv", "relu#0", "relu#1"], step=7, **PLAIN, gap=1)
        tensorboard.kernels(writer, model, step=7)
        tensorboard.kernels(writer, model, layers="conv", tag="mine")
    events = read(tmp_path)
    labels = ("conv", "relu#0", "relu#1")
    pictures = [f"feature_maps/{label}/{image}" for label in labels for image in (0, 1)]
    assert sorted(events.Tags()["images"]) == sorted([*pictures, "kernels/conv", "mine/conv"])
    assert {event.step for event in events.Images("feature_maps/conv/1")} == {7}
    expected = np.full((4, 9), 255)
    expected[:, :4], expected[:, 5:] = SUMS, NEGATED
    np.testing.assert_array_equal(pixels(events, "feature_maps/conv/1"), np.stack([expected] * 3, -1))
    np.testing.assert_array_equal(pixels(events, "mine/conv"), grids.kernels(inspect.kernels(model))["conv"])


def test_histograms_by_hand(tmp_path):
    """Activations are twice 1, 2, 3 and 4; the head weighs them 1, -2, 3 and 0, and the loss |score - 100| falls."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(2)
        model[2].weight.copy_(torch.tensor([[1.0, -2.0, 3.0, 0.0]]))
    inputs = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    with SummaryWriter(tmp_path) as writer:
        tensorboard.histograms(writer, model, inputs, lambda out: (out[:, 0] - 100).abs(), layers="0", step=3)
        tensorboard.histograms(writer, model, inputs, 1, layers="0", tag="score")
    events = read(tmp_path)
    found = {}
    for tag in events.Tags()["histograms"]:
        (event,) = events.Histograms(tag)
        value = event.histogram_value
        found[tag] = (event.step, value.num, value.min, value.max, value.sum, value.sum_squares)
    assert found == {
        "histograms/0/activations": (3, 4, 2, 8, 20, 120),
        "histograms/0/gradients": (3, 4, -3, 2, -2, 14),
        "score/0/activations": (0, 4, 2, 8, 20, 120),
        "score/0/gradients": (0, 4, -2, 3, 2, 14),
    }
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(LayerError, match="'9'"):
        tensorboard.histograms(writer, model, inputs, layers="9")


def test_histograms_of_several_targets_are_of_their_sum(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(2, 3, bias=False))
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]]))
    with SummaryWriter(tmp_path) as writer:
        tensorboard.histograms(writer, model, torch.ones(2, 1, 1, 2), torch.tensor([[0, 2], [1, 2]]), layers="0")
    (event,) = read(tmp_path).Histograms("histograms/0/gradients")
    assert (event.histogram_value.min, event.histogram_value.max) == (101, 220)
    assert event.histogram_value.sum == 101 + 202 + 110 + 220


def test_histograms_say_what_is_not_finite(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(2, 1, bias=False))
    nn.init.ones_(model[0].weight)
    inputs = torch.tensor([[[[5.0, torch.nan]]]])
    with (
        SummaryWriter(tmp_path) as writer,
        pytest.warns(MapWarning, match=r"histograms/0/activations: 1 of 2 values are not finite"),
    ):
        tensorboard.histograms(writer, model, inputs, layers="0")
    (event,) = read(tmp_path).Histograms("histograms/0/activations")
    assert (event.histogram_value.num, event.histogram_value.sum) == (1, 5)


def test_overlays_are_those_of_the_explanation(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    nn.init.ones_(model[0].weight)  # and so, with a head of ones, there is something to see
    nn.init.ones_(model[4].weight)
    photos = torch.rand(2, 3, 12, 12)
    explanation = explain(model, photos, torch.tensor([[0, 1], [0, 1]]), layers="0")
    with SummaryWriter(tmp_path) as writer:
        tensorboard.overlays(writer, explanation, photos, step=5, alpha=0.25)
    events = read(tmp_path)
    assert sorted(events.Tags()["images"]) == [f"overlays/{number}" for number in range(4)]
    for number, picture in enumerate(explanation.overlay(photos, alpha=0.25)):
        np.testing.assert_array_equal(pixels(events, f"overlays/{number}"), picture)


def test_it_does_not_import_tensorboard():
    """Whoever has a writer has it; the pictures alone need no more than the core."""
    program = """
import sys
sys.modules["tensorboard"] = None
import torch
from types import SimpleNamespace
from seewhy.integrations import tensorboard
shapes = []
writer = SimpleNamespace(add_image=lambda tag, pixels, step, dataformats: shapes.append((tag, pixels.shape)))
tensorboard.kernels(writer, torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3)), zoom=1)
assert shapes == [("kernels/0", (3, 9, 3))], shapes
"""
    subprocess.run([sys.executable, "-c", program], check=True)
