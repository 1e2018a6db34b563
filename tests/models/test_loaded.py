"""Preprocessing against torchvision's and timm's own, the rectangle it shows, and files that are no pictures."""

from __future__ import annotations

import dataclasses
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from seewhy import samples
from seewhy.errors import InputError, InputTypeError, ModelError
from seewhy.images.photo import open_photo
from seewhy.models import Loaded, Preprocess
from seewhy.models.loaded import usable

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
    from seewhy.models.loading import _timm_preprocess

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
    torch.testing.assert_close(_timm_preprocess(config, "x")(photo), expected, atol=1e-6, rtol=0)


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


def test_exif_orientation_is_applied(tmp_path):
    photo = noise(40, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    photo.save(tmp_path / "turned.png", exif=exif)
    opened = open_photo(tmp_path / "turned.png")
    assert opened.size == (20, 40)
    assert np.array_equal(np.asarray(opened), np.rot90(np.asarray(photo), -1))


def test_modes_become_rgb(tmp_path):
    gray = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    Image.fromarray(gray).save(tmp_path / "16bit.png")
    assert np.array_equal(np.asarray(open_photo(tmp_path / "16bit.png"))[..., 1], gray // 257)
    colours = noise(8, 8)
    rgba = colours.copy()
    rgba.putalpha(7)
    rgba.save(tmp_path / "rgba.png")
    assert np.array_equal(np.asarray(open_photo(tmp_path / "rgba.png")), np.asarray(colours))


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("empty.png", b"", "empty"),
        ("text.jpg", b"no picture", "not a picture"),
        ("cut.png", samples.path("coffee.png").read_bytes()[:5000], "damaged"),
        ("bomb.png", _png(60_000, 60_000), "more pixels than is safe"),
        ("warned.png", _png(10_000, 10_000), "more pixels than is safe"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_with_its_name(tmp_path, name, content, cause):
    (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=cause) as caught:
            open_photo(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_directory_and_a_missing_file_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="is a directory"):
        open_photo(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        open_photo(tmp_path / "nothing.png")


def test_pillows_limit_is_left_alone(tmp_path):
    before = Image.MAX_IMAGE_PIXELS
    open_photo(samples.path("coffee.png"))
    assert before == Image.MAX_IMAGE_PIXELS


def test_prepare_gives_inputs_photographs_and_frames():
    loaded = Loaded(nn.Conv2d(3, 1, 1).to(torch.bfloat16), PLAIN, None, "x")
    chelsea = samples.path("chelsea.png")
    inputs, photos, frames = loaded.prepare([chelsea, str(samples.path("coffee.png")), Image.open(chelsea)])
    assert inputs.shape == (3, 3, 224, 224)
    assert inputs.dtype == torch.bfloat16
    assert torch.equal(inputs[0], inputs[2])
    assert torch.equal(inputs[0], PLAIN(photos[0]).to(torch.bfloat16))
    assert [photo.size for photo in photos] == [(451, 300), (600, 400), (451, 300)]
    assert frames[1] == (125, 25, 475, 375)


def test_prepare_refuses_what_is_no_photograph():
    loaded = Loaded(nn.Identity(), PLAIN, None, "x")
    with pytest.raises(InputTypeError, match="ndarray"):
        loaded.prepare([np.zeros((3, 4, 3))])
    with pytest.raises(InputError, match="no photographs"):
        loaded.prepare([])


@pytest.mark.parametrize("device", ["nonsense", "meta", "cuda:99"])
def test_a_device_that_cannot_be_used_is_refused(device):
    with pytest.raises(ModelError, match=device):
        usable(device)


def test_a_sample_that_does_not_exist_names_those_that_do():
    with pytest.raises(InputError, match=r"chelsea\.png, coffee\.png"):
        samples.path("dog.png")
    assert isinstance(samples.path("coffee.png"), Path)
