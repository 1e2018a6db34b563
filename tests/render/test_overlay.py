from __future__ import annotations

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.errors import InputError, InputTypeError
from seewhy.images.photo import rgb
from seewhy.render import overlay
from seewhy.render._colormap import colours
from seewhy.render._overlay import overlays

GREY = np.array([[0, 100], [200, 40]], np.uint8)
HEAT = torch.tensor([[0.0, 1.0], [0.5, 0.0]])


def one_channel(picture: Image.Image) -> list[list[int]]:
    """The red channel, after checking that the picture is grey."""
    pixels = np.asarray(picture).astype(int)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].tolist()


def test_blend_by_hand():
    """Grey colours of 0, 1 and 0.5 are 0, 255 and 128; a quarter of them on three quarters of the photo."""
    drawn = overlay(GREY, HEAT, colormap="gray", alpha=0.25)
    assert drawn.mode == "RGB"
    assert one_channel(drawn) == [[0, 139], [182, 30]]


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, [[0, 100], [200, 40]]), (1.0, [[0, 255], [128, 0]])])
def test_the_ends_of_alpha(alpha, expected):
    assert one_channel(overlay(GREY, HEAT, colormap="gray", alpha=alpha)) == expected


def test_channels_keep_their_order():
    photo = np.array([[[10, 20, 30]]], np.uint8)
    assert np.asarray(overlay(photo, torch.zeros(1, 1), alpha=0.0))[0, 0].tolist() == [10, 20, 30]
    red = np.asarray(overlay(photo, torch.ones(1, 1), colormap="jet", alpha=1.0))[0, 0]
    blue = np.asarray(overlay(photo, torch.zeros(1, 1), colormap="jet", alpha=1.0))[0, 0]
    assert red.tolist() == [128, 0, 0]  # the ends of jet: half red, half blue
    assert blue.tolist() == [0, 0, 128]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("level", [0, 1])
def test_the_hottest_place_is_drawn_hottest(dtype, level):
    """Nothing is multiplied by 255 twice: on black as on white, jet's ramps, worked by hand."""
    photo = np.full((8, 64, 3), level * (255 if dtype == np.uint8 else 1), dtype)
    heat = torch.linspace(0, 1, 64).expand(8, 64)
    blended = np.asarray(overlay(photo, heat, colormap="jet")).astype(int)[4]
    colours = 2 * blended - 255 * level
    for place, expected in [
        (0, (0, 0, 128)),
        (16, (0, 131, 255)),
        (32, (130, 255, 117)),
        (47, (255, 155, 0)),
        (63, (128, 0, 0)),
    ]:
        assert abs(colours[place] - expected).max() <= 5, place
    redness = blended[:, 0] - blended[:, 2]
    assert (np.diff(redness[8:54]) >= -1).all()
    opaque = np.asarray(overlay(photo, heat, colormap="jet", mode="opacity")).astype(int)[4]
    assert opaque[0].tolist() == [255 * level] * 3
    assert abs(opaque[63] - (128, 0, 0)).max() <= 1


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_masks_are_maps_of_zeros_and_ones(dtype):
    mask = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    assert one_channel(overlay(GREY, mask, colormap="gray")) == [[0, 178], [228, 20]]


def test_the_map_is_resized_by_pixel_centres():
    """0 and 1 stretched to four pixels are 0, 1/4, 3/4, 1; grey has 256 steps."""
    drawn = overlay(np.zeros((1, 4), np.uint8), torch.tensor([[0.0, 1.0]]), colormap="gray", alpha=1.0)
    assert one_channel(drawn) == [[0, 64, 192, 255]]
    blocks = overlay(
        np.zeros((1, 4), np.uint8), torch.tensor([[0.0, 1.0]]), colormap="gray", alpha=1.0, interpolation="nearest"
    )
    assert one_channel(blocks) == [[0, 0, 255, 255]]


def test_bicubic_overshoot_stays_in_range():
    heat = torch.zeros(1, 5)
    heat[0, 1:3] = 1
    drawn = one_channel(
        overlay(np.zeros((4, 50), np.uint8), heat, colormap="gray", alpha=1.0, interpolation="bicubic")
    )[0]
    raw = torch.nn.functional.interpolate(heat[None, None], size=(4, 50), mode="bicubic", align_corners=False)[0, 0, 0]
    assert raw.max() > 1.05
    assert raw.min() < -0.05
    assert all(value == 255 for value, exact in zip(drawn, raw, strict=True) if exact >= 1)
    assert all(value == 0 for value, exact in zip(drawn, raw, strict=True) if exact <= 0)


