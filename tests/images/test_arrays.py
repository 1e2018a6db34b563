"""Resizing, scaling, blurring maps, and the boxes around what is hot: by hand, and against slow twins."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from seewhy.errors import InputError
from seewhy.images import arrays
from tests.oracles import arrays as oracle

TWO_BY_TWO = torch.tensor([[0.0, 4.0], [8.0, 12.0]])


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# resize


def test_resize_keeps_pixel_centres():
    """Corner-aligned resizing would give 0, 4/3, 8/3, 4 in the first row."""
    expected = [[0.0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]]
    torch.testing.assert_close(arrays.resize(TWO_BY_TWO, (4, 4)), torch.tensor(expected))


def test_nearest_repeats_pixels():
    expected = [[0.0, 0, 4, 4], [0, 0, 4, 4], [8, 8, 12, 12], [8, 8, 12, 12]]
    torch.testing.assert_close(arrays.resize(TWO_BY_TWO, (4, 4), "nearest"), torch.tensor(expected))


def test_bicubic_overshoots_a_step_and_keeps_its_symmetry():
    """The cubic with a = -0.75 at a quarter pixel: weights -0.10546875, 0.87890625, 0.26171875, -0.03515625."""
    step = torch.tensor([[0.0, 0, 0, 1, 1, 1]]).expand(6, 6)
    row = arrays.resize(step, (6, 12), "bicubic")[0]
    expected = torch.tensor([0, 0, 0, -0.03515625, -0.10546875, 0.2265625])
    torch.testing.assert_close(row, torch.cat([expected, 1 - expected.flip(0)]))


@pytest.mark.parametrize(
    ("grid", "size"),
    [
        ((2, 3), (7, 5)),
        ((7, 5), (2, 3)),
        ((3, 4), (3, 9)),
        ((1, 2), (4, 4)),
        ((2, 2, 3), (5, 4, 3)),
        ((3, 2, 4), (2, 6, 5)),
    ],
)
def test_resize_equals_slow_twin(grid, size):
    maps = random(*grid)
    torch.testing.assert_close(arrays.resize(maps, size), torch.from_numpy(oracle.resize(maps, size)))


def test_volume_that_is_the_same_at_every_depth_is_resized_like_its_image():
    """Also along the depth: 2 slices become 5, all equal. Cubic or corner-aligned volumes would differ."""
    image = random(3, 4)
    for mode in ("bilinear", "nearest"):
        volume = arrays.resize(image.expand(2, 3, 4), (5, 8, 6), mode)
        torch.testing.assert_close(volume, arrays.resize(image, (8, 6), mode).expand(5, 8, 6))


def test_volume_is_resized_along_its_depth_by_the_same_rule():
    line = torch.tensor([0.0, 4.0]).reshape(2, 1, 1)
    assert arrays.resize(line, (4, 1, 1)).flatten().tolist() == [0, 1, 3, 4]


def test_leading_dimensions_are_kept_in_order():
    maps = random(2, 3, 4, 5)
    found = arrays.resize(maps, (6, 7))
    for b, t in itertools.product(range(2), range(3)):
        torch.testing.assert_close(found[b, t], torch.from_numpy(oracle.resize(maps[b, t], (6, 7))))


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_resize_to_the_same_size_changes_nothing(mode):
    maps = random(2, 4, 5)
    assert torch.equal(arrays.resize(maps, (4, 5), mode), maps)


def test_bicubic_volumes_are_refused():
    with pytest.raises(InputError, match=r"got: a map with 3 spatial dimensions\s+do: mode=\"bilinear\""):
        arrays.resize(random(2, 2, 2), (4, 4, 4), "bicubic")


# rescale


def test_rescale_by_hand():
    """Each map by its own range: subtracting only, dividing by the maximum, or one range for both would all differ."""
    maps = torch.tensor([[[-1.0, 0.0], [1.0, 3.0]], [[10.0, 20.0], [15.0, 30.0]]])
    expected = torch.tensor([[[0, 0.25], [0.5, 1]], [[0, 0.5], [0.25, 1]]])
    torch.testing.assert_close(arrays.rescale(maps, (-2, -1)), expected)


def test_rescale_over_everything_keeps_maps_comparable():
    maps = torch.tensor([[[0.0, 1.0]], [[2.0, 4.0]]])
    assert arrays.rescale(maps, (0, 1, 2)).tolist() == [[[0, 0.25]], [[0.5, 1]]]


@pytest.mark.parametrize("value", [0.0, 0.1, -7.0, 1e30])
def test_constant_map_becomes_zero(value):
    maps = torch.stack([torch.full((2, 2), value), torch.tensor([[0.0, 1.0], [2.0, 4.0]])])
    expected = torch.tensor([[[0, 0], [0, 0]], [[0, 0.25], [0.5, 1]]])
    torch.testing.assert_close(arrays.rescale(maps, (1, 2)), expected)


@pytest.mark.parametrize("scale", [1e-8, 1e-30, 1e-37, 1e30])
def test_scale_of_a_map_does_not_matter(scale):
    """No epsilon is added to the range."""
    maps = scale * torch.tensor([[0.0, 1.0], [2.0, 4.0]])
    torch.testing.assert_close(arrays.rescale(maps, (0, 1)), torch.tensor([[0, 0.25], [0.5, 1]]))


# blur


def delta(height, width, i, j):
    image = torch.zeros(height, width, dtype=torch.float64)
    image[i, j] = 1
    return image


def test_blurred_point_is_the_gaussian():
    """sigma 1: radius 4, weights exp(-k^2 / 2) / 2.5066..., on an image that the kernel does not leave."""
    weights = [math.exp(-(k**2) / 2) for k in range(-4, 5)]
    line = torch.tensor([0.0, *weights, 0.0], dtype=torch.float64) / sum(weights)
    torch.testing.assert_close(arrays.blur(delta(11, 11, 5, 5), 1.0), line[:, None] * line)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 1.7])
def test_blur_equals_direct_convolution(sigma):
    image = random(6, 9)
    torch.testing.assert_close(arrays.blur(image, sigma), torch.from_numpy(oracle.blur(image, sigma)))


@pytest.mark.parametrize("shape", [(2, 3), (1, 4), (3, 1), (1, 1)])
def test_blur_reflects_as_often_as_a_wide_kernel_asks_for(shape):
    """Radius 12 around an image of 2 x 3: reflected several times, at every border."""
    image = random(*shape)
    torch.testing.assert_close(arrays.blur(image, 3.0), torch.from_numpy(oracle.blur(image, 3.0)))


def test_reflected_border_by_hand():
    """sigma 0.25, radius 1, k = exp(-8): the corner keeps 1 - k of its row and column, its mirror gives it back."""
    share = math.exp(-8) / (1 + 2 * math.exp(-8))
    found = arrays.blur(delta(3, 3, 0, 0), 0.25)
    line = torch.tensor([1 - share, share, 0], dtype=torch.float64)
    torch.testing.assert_close(found, line[:, None] * line)


@pytest.mark.parametrize("sigma", [0.5, 2.0, 6.0])
def test_blur_preserves_the_sum(sigma):
    """At the border too: zero padding would lose some, renormalising at the border would add."""
    image = random(5, 7).abs()
    assert arrays.blur(image, sigma).sum().item() == pytest.approx(image.sum().item(), rel=1e-12)


def test_blur_is_symmetric():
    image = random(5, 7)
    blurred = arrays.blur(image, 1.3)
    torch.testing.assert_close(arrays.blur(image.flip(0), 1.3), blurred.flip(0))
    torch.testing.assert_close(arrays.blur(image.flip(1), 1.3), blurred.flip(1))
    torch.testing.assert_close(arrays.blur(image.T, 1.3), blurred.T)


def test_blur_of_a_batch_is_that_of_each_map():
    maps = random(2, 3, 4, 5)
    for b, t in itertools.product(range(2), range(3)):
        torch.testing.assert_close(arrays.blur(maps, 1.2)[b, t], arrays.blur(maps[b, t], 1.2))


@pytest.mark.parametrize("sigma", [0, 0.0, -1.0])
def test_no_blur_changes_nothing(sigma):
    image = random(4, 4)
    assert torch.equal(arrays.blur(image, sigma), image)


# boxes


def drawing(*rows):
    """Digits are tenths: "9" is 0.9, "." is 0."""
    return torch.tensor([[0.0 if cell == "." else int(cell) / 10 for cell in row] for row in rows])


@pytest.mark.parametrize(
    ("heat", "expected"),
    [
        pytest.param(drawing("....", "....", "...."), [], id="none"),
        pytest.param(drawing("9999", "9999"), [[0, 0, 4, 2]], id="everything"),
        pytest.param(drawing(".....", "..9..", "....."), [[2, 1, 3, 2]], id="one pixel: exclusive ends"),
        pytest.param(drawing("99...", "99...", "....7"), [[0, 0, 2, 2], [4, 2, 5, 3]], id="two blobs"),
        pytest.param(
            drawing("7....", ".....", "...99"), [[3, 2, 5, 3], [0, 0, 1, 1]], id="two blobs, the later hotter"
        ),
        pytest.param(drawing("9...", ".9..", "..9."), [[0, 0, 3, 3]], id="diagonal touch"),
        pytest.param(drawing("..9", ".9.", "9.."), [[0, 0, 3, 3]], id="other diagonal"),
        pytest.param(drawing("9.9", "9.9", "999"), [[0, 0, 3, 3]], id="a U is one region"),
        pytest.param(drawing("9999", "9..9", "9..9", "9999"), [[0, 0, 4, 4]], id="a ring"),
        pytest.param(drawing("9999", "....", "...6"), [[0, 0, 4, 1], [3, 2, 4, 3]], id="a row, a pixel"),
        pytest.param(drawing("66666", ".....", "99..."), [[0, 0, 5, 1], [0, 2, 2, 3]], id="heat counts, not the peak"),
        pytest.param(drawing("5555", "....", "9999"), [[0, 2, 4, 3], [0, 0, 4, 1]], id="heat counts, not the size"),
        pytest.param(drawing("9444", "4444", "...."), [[0, 0, 1, 1]], id="warm neighbours are left out"),
    ],
)
def test_boxes_by_hand(heat, expected):
    found = arrays.boxes(heat, 0.5)
    assert found.tolist() == expected
    assert found.shape == (len(expected), 4)
    assert found.dtype == torch.long


def test_a_pixel_equal_to_the_threshold_is_inside():
    heat = torch.tensor([[0.25, 0.5, 0.75]])
    assert arrays.boxes(heat, 0.25).tolist() == [[0, 0, 3, 1]]
    assert arrays.boxes(heat, 0.5).tolist() == [[1, 0, 3, 1]]
    assert arrays.boxes(heat, 0.75).tolist() == [[2, 0, 3, 1]]
    assert arrays.boxes(heat, 0.76).tolist() == []


def test_threshold_is_a_half_unless_told():
    assert arrays.boxes(torch.tensor([[0.49, 0.5]])).tolist() == [[1, 0, 2, 1]]


def test_box_of_a_volume_goes_x_y_z():
    """Depth 1 to 2, rows 2 to 4, columns 3 to 6; and one voxel that touches none of it."""
    heat = torch.zeros(4, 5, 7)
    heat[1:2, 2:4, 3:6] = 0.8
    heat[3, 0, 0] = 1.0
    assert arrays.boxes(heat).tolist() == [[3, 2, 1, 6, 4, 2], [0, 0, 3, 1, 1, 4]]
    assert arrays.boxes(heat, 0.9).tolist() == [[0, 0, 3, 1, 1, 4]]
    assert arrays.boxes(torch.zeros(2, 2, 2)).shape == (0, 6)


def test_voxels_touch_by_a_corner():
    heat = torch.zeros(3, 3, 3)
    for k in range(3):
        heat[k, 2 - k, k] = 1
    assert arrays.boxes(heat).tolist() == [[0, 0, 0, 3, 3, 3]]


def snake(size):
    """Full rows, joined alternately at the right and at the left: one region, as long as it is thin."""
    heat = torch.zeros(size, size)
    heat[::2] = 1
    heat[1::4, -1] = 1
    heat[3::4, 0] = 1
    return heat


def test_a_snake_is_one_region():
    assert arrays.boxes(snake(31)).tolist() == [[0, 0, 31, 31]]


def test_a_cut_snake_is_two():
    """Rows 0 to 14 against rows 16 to 30, the link in row 15 missing."""
    heat = snake(31)
    heat[15] = 0
    heat[30, 15] = 0.6  # so that the upper half is hotter
    assert arrays.boxes(heat).tolist() == [[0, 0, 31, 15], [0, 16, 31, 31]]


@pytest.mark.parametrize("shape", [(9, 13), (1, 20), (5, 6, 7)])
@pytest.mark.parametrize("threshold", [0.4, 0.7, 0.9])
def test_boxes_equal_those_of_a_flood_fill(shape, threshold):
    for seed in range(5):
        heat = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
        expected = [box for _, box in oracle.boxes(heat, threshold)]
        assert arrays.boxes(heat, threshold).tolist() == expected


def test_map_is_not_changed():
    heat = torch.rand(5, 5)
    before = heat.clone()
    arrays.boxes(heat), arrays.rescale(heat, (0, 1)), arrays.blur(heat, 1.0)
    np.testing.assert_array_equal(heat, before)


def test_maps_that_are_not_finite_are_scaled_to_zero():
    rows = torch.tensor([[1.0, 2.0, 3.0], [1.0, torch.nan, 3.0], [1.0, torch.inf, 3.0], [-torch.inf, 2.0, 3.0]])
    expected = torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert torch.equal(arrays.rescale(rows, (1,)), expected)
