"""One decoder: the forms of a photograph, the rule for each type of value, and files that are no pictures."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from jaxtyping import config
from PIL import Image

from seewhy import samples
from seewhy.errors import InputError, InputTypeError
from seewhy.images.photo import false_colours, open_photo, opened, rgb

GREY = np.arange(0, 240, 12, dtype=np.uint8).reshape(4, 5)
COLOUR = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)


def written(folder, name: str, photo: Image.Image, **options):
    photo.save(folder / name, **options)
    return folder / name


def grey_forms(folder):
    """GREY in every form that holds it exactly."""
    plain, wide = Image.fromarray(GREY), Image.fromarray(GREY.astype(np.uint16) * 257)
    share = GREY.astype(np.float32) / 255
    yield from (plain, wide, Image.fromarray(share), GREY, GREY.astype(np.uint16) * 257, share, GREY / 255)
    yield from (torch.from_numpy(GREY), torch.from_numpy(share)[None], torch.from_numpy(GREY.astype(np.uint16) * 257))
    yield written(folder, "8.png", plain)
    yield str(written(folder, "16.png", wide))
    yield written(folder, "16.tif", wide)
    yield written(folder, "float.tif", Image.fromarray(share))
    (folder / "wide.pgm").write_bytes(b"P5 5 4 65535\n" + (GREY.astype(">u2") * 257).tobytes())
    yield folder / "wide.pgm"  # Pillow reads it in its mode of 32-bit integers
    with Image.open(folder / "wide.pgm") as photo:
        yield photo


def test_every_form_of_a_grey_photograph_is_the_same_picture(tmp_path):
    for form in grey_forms(tmp_path):
        picture = opened(form)
        assert picture.mode == "RGB", form
        assert np.array_equal(np.asarray(picture), np.stack([GREY] * 3, -1)), form


def test_colour_in_every_form_is_the_same_picture(tmp_path):
    photo = Image.fromarray(COLOUR)
    chw = torch.from_numpy(COLOUR).permute(2, 0, 1)
    cmyk = Image.fromarray(np.concatenate([255 - COLOUR, np.zeros((4, 5, 1), np.uint8)], 2), "CMYK")
    files = [written(tmp_path, name, photo) for name in ("a.png", "a.bmp", "a.tif", "a.ppm", "a.tga", "a.qoi")]
    palette = written(tmp_path, "palette.png", photo.quantize(64, dither=Image.Dither.NONE))
    for form in (photo, COLOUR, COLOUR / 255, chw, chw / 255, photo.convert("RGBA"), cmyk, palette, *files):
        assert np.array_equal(np.asarray(opened(form)), COLOUR), form


def test_black_and_white_by_hand():
    mask = np.array([[True, False]])
    for form in (mask, torch.from_numpy(mask), Image.fromarray(mask)):
        assert rgb(form).tolist() == [[[255] * 3, [0] * 3]]


def test_exif_turns_every_mode_and_file(tmp_path):
    """Orientation 6: to be turned by 90 degrees clockwise."""
    for stored in (GREY, GREY.astype(np.uint16) * 257, GREY.astype(np.float32) / 255, COLOUR):
        photo = Image.fromarray(stored)
        exif = photo.getexif()
        exif[0x0112] = 6
        upright = np.rot90(COLOUR if stored is COLOUR else np.stack([GREY] * 3, -1), -1)
        assert np.array_equal(rgb(photo), upright)
        path = written(tmp_path, "turned.tif", photo, exif=exif)
        assert np.array_equal(np.asarray(opened(path)), upright)


def test_integers_of_32_bits_have_no_known_range(tmp_path):
    photo = Image.fromarray(GREY.astype(np.int32))
    for name, form in (("this photograph", photo), ("i.tif", written(tmp_path, "i.tif", photo))):
        with pytest.raises(InputError, match=f'{name} has 32-bit integers(.|\n)*mode "I", values from 0 to 228'):
            opened(form)


def test_files_with_values_of_unknown_range_are_named(tmp_path):
    """A float TIFF beyond [0, 1], and one of int16, which Pillow widens to 32 bits."""
    path = written(tmp_path, "heights.tif", Image.fromarray(GREY.astype(np.float32)))
    with pytest.raises(InputError, match=r"heights\.tif has values out of range(.|\n)*floats from 0 to 228"):
        open_photo(path)
    wide = Image.fromarray(GREY.astype(np.uint16))
    path = written(tmp_path, "signed.tif", wide, tiffinfo={339: 2})  # sample format: signed
    with pytest.raises(InputError, match=r"signed\.tif has 32-bit integers"):
        open_photo(path)


@pytest.mark.parametrize("name", ["pages.tif", "moving.gif", "moving.png"])
def test_of_several_pictures_the_first_is_taken_with_a_warning(tmp_path, name):
    first, *others = (Image.fromarray(GREY // divisor) for divisor in (1, 2, 3))
    path = written(tmp_path, name, first, save_all=True, append_images=others)
    with pytest.warns(UserWarning, match=f"{name}: holds 3 pictures, and the first one is taken") as caught:
        photo = open_photo(path)
    assert caught[0].filename == __file__
    assert np.array_equal(np.asarray(photo)[..., 0], GREY)
    with warnings.catch_warnings(), Image.open(path) as chosen:
        warnings.simplefilter("error")
        assert np.array_equal(rgb(chosen)[..., 0], GREY)  # the caller chose the page


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("kind", ["EPS", "DDS", "BLP", "SPIDER"])
def test_formats_that_are_no_photographs_are_not_decoded(tmp_path, kind, monkeypatch):
    """A PostScript file would start Ghostscript; decoders of games and microscopes fall over damaged files."""
    content = io.BytesIO(POSTSCRIPT)
    if kind != "EPS":
        {"BLP": Image.fromarray(GREY).quantize(4), "SPIDER": Image.fromarray(GREY.astype(np.float32))}.get(
            kind, Image.fromarray(COLOUR)
        ).save(content := io.BytesIO(), kind)
    (tmp_path / "named.png").write_bytes(content.getvalue())
    with Image.open(tmp_path / "named.png") as taken:
        assert taken.format == kind  # Pillow itself takes it for one
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_args, **_options: pytest.fail("it was started"))
    with pytest.raises(InputError, match=r"named\.png: is not a picture in any of the formats PNG, JPEG"):
        open_photo(tmp_path / "named.png")


@pytest.mark.parametrize("kind", ["AVIF", "PNG", "JPEG", "TIFF", "WEBP", "GIF", "QOI", "JPEG2000"])
def test_a_damaged_file_is_an_input_error_with_its_name(tmp_path, kind):
    """Forty files of each format with bytes cut off or changed: read, or refused by name, never a raw error."""
    content, rng = io.BytesIO(), np.random.default_rng(1)
    Image.fromarray(np.tile(COLOUR, (8, 8, 1))).save(content, kind)
    whole, refused = np.frombuffer(content.getvalue(), np.uint8), []
    for number in range(40):
        damaged = whole[: rng.integers(1, len(whole))] if number % 2 else whole.copy()
        if not number % 2:
            damaged[rng.integers(0, len(whole), 8)] ^= 0x5A
        (tmp_path / "broken.bin").write_bytes(damaged.tobytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on damaged metadata
            try:
                assert open_photo(tmp_path / "broken.bin").mode == "RGB"
            except InputError as error:
                refused.append(str(error))
    assert len(refused) >= 10
    assert all("broken.bin: " in message for message in refused)


def test_running_out_of_memory_comes_through(tmp_path, monkeypatch):
    def load(_self):
        raise MemoryError

    path = written(tmp_path, "a.png", Image.fromarray(COLOUR))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(MemoryError):
        open_photo(path)


def test_what_is_no_photograph_is_refused(monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # to see what seewhy itself says
    for wrong in (3, None, b"bytes", object()):
        with pytest.raises(InputTypeError, match=type(wrong).__name__):
            opened(wrong)


def test_the_picture_passed_is_not_changed():
    photo = Image.fromarray(COLOUR)
    opened(photo).paste((0, 0, 0), (0, 0, 5, 4))
    assert np.array_equal(np.asarray(photo), COLOUR)


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


# many bands, and one of several pictures


def test_many_bands_are_drawn_in_false_colours_by_their_own_ranges():
    """Sentinel-2's 13 bands: the fourth, third and second are red, green and blue."""
    bands = np.zeros((13, 40, 50), np.uint16)
    bands[3], bands[2], bands[1] = 1000, 200, 4000
    ramp = np.arange(2000).reshape(40, 50)
    bands[3] += ramp.astype(np.uint16)
    with pytest.warns(UserWarning, match="13 bands is drawn in false colours: band 3 is red, 2 green, 1 blue"):
        found = rgb(bands)
    expected = np.clip((ramp - np.percentile(ramp, 2)) / (np.percentile(ramp, 98) - np.percentile(ramp, 2)), 0, 1)
    assert np.array_equal(found[..., 0], np.rint(255 * expected))
    assert not found[..., 1:].any()  # the same everywhere
    with pytest.warns(UserWarning, match="false colours"):
        assert np.array_equal(rgb(torch.from_numpy(bands.astype(np.float32))), found)
    with pytest.warns(UserWarning, match="false colours"):
        assert np.array_equal(rgb(np.moveaxis(bands, 0, -1)), found)
    assert np.array_equal(false_colours(bands, (5, 3, 9))[..., 1], found[..., 0])
    with pytest.raises(InputError, match="no such band"):
        false_colours(bands, (5, 3, 13))
    with pytest.warns(UserWarning, match="band 2 is red, 1 green, 0 blue"):
        rgb(bands[:6])


def test_a_picture_of_several_is_chosen_by_its_number(tmp_path):
    path = tmp_path / "clip.gif"
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    for number, colour in enumerate(([255, 0, 0], [0, 255, 0], [0, 0, 255])):
        assert rgb(open_photo(f"{path}#{number}"))[0, 0].tolist() == colour
    with pytest.raises(InputError, match=r"there is no picture 3.\n  expected: 0 to 2"):
        open_photo(f"{path}#3")
    named = tmp_path / "clip#1"  # a name that has such an ending itself
    Image.new("RGB", (8, 6), "white").save(named, format="PNG")
    assert rgb(open_photo(named))[0, 0].tolist() == [255, 255, 255]


def test_cmyk_and_palettes_are_colours(tmp_path):
    red = Image.new("RGB", (4, 4), (254, 0, 0))
    for converted in (red.convert("CMYK"), red.convert("P", palette=Image.Palette.ADAPTIVE)):
        path = tmp_path / f"{converted.mode}.tif"
        converted.save(path)
        assert rgb(open_photo(path))[0, 0].tolist() == [254, 0, 0]