def test_maps_may_have_a_gradient_and_any_float_type():
    expected = overlay(GREY, HEAT)
    for heat in (HEAT.clone().requires_grad_(), HEAT.bfloat16(), HEAT.double(), HEAT.numpy(), HEAT + 1e-6 * HEAT):
        assert overlay(GREY, heat) == expected


# ---- opacity


def test_opacity_of_a_hot_pixel_by_the_formula():
    """Photo of 50 x 20, so sigma is 1 pixel: the blurred spike is a product of Gaussians, m their ratio to the peak."""
    heat = torch.zeros(20, 50)
    heat[10, 25] = 1
    photo = np.full((20, 50), 200, np.uint8)
    drawn = np.asarray(overlay(photo, heat, mode="opacity", colormap="gray"))[..., 0]
    for dy, dx in [(0, 0), (0, 1), (1, 1), (2, 0), (2, 2)]:
        m = np.exp(-(dy**2 + dx**2) / 2)  # what the far field subtracts is exp(-50)
        grey = min(int(m * 256), 255)
        expected = 200 * (1 - m**0.7) + grey * m**0.7
        assert abs(int(drawn[10 + dy, 25 + dx]) - expected) <= 1
        assert drawn[10 - dy, 25 - dx] == drawn[10 + dy, 25 + dx]
    assert drawn[0, 0] == 200


def test_opacity_ignores_alpha_and_leaves_the_photo_under_a_constant_map():
    assert overlay(GREY, HEAT, mode="opacity", alpha=0.0) == overlay(GREY, HEAT, mode="opacity", alpha=1.0)
    assert one_channel(overlay(GREY, torch.ones(2, 2), mode="opacity")) == GREY.tolist()


# ---- frame


def test_the_frame_places_the_map_and_leaves_the_rest():
    """A 2 x 2 map on the middle two columns of a photo of 4 x 2."""
    photo = np.full((2, 4), 100, np.uint8)
    drawn = overlay(photo, torch.tensor([[0.0, 1.0], [1.0, 0.0]]), colormap="gray", alpha=0.5, frame=(1, 0, 3, 2))
    assert one_channel(drawn) == [[100, 50, 178, 100], [100, 178, 50, 100]]


def test_the_frame_s_sides_are_x_then_y():
    photo = np.full((4, 2), 100, np.uint8)
    drawn = overlay(photo, torch.ones(2, 2), colormap="gray", alpha=1.0, frame=(0, 1, 2, 3))
    assert one_channel(drawn) == [[100, 100], [255, 255], [255, 255], [100, 100]]


def test_fractions_of_a_pixel_count():
    """The frame 0.5 to 2.5 puts the centres of pixels 0 and 1 on 0 and 1/2, of 2 past it: between two columns 0, 1."""
    photo = np.full((1, 4), 100, np.uint8)
    drawn = overlay(photo, torch.tensor([[0.0, 1.0]]), colormap="gray", alpha=1.0, frame=(0.5, 0, 2.5, 1))
    assert one_channel(drawn) == [[0, 128, 100, 100]]


def test_a_frame_may_reach_past_the_photo():
    """A padded input: of four columns of map, the photo shows the middle two."""
    heat = torch.tensor([[0.0, 0.25, 0.75, 1.0]])
    drawn = overlay(np.zeros((1, 2), np.uint8), heat, colormap="gray", alpha=1.0, frame=(-1, 0, 3, 1))
    assert one_channel(drawn) == [[64, 192]]


def test_the_whole_photo_as_frame_is_no_frame():
    photo = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
    heat = torch.rand(7, 7, generator=torch.Generator().manual_seed(0))
    assert overlay(photo, heat, frame=(0, 0, 17, 13)) == overlay(photo, heat)


def test_opacity_leaves_what_is_outside_the_frame():
    photo = np.full((40, 80), 100, np.uint8)
    drawn = np.asarray(overlay(photo, torch.ones(2, 2), mode="opacity", colormap="gray", frame=(20, 0, 60, 40)))
    assert (drawn[:, :20] == 100).all()
    assert (drawn[:, 60:] == 100).all()
    assert (drawn[:, 30:50] > 250).all()


