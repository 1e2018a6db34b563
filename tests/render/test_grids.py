"""Tiles, pixel by pixel."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import InputError
from seewhy.inspect import features
from seewhy.render import grids

PLAIN = {"colormap": "gray", "zoom": 1}


def gray(picture):
    """The one channel of a picture that has no colour."""
    values = np.asarray(picture)
    assert (values == values[..., :1]).all()
    return values[..., 0].tolist()


def test_each_map_is_scaled_by_itself():
    """Three 2x2 maps make a 5x5 picture, two in a row: 0..3, the same a hundred times stronger, and a constant."""
    ramp = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    maps = torch.stack([ramp, 100 * ramp - 7, torch.full((2, 2), 5.0)])
    assert gray(grids.tile(maps, **PLAIN, gap=1)) == [
        [0, 85, 255, 0, 85],  # a third of 256 colours, and two thirds
        [170, 255, 255, 170, 255],
        [255, 255, 255, 255, 255],
        [0, 0, 255, 255, 255],
        [0, 0, 255, 255, 255],
    ]


@pytest.mark.parametrize(
    ("count", "height", "width", "columns", "rows"),
    [
        (1, 7, 7, 1, 1),
        (2, 7, 7, 2, 1),  # as far from square one above the other: the wider one
        (5, 7, 7, 3, 2),
        (7, 7, 7, 3, 3),
        (64, 55, 55, 8, 8),
        (192, 27, 27, 14, 14),
        (384, 13, 13, 20, 20),  # 19 x 21 is as full, but less square
        (4, 10, 40, 1, 4),
        (8, 40, 10, 8, 1),  # 7 + 1 in two rows would be squarer, and mostly white
        (12, 40, 10, 6, 2),
    ],
)
def test_pictures_are_as_near_square_as_can_be(count, height, width, columns, rows):
    picture = grids.tile(torch.rand(count, height, width), gap=0, zoom=1)
    assert (picture.width // width, picture.height // height) == (columns, rows)


def test_no_other_arrangement_is_nearer_to_square():
    """Every arrangement without a row or column to spare, for random tiles."""
    draw = np.random.default_rng(0)
    for _ in range(100):
        count, height, width = (int(n) for n in draw.integers(1, (40, 12, 12)))
        sizes = [
            (columns * width, rows * height)
            for columns, rows in itertools.product(range(1, count + 1), repeat=2)
            if (columns - 1) * rows < count <= columns * rows and columns * (rows - 1) < count
        ]
        picture = grids.tile(torch.zeros(count, height, width), gap=0, zoom=1)
        assert picture.size in sizes
        assert max(picture.size) / min(picture.size) == min(max(size) / min(size) for size in sizes)


def test_what_is_not_finite_is_magenta_and_does_not_count():
    maps = torch.tensor([[[0.0, torch.nan], [torch.inf, 2.0]], [[torch.nan] * 2, [-torch.inf] * 2]])
    picture = np.asarray(grids.tile(maps, **PLAIN, gap=0))
    magenta = [255, 0, 255]
    assert picture[:, :2].tolist() == [[[0] * 3, magenta], [magenta, [255] * 3]]
    assert (picture[:, 2:] == magenta).all()
    colours = torch.tensor([[[[0.0, torch.nan]], [[1.0, 1.0]], [[0.0, 0.0]]]])
    assert np.asarray(grids.tile(colours, zoom=1)).tolist() == [[[0, 255, 0], magenta]]


def test_three_channels_are_colours_scaled_together():
    """Red from -1 to 1, green 0 throughout, blue 1: over the range of all three."""
    colours = torch.tensor([[[[-1.0, 1.0]], [[0.0, 0.0]], [[1.0, 1.0]]]])
    assert np.asarray(grids.tile(colours, zoom=1)).tolist() == [[[0, 128, 255], [255, 128, 255]]]


def test_small_pictures_are_enlarged_without_new_values():
    """Six values and a gap of three pixels: 170 pixels to a value is the most that fits into 1024."""
    maps = torch.rand(2, 3, 3)
    picture = np.asarray(grids.tile(maps))
    assert picture.shape == (3 * 170, 6 * 170 + 3, 3)
    assert (picture[:, 510:513] == 255).all()
    for number, tile in enumerate((picture[:, :510], picture[:, 513:])):
        once = np.asarray(grids.tile(maps[number : number + 1], zoom=1))
        np.testing.assert_array_equal(tile, np.kron(once, np.ones((170, 170, 1), np.uint8)))
    assert grids.tile(torch.rand(1, 1000, 1000)).size == (1000, 1000)
    assert grids.tile(torch.rand(1, 2000, 1000)).size == (1000, 2000)


@pytest.mark.parametrize("shape", [(4, 4), (2, 2, 4, 4), (0, 4, 4), (1, 2, 3, 4, 4)])
def test_other_shapes_are_refused(shape, unchecked):
    with pytest.raises(InputError, match=r"\(N, H, W\)"):
        grids.tile(torch.zeros(shape))


@pytest.mark.parametrize("options", [{"gap": -1}, {"zoom": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match="pixels"):
        grids.tile(torch.zeros(1, 2, 2), **options)


class Summing(nn.Module):
    """Ones summed over 3x3, and the same negated; then a ReLU in place, which would wipe out the second."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1, bias=False)
        nn.init.ones_(self.conv.weight[:1])
        nn.init.constant_(self.conv.weight[1:], -1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, image: Tensor) -> Tensor:
        return self.relu(self.relu(self.conv(image)) - 4).mean((-2, -1))


