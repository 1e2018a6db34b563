"""The example runs, and its event file holds what each layer returned."""

import runpy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import AlexNet_Weights, alexnet

from seewhy import samples
from tests.integrations.events import pixels, read

EXAMPLE = Path(__file__).parents[2] / "examples" / "alexnet_layers.py"

# of 224x224, in torchvision's alexnet: channels, grid, tiles in a row, and how many times it fits into 1024 pixels
CONVOLUTIONS = {
    "0": (64, 55, 8, 2),
    "3": (192, 27, 14, 2),
    "6": (384, 13, 20, 3),
    "8": (256, 13, 16, 4),
    "10": (256, 13, 16, 4),
}


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runpy.run_path(str(EXAMPLE))["main"](str(folder))
    return read(folder)


def test_every_convolution_is_there(events):
    names = [f"features.{number}" for number in CONVOLUTIONS]
    maps = [f"feature_maps/{name}/0" for name in names]
    assert sorted(events.Tags()["images"]) == sorted(["kernels/features.0", *maps])
    assert sorted(events.Tags()["histograms"]) == sorted(
        f"histograms/{name}/{what}" for name in names for what in ("activations", "gradients")
    )


@pytest.mark.parametrize("number", CONVOLUTIONS)
def test_pictures_have_a_tile_per_channel(events, number):
    channels, grid, columns, zoom = CONVOLUTIONS[number]
    picture = pixels(events, f"feature_maps/features.{number}/0")
    rows = -(-channels // columns)
    assert picture.shape == (rows * (grid * zoom + 3) - 3, columns * (grid * zoom + 3) - 3, 3)
    painted = (picture != 255).any(-1).sum()  # the colormap has no white
    assert painted == channels * (grid * zoom) ** 2


def test_pixels_are_the_first_layer_computed_by_hand(events):
    """Channel 9, in the second row and column, by a plain convolution of the prepared photograph."""
    torch.manual_seed(0)
    first = alexnet().features[0]
    inputs = AlexNet_Weights.DEFAULT.transforms()(Image.open(samples.path("chelsea.png")))[None]
    with torch.no_grad():
        channel = nn.functional.conv2d(inputs, first.weight, first.bias, stride=4, padding=2)[0, 9].double().numpy()
    import matplotlib

    scaled = (channel - channel.min()) / (channel.max() - channel.min())
    expected = matplotlib.colormaps["viridis"](scaled, bytes=True)[..., :3]
    picture = pixels(events, "feature_maps/features.0/0")
    tile = picture[113:223:2, 113:223:2]  # a value is 2 x 2 pixels: 55 of them, a gap of 3
    different = (tile != expected).any(-1)
    assert different.mean() < 0.01  # a rounding of the convolution can take a value to the neighbouring colour
    assert np.abs(tile.astype(int) - expected).max() <= 4