@pytest.mark.parametrize("frame", [(2, 0, 2, 1), (5, 0, 9, 2), (0, 2, 1, 1), (0, -5, 2, 0), (float("nan"), 0, 1, 1)])
def test_a_frame_off_the_photo_is_refused(frame):
    with pytest.raises(InputError, match=r"(?s)frame does not lie.*2 wide and 2 high.*original photographs"):
        overlay(GREY, HEAT, frame=frame)


# ---- every form of photograph

COLOUR = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)


def rotated() -> Image.Image:
    """Stored lying on its side, with the EXIF tag that puts it upright."""
    stored = Image.fromarray(COLOUR).transpose(Image.Transpose.ROTATE_90)
    stored.getexif()[0x0112] = 6  # to be turned clockwise by a quarter
    return stored


def colour_forms():
    tensor = torch.from_numpy(COLOUR)
    chw = tensor.permute(2, 0, 1)
    solid = np.full((5, 7, 1), 255, np.uint8)
    yield "pil", Image.fromarray(COLOUR)
    yield "rgba", Image.fromarray(np.concatenate([COLOUR, solid], 2))
    yield "see-through", Image.fromarray(np.concatenate([COLOUR, solid // 2], 2))
    yield "palette", Image.fromarray(COLOUR).quantize(64, dither=Image.Dither.NONE)
    yield "exif", rotated()
    yield "array", COLOUR
    yield "rgba array", np.concatenate([COLOUR, solid], 2)
    yield "float32", COLOUR.astype(np.float32) / 255
    yield "float64", COLOUR / 255
    yield "uint16", COLOUR.astype(np.uint16) * 257
    yield "array chw", COLOUR.transpose(2, 0, 1)
    yield "not contiguous", np.asfortranarray(COLOUR)[:, ::-1][:, ::-1]
    yield "chw", chw
    yield "hwc", tensor
    yield "chw float", chw.float() / 255
    yield "hwc half", (tensor.float() / 255).half()
    yield "chw bfloat16", (chw.float() / 255).bfloat16()
    yield "with gradient", (chw.double() / 255).requires_grad_()
    if torch.cuda.is_available():
        yield "gpu", (chw.float() / 255).cuda()


@pytest.mark.parametrize(("name", "photo"), list(colour_forms()), ids=lambda value: value if type(value) is str else "")
def test_the_same_photograph_gives_the_same_picture(name, photo):
    heat = torch.rand(3, 3, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(rgb(photo), COLOUR)
    assert overlay(photo, heat).tobytes() == overlay(COLOUR, heat).tobytes()


def grey_forms():
    grey = COLOUR[..., 0]
    tensor = torch.from_numpy(grey)
    yield from (
        Image.fromarray(grey),
        Image.fromarray(grey).convert("LA"),
        Image.fromarray(grey.astype(np.uint16) * 257),
    )
    yield from (Image.fromarray(grey.astype(np.float32) / 255), grey, grey[..., None], grey / 255)
    yield from (tensor, tensor[None], tensor[..., None], tensor / 255, Image.fromarray(grey).convert("P"))


@pytest.mark.parametrize("photo", list(grey_forms()))
def test_grey_photographs_become_equal_channels(photo):
    assert np.array_equal(rgb(photo), np.stack([COLOUR[..., 0]] * 3, -1))


def test_cmyk_and_bilevel():
    assert rgb(Image.new("CMYK", (1, 1), (255, 0, 0, 0))).tolist() == [[[0, 255, 255]]]
    assert rgb(Image.new("1", (1, 1), 1)).tolist() == [[[255, 255, 255]]]


def test_a_palette_with_transparency_keeps_its_colours(recwarn):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.info["transparency"] = b"\x00\xff"
    assert rgb(image).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert not recwarn.list


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_level_survives_every_float_type(dtype):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(rgb((torch.from_numpy(levels) / 255).to(dtype))[..., 0], levels)


def test_photographs_are_not_changed():
    tensor, array = torch.rand(3, 5, 7), COLOUR.copy()
    before = tensor.clone()
    overlay(tensor, HEAT)
    overlay(array, HEAT)
    assert torch.equal(tensor, before)
    assert np.array_equal(array, COLOUR)


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        (torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0)), r"floats from -\d.*\[0, 1\].*normalisation"),
        (COLOUR.astype(np.float32), r"floats from 2 to 255.*divide by 255"),
        (np.full((5, 7), np.nan), "nan.*NaN"),
        (COLOUR.astype(np.int64), "int64.*uint8"),
        (np.zeros((5, 7, 2), np.uint8), r"\(5, 7, 2\).*C = 1, 3 or 4"),
        (np.zeros((2, 3, 5, 7), np.uint8), r"\(2, 3, 5, 7\).*index one photograph"),
        (torch.zeros(3, 9, 3), r"two ways.*\(3, 9, 3\)"),
        (torch.zeros(3, 0, 7), "shape"),
        (np.zeros((0, 7), np.uint8), "shape"),
        (np.zeros(5, np.uint8), "shape"),
        (Image.new("I", (2, 2)), '"I"'),
    ],
)
def test_what_would_have_to_be_guessed_is_refused(photo, message):
    with pytest.raises(InputError, match=f"(?s){message}"):
        overlay(photo, HEAT)


