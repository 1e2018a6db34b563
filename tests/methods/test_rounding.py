"""What is rounding is told from what is small: the same rule at every size, layer and method."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import seewhy
from seewhy import methods
from seewhy.methods.rounding import is_even, is_noise, rounding

GRADIENTS = [
    "grad_cam", "hires_cam", "grad_cam_elementwise", "grad_cam_plus_plus", "x_grad_cam", "layer_cam", "eigen_grad_cam",
    "seg_eigen_cam", "seg_xres_cam", "odam", "smooth_grad_cam_plus_plus",
]  # fmt: skip


def net(channels: int, after: nn.Module) -> nn.Sequential:
    """The second convolution's mean is taken off by the norm; whether more than that is read, `after` says."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1),
        nn.InstanceNorm2d(channels), after, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5),
    ).eval()  # fmt: skip


def images(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def judged(model, batch, method, layer="2", channels=1) -> list[bool]:
    found = seewhy.explain(model, batch, 1, method=method, layers=layer)
    (maps,) = found.maps.values()
    size = found.outputs.abs().amax(1)
    return is_noise(methods.get(method), maps.flatten(1), size, channels).tolist()


@pytest.mark.few(8)
@pytest.mark.parametrize(("side", "channels"), [(16, 8), (64, 32)])
@pytest.mark.parametrize("method", GRADIENTS)
@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_the_gradient_of_a_mean_that_a_norm_takes_off_is_rounding(method, side, channels):
    """The mean of an InstanceNorm's output is 0 whatever it is given. With a ReLU between there is something to see."""
    assert judged(net(channels, nn.Identity()), images(side), method, channels=channels) == [True, True]
    if method != "grad_cam":  # the norm takes the mean of the gradient off as well
        assert judged(net(channels, nn.ReLU()), images(side), method, channels=channels) == [False, False]


def test_grad_cam_before_an_instance_norm_is_rounding_whatever_follows():
    """The gradients that arrive before it have a mean of 0 over the places; that mean is all that Grad-CAM reads."""
    assert judged(net(8, nn.ReLU()), images(16), "grad_cam", channels=8) == [True, True]


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize("method", ["grad_cam", "layer_cam"])
@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_small_is_not_rounding(method, scale):
    """Weights of the head times a factor: the map and the score shrink alike, and the verdict stays."""
    model = net(8, nn.ReLU())
    model[-1].weight.data *= scale
    model[-1].bias.data.zero_()
    assert judged(model, images(16), method, layer="4", channels=8) == [False, False]


def test_the_mean_over_channels_behind_a_layer_norm_is_rounding():
    layer = torch.nn.functional.layer_norm(torch.randn(2, 5, 6, 64), (64,)).movedim(-1, 1)
    size = layer.abs().mean(1).flatten(1).amax(1)
    for shift, expected in ((0.0, True), (torch.linspace(0, 1e-3, 6), False)):
        found = methods.get("lafam").function(layer + shift).flatten(1)
        assert is_noise(methods.get("lafam"), found, size, 64).tolist() == [expected] * 2


@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_masks_on_a_black_image_change_nothing():
    model, black = net(8, nn.ReLU()), torch.zeros(2, 3, 16, 16)
    batch = torch.cat([black[:1], images(16)[:1]])
    found = seewhy.explain(model, batch, 1, method="rise", masks=50)
    verdict = is_noise(methods.get("rise"), found.maps["input"].flatten(1), found.outputs.abs().amax(1))
    assert verdict.tolist() == [True, False]


def test_even_maps_by_hand():
    """An ulp of 1 is 1.2e-7. Four are allowed; zeros are another matter; the size does not count."""
    ulp = torch.finfo(torch.float32).eps
    maps = torch.tensor([[1.0, 1 + ulp], [1.0, 1 + 16 * ulp], [0.0, 0.0], [-1.0, 1.0], [2.0, 2.0]])
    assert is_even(maps).tolist() == [True, False, False, False, True]
    assert is_even(maps * 1e-20).tolist() == [True, False, False, False, True]
    assert is_even(maps[None].expand(3, -1, -1)).shape == (3, 5)


def test_rounding_by_hand():
    """4 sqrt(n) eps times the size: 4 x 10 x 2^-23 x 3; eight bits of bfloat16 are 2^-7, of each number alone."""
    torch.testing.assert_close(rounding(torch.tensor([3.0]), 100), torch.tensor([120 * 2.0**-23]))
    torch.testing.assert_close(rounding(torch.tensor([3.0]), 100, torch.bfloat16), torch.tensor([12 * 2.0**-7]))


def warned(model, batch, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (maps,) = seewhy.explain(model, batch, 1, **options).maps.values()
    return maps, [str(one.message) for one in caught if issubclass(one.category, seewhy.errors.MapWarning)]


@pytest.mark.parametrize("method", ["grad_cam", "hires_cam", "layer_cam", "grad_cam_plus_plus"])
def test_a_map_of_rounding_is_warned_of_and_blank(method):
    maps, said = warned(net(8, nn.Identity()), images(16), layers="2", method=method)
    assert not maps.any()
    (one,) = said  # and not that it is zero everywhere: it was made so
    assert f"the {method} map of 2 is rounding" in one


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_ordinary_maps_are_not_warned_of_however_small(dtype, scale, bias):
    """With a bias of 1 a map of 1e-6 is below the rounding of the output, and as exact as any."""
    model = net(8, nn.ReLU())
    model[-1].weight.data *= scale
    model[-1].bias.data.fill_(bias)
    maps, said = warned(model.to(dtype), images(16).to(dtype), layers="4", method="layer_cam")
    assert said == []
    assert maps.flatten(1).any(1).all()


def test_an_image_of_zeros_is_warned_of_and_blank():
    batch = torch.cat([torch.zeros(1, 3, 16, 16), images(16)])
    maps, said = warned(net(8, nn.ReLU()), batch, layers="1", method="layer_cam")
    assert maps.flatten(1).any(1).tolist() == [False, True, True]
    (one,) = said
    assert "zero everywhere for image 0: look at how the image was read" in one


def test_images_that_are_explained_alone_keep_their_numbers_and_are_warned_of_once():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), *net(4, nn.ReLU())[-3:])
    batch = torch.cat([images(16), torch.zeros(1, 3, 16, 16)])
    maps, said = warned(model, batch, layers="0", method="lafam")
    assert not maps[2].any()
    (one,) = [text for text in said if "map of" in text]
    assert "for image 2:" in one


@pytest.mark.parametrize("method", ["guided_backprop", "eigen_cam", "grad_cam"])
def test_an_image_with_a_nan_has_no_map_and_the_others_have_theirs(method):
    broken = images(16)
    broken[1, 0, 3, 3] = torch.nan
    model = nn.Sequential(*list(net(8, nn.ReLU()))[:3], nn.ReLU(), *list(net(8, nn.ReLU()))[5:])
    maps, said = warned(model, broken, method=method)
    assert maps[1].isnan().all()
    assert any("not finite for image 1" in one for one in said)
    alone, _ = warned(model, broken[:1], method=method)
    torch.testing.assert_close(maps[:1], alone)
