"""Winograd's convolutions against direct ones in float64, and where they do not apply."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import weight_norm

import seewhy
from seewhy.engine.winograd import winograd


def channels_last(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last)


def convolution(*, wide: int = 128, **options: object) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(128, wide, 3, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("padding", [0, 1, (2, 1), "same", "valid"])
@pytest.mark.parametrize("size", [(7, 7), (8, 14), (13, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_values_are_those_of_the_direct_convolution(
    size: tuple[int, int], padding: int | tuple[int, int] | str, bias: bool
) -> None:
    module, images = convolution(wide=160, padding=padding, bias=bias), channels_last(16, 128, *size)
    exact = copy.deepcopy(module).double()(images.double())
    with torch.no_grad():
        direct = module(images)
        with winograd(module):
            found = module(images)
    assert not torch.equal(found, direct)  # another sum of products did run
    assert found.is_contiguous(memory_format=torch.channels_last)
    # the paper's F(4 x 4, 3 x 3) multiplies rounding by its constants, up to 64 in a row of A' (x) A'
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-5 * float(exact.detach().abs().max()))


def test_a_tile_by_hand() -> None:
    """Ones everywhere: 128 channels x 9 weights inside, x 6 along an edge, x 4 in a corner."""
    module = convolution(padding=1, bias=False)
    nn.init.ones_(module.weight)
    with torch.no_grad(), winograd(module):
        found = module(torch.ones(8, 128, 8, 8).contiguous(memory_format=torch.channels_last))
    for row, column, weights in ((0, 0, 4), (0, 3, 6), (4, 7, 6), (4, 4, 9)):
        torch.testing.assert_close(found[:, :, row, column], torch.full((8, 128), 128.0 * weights), rtol=1e-5, atol=0)


class Halved(nn.Conv2d):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) / 2


@pytest.mark.parametrize(
    ("module", "images"),
    [
        pytest.param(convolution(stride=2), channels_last(16, 128, 16, 16), id="stride"),
        pytest.param(convolution(dilation=2), channels_last(16, 128, 16, 16), id="dilation"),
        pytest.param(convolution(groups=2), channels_last(16, 128, 16, 16), id="groups"),
        pytest.param(convolution(padding=1, padding_mode="reflect"), channels_last(16, 128, 16, 16), id="reflected"),
        pytest.param(convolution(wide=64), channels_last(16, 128, 16, 16), id="few channels"),
        pytest.param(convolution(), channels_last(1, 128, 8, 8), id="few tiles"),
        pytest.param(convolution(), channels_last(16, 128, 16, 16).contiguous(), id="channels first"),
        pytest.param(convolution().double(), channels_last(16, 128, 16, 16).double(), id="float64"),
        pytest.param(weight_norm(convolution()), channels_last(16, 128, 16, 16), id="weights made for each call"),
        pytest.param(Halved(128, 128, 3), channels_last(16, 128, 16, 16), id="subclass"),
    ],
)
def test_what_it_is_not_made_for_runs_as_it_is(module: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        direct = module(images)
        with winograd(module):
            assert torch.equal(module(images), direct)


def test_graphs_and_autocast_are_left_alone() -> None:
    module, images = convolution(), channels_last(16, 128, 16, 16)
    direct = module(images)
    with winograd(module):
        assert torch.equal(module(images), direct)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = module(images)
        with winograd(module):
            assert torch.equal(module(images), half)


def test_score_cam_through_it_is_that_of_float64() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 128, 3, padding=1, stride=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 5),
    )  # fmt: skip
    with torch.no_grad():
        model[6].weight.mul_(100)  # so that the softmax over channels tells them apart
    images = torch.randn(1, 3, 12, 16)
    found = seewhy.explain(model, images, 2, method="score_cam", layers="1")
    exact = seewhy.explain(copy.deepcopy(model).double(), images.double(), 2, method="score_cam", layers="1")
    # scores differ by 1e-5 of the largest, which the softmax hands on
    torch.testing.assert_close(found.heatmap.double(), exact.heatmap.double(), rtol=0, atol=1e-4)
    assert "forward" not in vars(model[2])


class Written(nn.Module):
    """A forward that writes its convolution's weights between two calls, in one of the ways that torch has."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.how = convolution(padding=1), how

    def forward(self, image: Tensor) -> Tensor:
        before = self.conv(image)
        self.scale(0.5)
        after = self.conv(image)
        self.scale(2)
        return before + after

    def scale(self, factor: float) -> None:
        with torch.no_grad():
            if self.how == "mul_":
                self.conv.weight.mul_(factor)
            elif self.how == "data.mul_":
                self.conv.weight.data.mul_(factor)
            else:
                self.conv.weight.data = self.conv.weight.data * factor


@pytest.mark.parametrize("how", ["mul_", "data.mul_", "data ="])
def test_weights_that_the_forward_writes_count(how: str) -> None:
    """The first call's weights halved: 1.5 times the convolution, up to its bias."""
    model, images = Written(how), channels_last(8, 128, 8, 8)
    with torch.no_grad():
        direct = model(images)
        with winograd(model):
            found = model(images)
    torch.testing.assert_close(found, direct, rtol=0, atol=2e-5 * float(direct.abs().max()))


def doubled(module: nn.Conv2d, attribute: str) -> nn.Conv2d:
    own = getattr(module, attribute)
    setattr(module, attribute, lambda *arguments: own(*arguments) * 2)
    return module


@pytest.mark.parametrize("attribute", ["forward", "_conv_forward"])
def test_an_instance_with_another_forward_runs_as_it_is(attribute: str) -> None:
    module, images = doubled(convolution(), attribute), channels_last(16, 128, 8, 8)
    with torch.no_grad():
        direct = module(images)
        with winograd(module):
            assert torch.equal(module(images), direct)


def test_a_class_with_another_forward_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    own = nn.Conv2d._conv_forward
    monkeypatch.setattr(nn.Conv2d, "_conv_forward", lambda *arguments: own(*arguments) * 2)
    module, images = convolution(), channels_last(16, 128, 8, 8)
    with torch.no_grad():
        direct = module(images)
        with winograd(module):
            assert torch.equal(module(images), direct)


def test_an_infinity_stays_where_it_is() -> None:
    module, images = convolution(padding=1), channels_last(8, 128, 8, 8)
    images[0, 0, 4, 4] = torch.inf
    with torch.no_grad():
        direct = module(images)
        with winograd(module):
            found = module(images)
    assert torch.equal(found, direct)
    assert int(found.isinf().sum()) == 9 * 128