def test_what_is_no_photo_is_refused(unchecked):
    with pytest.raises(InputTypeError, match=r"(?s)str.*PIL.Image.open"):
        overlay("cat.png", HEAT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, r"alpha.*1\.5.*\[0, 1\]"),
        ({"alpha": float("nan")}, "alpha"),
        ({"mode": "add"}, "'add'.*\"opacity\""),
        ({"interpolation": "lanczos"}, "'lanczos'.*\"bicubic\""),
        ({"colormap": "virdis"}, "'virdis'.*'viridis'"),
        ({"colormap": "JET"}, "'JET'.*'jet'"),
    ],
)
def test_options_are_checked(options, message, unchecked):
    with pytest.raises(InputError, match=f"(?s){message}"):
        overlay(GREY, HEAT, **options)


def test_colormaps_by_object():
    assert overlay(GREY, HEAT, colormap=matplotlib.colormaps["viridis"]) == overlay(GREY, HEAT, colormap="viridis")
    assert overlay(GREY, HEAT, colormap="viridis") != overlay(GREY, HEAT)
    with pytest.raises(InputTypeError, match="int"):
        overlay(GREY, HEAT, colormap=2)


@pytest.mark.parametrize(
    ("heat", "message"),
    [
        (HEAT * 255, r"0 to 255.*\[0, 1\].*255"),
        (HEAT - 0.5, r"-0\.5"),
        (torch.tensor([[0.0, float("nan")]]), "NaN"),
        (HEAT[None], r"\(1, 2, 2\).*\(H, W\)"),
        (torch.zeros(0, 2), r"\(0, 2\)"),
    ],
)
def test_maps_are_checked(heat, message):
    with pytest.raises(InputError, match=f"(?s){message}"):
        overlay(GREY, heat)


# ---- of an explanation


def test_one_overlay_per_image(explanation):
    made = explanation([[[0, 2], [1, 0]], [[4, 0], [0, 0]]])
    photos = [GREY, GREY.T]
    expected = [overlay(GREY, HEAT, alpha=0.3), overlay(GREY.T, torch.tensor([[1.0, 0], [0, 0]]), alpha=0.3)]
    assert overlays(made, photos, alpha=0.3) == expected
    assert overlays(made, tuple(photos), alpha=0.3) == expected
    assert made.overlay(np.stack(photos)[..., None], alpha=0.3) == expected
    assert made.overlay(torch.from_numpy(np.stack(photos))[:, None], alpha=0.3) == expected
    assert made[1].overlay(GREY.T, alpha=0.3) == expected[1:]


