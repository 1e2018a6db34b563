"""Preprocessing against torchvision's and timm's own, and the rectangle of a photograph that it shows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy import samples
from seewhy.errors import ModelError
from seewhy.images.photo import open_photo
from seewhy.images.preprocess import Preprocess

PLAIN = Preprocess(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def torchvision_preset(interpolation: str, *, crop: int = 224, resize: int = 256):
    transforms = pytest.importorskip("torchvision.transforms")
    from torchvision.transforms._presets import ImageClassification

    mode = transforms.InterpolationMode(interpolation)
    return ImageClassification(crop_size=crop, resize_size=resize, interpolation=mode)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(451, 300), (300, 451), (17, 23), (224, 224), (257, 256), (1000, 130)])
def test_the_input_is_torchvisions(size, interpolation):
    photo = open_photo(samples.path("chelsea.png")) if size == (451, 300) else noise(*size)
    expected = torchvision_preset(interpolation)(photo)
    assert torch.equal(Preprocess(interpolation=interpolation)(photo), expected)


@pytest.mark.parametrize("mean", [(0.5,), (0.25,)])
def test_the_input_of_grey_levels_is_torchvisions(mean):
    transforms = pytest.importorskip("torchvision.transforms")
    photo = open_photo(samples.path("chelsea.png"))
    preset = torchvision_preset("bilinear")
    preset.mean, preset.std = list(mean), [0.25]
    expected = preset(transforms.Grayscale()(photo))
    found = Preprocess(mean=mean, std=(0.25,), interpolation="bilinear")(photo)
    assert found.shape == (1, 224, 224)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("size", [(3000, 20), (20, 3000)])
def test_the_input_of_a_very_long_photograph_is_torchvisions_to_one_gray_value(size):
    """Only the part that is shown is resized; Pillow may then round and clip between its two passes in another order.

    So bilinear, which does not overshoot: bicubic on noise is clipped, and differs by more.
    """
    photo = noise(*size)
    preset = torchvision_preset("bilinear")
    preset.mean, preset.std = [0, 0, 0], [1, 1, 1]
    difference = (dataclasses.replace(PLAIN, interpolation="bilinear")(photo) - preset(photo)).abs()
    assert difference.max() <= 1.001 / 255


@pytest.mark.parametrize(
    ("crop_mode", "crop_pct", "side"), [("center", 0.875, 224), ("center", 0.95, 176), ("squash", 0.9, 224)]
)
def test_the_input_is_timms(crop_mode, crop_pct, side):
    data = pytest.importorskip("timm.data")
    from seewhy.models.sources.timm import preprocess_of

    config = {
        "input_size": (3, side, side),
        "interpolation": "bicubic",
        "mean": (0.5, 0.4, 0.3),
        "std": (0.5, 0.25, 0.2),
        "crop_pct": crop_pct,
        "crop_mode": crop_mode,
    }
    photo = open_photo(samples.path("chelsea.png"))
    expected = data.create_transform(**config, is_training=False)(photo)
    torch.testing.assert_close(preprocess_of(config, "x")(photo), expected, atol=1e-6, rtol=0)


def test_frame_by_hand():
    """451 x 300 becomes 384 x 256 (384.85 rounded down); the crop lies at (80, 16); scales are 451/384 and 300/256."""
    expected = (80 * 451 / 384, 16 * 300 / 256, 304 * 451 / 384, 240 * 300 / 256)
    assert Preprocess().frame((451, 300)) == pytest.approx(expected, abs=1e-12)
    assert Preprocess().frame((300, 451)) == pytest.approx(
        (expected[1], expected[0], expected[3], expected[2]), abs=1e-12
    )


def test_frame_of_a_squashed_and_of_a_small_photograph():
    assert Preprocess(resize=(224, 224)).frame((640, 10)) == (0, 0, 640, 10)
    assert Preprocess(resize=448).frame((10, 20)) == (2.5, 7.5, 7.5, 12.5)
    assert Preprocess(size=(100, 200), resize=(100, 400)).frame((40, 10)) == (10, 0, 30, 10)


def test_frame_is_where_the_input_was_taken_from():
    """A photograph with values that grow along x: the input's ends show those of the frame."""
    row = np.linspace(0, 255, 600).astype(np.uint8)
    photo = Image.fromarray(np.repeat(np.repeat(row[None, :, None], 400, 0), 3, 2))
    shown = PLAIN(photo)[0, 112] * 255
    x0, _, x1, _ = PLAIN.frame(photo.size)
    assert shown[0].item() == pytest.approx(x0 / 600 * 255, abs=1.5)
    assert shown[-1].item() == pytest.approx(x1 / 600 * 255, abs=1.5)


def test_a_strip_of_many_pixels_is_prepared_in_little_memory():
    """Resized whole, its shorter side to 256, it would have 256 x 25,600,000 pixels."""
    strip = Image.new("RGB", (100_000, 1), (255, 0, 51))
    expected = torch.tensor([1.0, 0.0, 0.2])[:, None, None].expand(3, 224, 224)
    torch.testing.assert_close(PLAIN(strip), expected)


def test_a_crop_larger_than_the_resize_is_refused():
    with pytest.raises(ModelError, match="does not fit"):
        Preprocess(size=(224, 224), resize=200)


def test_the_grey_of_a_preprocessing_by_hand():
    """ITU-R 601-2: 0.299 red, 0.587 green, 0.114 blue."""
    grey = Preprocess(mean=(0.5, 0.4, 0.3), std=(0.2, 0.1, 0.3)).gray()
    assert (grey.channels, Preprocess().channels) == (1, 3)
    assert grey.mean == pytest.approx((0.299 * 0.5 + 0.587 * 0.4 + 0.114 * 0.3,))
    assert grey.std == pytest.approx((0.299 * 0.2 + 0.587 * 0.1 + 0.114 * 0.3,))
    assert grey.gray() == grey
    photo = Image.new("RGB", (300, 300), (255, 0, 0))  # Pillow's luma of it is 76
    expected = (76 / 255 - grey.mean[0]) / grey.std[0]
    torch.testing.assert_close(grey(photo), torch.full((1, 224, 224), expected))


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.1,) * 3), ((0.5,) * 2, (0.5,) * 2), ((), ())])
def test_one_or_three_channels(mean, std):
    with pytest.raises(ModelError, match=f"got: {len(mean)} means and {len(std)} standard"):
        Preprocess(mean=mean, std=std)