# over ones: 4 values in a corner, 6 at an edge, 9 inside; (6 - 4) / (9 - 4) of 256 colours
SUMS = [[0, 102, 102, 0], [102, 255, 255, 102], [102, 255, 255, 102], [0, 102, 102, 0]]
NEGATED = [[255, 153, 153, 255], [153, 0, 0, 153], [153, 0, 0, 153], [255, 153, 153, 255]]


def test_feature_maps_are_what_the_layer_returned():
    """Before the in-place ReLU, one picture per image, and a label for each call of the ReLU that is asked for."""
    inputs = torch.stack([torch.ones(1, 4, 4), 3 * torch.ones(1, 4, 4)])
    pictures = grids.feature_maps(features(Summing(), inputs, ["conv", "relu#0", "relu#1"]), **PLAIN, gap=0)
    assert list(pictures) == ["conv", "relu#0", "relu#1"]
    for picture in pictures["conv"]:
        np.testing.assert_array_equal(gray(picture), np.hstack([SUMS, NEGATED]))
    for label, image in (("relu#0", 0), ("relu#1", 1)):
        np.testing.assert_array_equal(gray(pictures[label][image]), np.hstack([SUMS, np.zeros((4, 4))]))


def test_volumes_show_every_slice():
    """Channel 0 slice 0, channel 0 slice 1, channel 1 slice 0, ...: two channels of two slices in two rows of two."""
    volume = torch.tensor([[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]])
    (picture,) = grids.feature_maps({"0": torch.stack([volume, -volume])[None]}, **PLAIN, gap=0)["0"]
    assert gray(picture) == [[0, 255, 0, 0], [0, 0, 255, 0], [255, 0, 255, 255], [255, 255, 0, 255]]


@pytest.mark.parametrize("shape", [(1, 3), (1, 5, 3), (1, 2, 2, 2, 2, 2)])
def test_features_without_a_grid_are_refused(shape):
    with pytest.raises(InputError, match=r"(?s)head has no maps.*\(1, .*seewhy layers"):
        grids.feature_maps({"conv": torch.zeros(1, 2, 4, 4), "head": torch.zeros(shape)})


def test_kernels_of_three_input_channels_are_colours():
    """Two kernels of three input channels: colours; one of two input channels: two of gray, each scaled by itself."""
    coloured = torch.tensor([[[[0.0, 1]], [[0, 0]], [[1, 1]]], [[[-5.0, 5]], [[5, -5]], [[-5, -5]]]])
    two = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[-3.0, -2.0], [-1.0, 0.0]]]])
    first = grids.kernels({"1": coloured}, zoom=1, gap=0)
    assert list(first) == ["1"]
    assert np.asarray(first["1"]).tolist() == [
        [[0, 0, 255], [255, 0, 255]],
        [[0, 255, 0], [255, 0, 0]],
    ]
    assert gray(grids.kernels({"2": two}, **PLAIN, gap=0)["2"]) == [[0, 85, 0, 85], [170, 255, 170, 255]]
    with pytest.raises(InputError, match=r"(?s)head has no kernels.*\(2, 3\)"):
        grids.kernels({"head": torch.zeros(2, 3)})
