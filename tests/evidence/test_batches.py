"""Models that run a batch in parts, or take one size of it only: images have the maps that the plain model gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import LayerError, OutputError

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(6, 4)

    def scores(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images).mean((2, 3)))

    def forward(self, images: Tensor) -> Tensor:
        return self.scores(images)


class InTurn(Net):
    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.scores(image[None]) for image in images])


class InPairs(Net):
    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.scores(part) for part in images.split(2)])


class WithAnother(Net):
    """One more image stands before those of the batch."""

    def forward(self, images: Tensor) -> Tensor:
        return self.scores(torch.cat([torch.zeros_like(images[:1]), images]))[1:]


class Fixed(Net):
    """Takes batches of three, as an exported model does."""

    def forward(self, images: Tensor) -> Tensor:
        return self.scores(images.reshape(3, 3, 16, 16))


class Remembered(Net):
    """Gives its first answer again and again."""

    kept: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        if self.kept is None:
            self.kept = self.scores(images)
        return self.kept


@pytest.mark.parametrize("kind", [InTurn, InPairs])
@pytest.mark.parametrize("layers", [None, "trunk"])
def test_a_batch_that_runs_in_parts_has_the_maps_of_the_plain_model(
    kind: Callable[[], Net], layers: str | None
) -> None:
    found = seewhy.explain(kind(), IMAGES, [0, 2, 1], method="hires_cam", layers=layers)
    expected = seewhy.explain(Net(), IMAGES, [0, 2, 1], method="hires_cam", layers="trunk")
    torch.testing.assert_close(found.maps["trunk"], expected.maps["trunk"])
    assert "in parts" in found.note
    assert found.targets.index.tolist() == [0, 2, 1]


def test_an_image_beside_those_of_the_batch_has_no_map() -> None:
    found = seewhy.explain(WithAnother(), IMAGES, 1, method="hires_cam")
    expected = seewhy.explain(Net(), IMAGES, 1, method="hires_cam", layers="trunk")
    assert found.layers == ("trunk:1",)
    torch.testing.assert_close(found.maps["trunk:1"], expected.maps["trunk"])


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("hires_cam", {}),
        ("ablation_cam", {}),
        ("score_cam", {}),
        ("occlusion", {"window": 4, "stride": 4}),
        ("rise", {"masks": 20}),
        ("smooth_grad", {"samples": 4}),
        ("integrated_gradients", {"steps": 8}),
    ],
)
def test_a_model_of_one_size_of_batch_has_the_maps_of_the_plain_model(method: str, options: dict[str, int]) -> None:
    found = seewhy.explain(Fixed(), IMAGES, 1, method=method, **options)
    expected = seewhy.explain(Net(), IMAGES, 1, method=method, **options)
    (one,), (other,) = found.maps.values(), expected.maps.values()
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_model_that_answers_from_memory_is_told() -> None:
    with pytest.raises(OutputError, match="does not answer to each image"):
        seewhy.explain(Remembered(), IMAGES, 1, method="ablation_cam", layers="trunk")


def test_a_layer_inside_a_transform_of_functions_is_refused() -> None:
    class Mapped(Net):
        def forward(self, images: Tensor) -> Tensor:
            return torch.vmap(lambda image: self.scores(image[None])[0])(images)

    with pytest.raises(LayerError, match=r"inside a transform of torch\.func"):
        seewhy.explain(Mapped(), IMAGES[:1], 1, method="hires_cam")
    found = seewhy.explain(Mapped(), IMAGES, 1, method="input_x_gradient")
    expected = seewhy.explain(Net(), IMAGES, 1, method="input_x_gradient")
    torch.testing.assert_close(found.maps["input"], expected.maps["input"])