def test_targets_come_image_by_image(explanation):
    maps = torch.zeros(2, 3, 1, 6)
    for place in range(6):
        maps[place // 3, place % 3, 0, place] = 1
    made = explanation(maps, several=True)
    photos = np.zeros((2, 1, 6, 3), np.uint8)
    hottest = [np.asarray(p)[0, :, 0].argmax() for p in overlays(made, photos, colormap="gray", alpha=1.0)]
    assert hottest == [0, 1, 2, 3, 4, 5]
    hottest = [np.asarray(p)[0, :, 0].argmax() for p in overlays(made, photos, colormap="gray", alpha=1.0, target=1)]
    assert hottest == [1, 4]
    with pytest.raises(InputError, match=r"(?s)target=3.*3 targets"):
        overlays(made, photos, target=3)


def test_shared_scaling_compares(explanation):
    made = explanation([[[0, 1]], [[0, 4]]])
    photos = np.zeros((2, 1, 2, 3), np.uint8)
    drawn = overlays(made, photos, scaling="shared", colormap="gray", alpha=1.0)
    assert [one_channel(picture) for picture in drawn] == [[[0, 64]], [[0, 255]]]


def test_unscaled_maps_are_symmetric_about_zero(explanation):
    """-1, 0 and 4 lie at 3/8, 1/2 and 1 of the colormap."""
    made = explanation([[[-1, 0, 4]]])
    photo = np.zeros((1, 3, 3), np.uint8)
    assert one_channel(overlays(made, photo, scaling="none", colormap="gray", alpha=1.0)[0]) == [[96, 128, 255]]
    assert overlays(made, photo, scaling="none") == overlays(made, photo, scaling="none", colormap="coolwarm")
    pixels = np.asarray(overlays(made, photo, scaling="none", alpha=1.0)[0]).astype(int)[0]
    assert pixels[0, 2] > pixels[0, 0]  # against: blue
    assert pixels[2, 0] > pixels[2, 2] + 100  # for: red
    with pytest.raises(InputError, match="opacity has no sign"):
        overlays(made, photo, scaling="none", mode="opacity")


def test_own_photos_and_frames(explanation):
    own = (Image.fromarray(np.full((2, 4), 100, np.uint8)), Image.fromarray(np.full((4, 2), 100, np.uint8)))
    made = explanation(
        [[[0, 1], [1, 0]], [[1, 1], [1, 0]]], photos=own, frames=((1.0, 0.0, 3.0, 2.0), (0.0, 2.0, 2.0, 4.0))
    )
    expected = [[[100, 50, 178, 100], [100, 178, 50, 100]], [[100, 100], [100, 100], [178, 178], [178, 50]]]
    assert [one_channel(picture) for picture in overlays(made, colormap="gray")] == expected
    assert overlays(made, [np.asarray(photo) for photo in own]) == overlays(made)
    assert overlays(made[1]) == overlays(made)[1:]


def test_a_blank_map_leaves_the_photograph_and_says_so(explanation):
    photo = np.full((120, 160, 3), 90, np.uint8)
    (drawn,) = overlays(explanation([[[0, 0], [0, 0]]]), photo, alpha=1.0)
    pixels = np.asarray(drawn)
    written = (pixels != 90).any(-1).nonzero()[0]
    assert 0 < written.max() < 40  # a line of words at the top
    assert pixels[:40].max() > 240  # white on black
    assert pixels[:40].min() == 0
    assert (pixels[40:] == 90).all()


def warned(warnings):
    return [str(warning.message) for warning in warnings]


def test_a_photograph_of_another_shape_than_the_input_is_not_stretched_in_silence(explanation, recwarn):
    made = explanation(torch.rand(2, 7, 7), size=(224, 224))
    crop, wide = np.zeros((448, 448, 3), np.uint8), np.zeros((300, 451, 3), np.uint8)
    overlays(made, [crop, crop])
    assert not recwarn.list
    stretched = overlays(made, [wide, wide])
    (told,) = warned(recwarn)
    assert "photograph of image 0 is 451 x 300, and what was explained 224 x 224" in told
    assert "frame=(0, 0, 451, 300) says that it saw all of it" in told
    recwarn.clear()
    assert overlays(made, [wide, wide], frame=(0, 0, 451, 300)) == stretched
    middle = (75.5, 0, 375.5, 300)
    drawn = overlays(made, [wide, wide], frame=middle)
    assert drawn == [overlay(wide, heat, frame=middle) for heat in made.heatmap]
    assert overlays(made, [wide, wide], frame=[middle, (0, 0, 451, 300)]) == [drawn[0], stretched[1]]
    assert not recwarn.list
    with pytest.raises(InputError, match=r"(?s)frames do not match.*2 of them"):
        overlays(made, [wide, wide], frame=[middle])


@pytest.mark.parametrize(
    ("size", "photo", "fits"),
    [
        ((224, 298), (480, 640), True),  # 298.67 rounded down
        ((224, 299), (480, 640), True),
        ((224, 302), (480, 640), False),
        ((224, 224), (640, 480), False),
        ((480, 640), (224, 298), True),
        ((2, 2), (6, 8), True),  # half a pixel is a quarter of it
    ],
)
def test_rounding_is_no_other_shape(explanation, recwarn, size, photo, fits):
    overlays(explanation(torch.rand(1, 2, 2), size=size), np.zeros((*photo, 3), np.uint8))
    assert bool(recwarn.list) is not fits


def test_a_reduced_photograph_has_its_frame_reduced(explanation, recwarn):
    """Explained was a photograph of 40 x 20 seen in columns 10 to 30; drawn on are a half of it, and its crop."""
    made = explanation([[[0, 1], [1, 0]]], photos=(Image.new("RGB", (40, 20)),), frames=((10.0, 0.0, 30.0, 20.0),))
    half = np.zeros((10, 20, 3), np.uint8)
    assert overlays(made, half) == [overlay(half, made.heatmap[0], frame=(5, 0, 15, 10))]
    assert not recwarn.list
    crop = np.zeros((20, 20, 3), np.uint8)
    assert overlays(made, crop) == [overlay(crop, made.heatmap[0])]
    (told,) = warned(recwarn)
    assert "photograph of image 0 is 20 x 20, and what was explained 40 x 20" in told


def test_photos_must_be_there_and_as_many(explanation, unchecked):
    made = explanation([[[0, 1]], [[1, 0]]])
    with pytest.raises(InputError, match=r"(?s)no photographs.*explanation\.overlay\(photos\)"):
        overlays(made)
    with pytest.raises(InputError, match=r"(?s)1 photograph\n.*expected: 2"):
        overlays(made, GREY)
    with pytest.raises(InputError, match=r"(?s)3 photographs\n.*expected: 2"):
        overlays(made, np.zeros((3, 2, 2, 3), np.uint8))
    with pytest.raises(InputTypeError, match="str"):
        overlays(made, "photos")


def test_a_volume_is_drawn_by_its_hottest_slice(explanation):
    maps = torch.zeros(1, 4, 2, 2)
    maps[0, 1] = 0.6  # most heat
    maps[0, 3, 0, 0] = 1.0  # the hottest voxel
    made = explanation(maps)
    volume = np.arange(4, dtype=np.uint8)[:, None, None] * np.full((1, 2, 2), 10, np.uint8)
    assert one_channel(overlays(made, volume, alpha=0.0)[0]) == [[10, 10], [10, 10]]
    assert one_channel(overlays(made, volume, alpha=1.0, colormap="gray")[0]) == [[153, 153], [153, 153]]
    for form in (volume[None], torch.from_numpy(volume)[None, None], torch.from_numpy(volume)[None].expand(3, 4, 2, 2)):
        last = overlays(made, form, slice_index=3, colormap="gray", alpha=0.5)[0]
        assert one_channel(last) == [[142, 15], [15, 15]]
    with pytest.raises(InputError, match=r"(?s)slice_index=4.*0 to 3"):
        overlays(made, volume, slice_index=4)
    with pytest.raises(InputError, match=r"(?s)\(3, 2, 2\).*D = 4"):
        overlays(made, volume[:3])
    with pytest.raises(InputError, match=r"(?s)PIL image.*D = 4"):
        overlays(made, Image.fromarray(GREY))
    with pytest.raises(InputError, match="images, not volumes"):
        overlays(explanation([[[0, 1]]]), GREY, slice_index=0)


@pytest.mark.parametrize("name", ["jet", "gray", "coolwarm"])
def test_own_colormaps_are_matplotlib_s(name):
    """Both tables of coolwarm are rounded to half a level of 255."""
    expected = matplotlib.colormaps[name](np.arange(256))[:, :3]
    np.testing.assert_allclose(colours(name), expected, atol=1 / 255 if name == "coolwarm" else 1e-6)


def test_overlays_do_not_import_matplotlib():
    code = """
import sys
sys.modules["matplotlib"] = None
import numpy as np, torch
from seewhy import Explanation
from seewhy.errors import MissingExtra
photo = np.zeros((8, 8, 3), np.uint8)
explanation = Explanation({"a": torch.eye(2)[None]}, torch.ones(1), None, None, "grad_cam", (8, 8))
for options in ({}, {"scaling": "none"}, {"colormap": "gray", "mode": "opacity"}):
    explanation.overlay(photo, **options)
for draw in (explanation.figure, lambda: explanation.overlay(photo, colormap="viridis")):
    try:
        draw()
    except MissingExtra as error:
        assert 'pip install "seewhy[plot]"' in str(error), error
    else:
        raise AssertionError("drawn without matplotlib")
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
