"""Models whose images see each other in a batch: each image has the map that it has alone, and a warning says so."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import ReplayWarning

pytestmark = pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")


class Base(nn.Module):
    """Two convolutions, a mean, something that `mixes` images, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)
        self.norm = nn.BatchNorm2d(6, track_running_stats=False)
        self.experts, self.gate = nn.ModuleList([nn.Linear(6, 6) for _ in range(2)]), nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.mixed(self.second(self.first(images).relu())))

    def mixed(self, x: Tensor) -> Tensor:
        return x.relu().mean((2, 3))


class Statistics(Base):
    """BatchNorm over the batch."""

    def mixed(self, x: Tensor) -> Tensor:
        return self.norm(x).relu().mean((2, 3))


class Attends(Base):
    """Attention over the batch."""

    def mixed(self, x: Tensor) -> Tensor:
        vectors = super().mixed(x)
        return torch.softmax(5 * vectors @ vectors.T, -1) @ vectors


class Capacity(Base):
    """Each expert takes half of the images at most, and those that came first; the others pass as they are."""

    def mixed(self, x: Tensor) -> Tensor:
        vectors = super().mixed(x)
        chosen, answers = self.gate(vectors).argmax(1), vectors.clone()
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero()[:, 0][: max(1, len(x) // 2)]
            answers[rows] = expert(vectors[rows])
        return answers


def built(kind: type[Base]) -> Base:
    torch.manual_seed(0)
    return kind().eval()


@pytest.fixture
def images() -> Tensor:
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    images[1] *= 3
    return images


@pytest.mark.few(3)
@pytest.mark.parametrize("method", ["hires_cam", "ablation_cam", "occlusion"])
@pytest.mark.parametrize("kind", [Statistics, Attends, Capacity])
def test_a_batch_has_the_maps_of_its_images_alone(kind: type[Base], method: str, images: Tensor) -> None:
    """What an image is worth alone is told one row at a time: no company in the forwards of the oracle."""
    model = built(kind)
    layers = {} if method == "occlusion" else {"layers": "second"}
    with pytest.warns(ReplayWarning, match="depend on each other"):
        found = seewhy.explain(model, images, 1, method=method, **layers)
    for row in range(len(images)):
        alone = seewhy.explain(built(kind), images[row : row + 1], 1, method=method, batch_size=1, **layers)
        for label, grid in alone.maps.items():
            torch.testing.assert_close(found.maps[label][row], grid[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.scores[row], model(images[row : row + 1])[0, 1])


def test_targets_of_each_image_and_functions_stay_with_their_image(images: Tensor) -> None:
    model, rows = built(Statistics), torch.arange(4)
    classes = [0, 2, 1, 3]
    with pytest.warns(ReplayWarning):
        listed = seewhy.explain(model, images, classes, method="hires_cam", layers="second")
    with pytest.warns(ReplayWarning):
        function = seewhy.explain(model, images, lambda o: o[rows, classes], method="hires_cam", layers="second")
    for row, number in enumerate(classes):
        alone = seewhy.explain(model, images[row : row + 1], number, method="hires_cam", layers="second")
        torch.testing.assert_close(listed.maps["second"][row], alone.maps["second"][0])
        torch.testing.assert_close(function.maps["second"][row], alone.maps["second"][0])


def test_it_is_tried_once_for_a_model_and_shape_and_costs_three_images(images: Tensor) -> None:
    model, ran = built(Base), []
    model.first.register_forward_hook(lambda _, __, output: ran.append(len(output)))
    for _ in range(2):
        seewhy.explain(model, images, 1, method="hires_cam", layers="second")
    assert ran == [4, 4, 3, 4]  # the record, how the layer lies, the last and the first image; then the record


class Ordered(Base):
    """Runs its batch in another order: as sorted by their brightness, or the last one first. Answers stay in place."""

    by_brightness = True

    def forward(self, images: Tensor) -> Tensor:
        order = images.mean((1, 2, 3)).argsort() if self.by_brightness else torch.arange(len(images)).flip(0)
        return super().forward(images[order])[order.argsort()]


@pytest.mark.parametrize("by_brightness", [True, False])
def test_a_batch_that_runs_in_another_order_has_the_maps_of_its_images_alone(by_brightness: bool) -> None:
    """The first batch comes in the order in which the model runs it, so that only a later one would show it."""
    model = built(Ordered)
    model.by_brightness = by_brightness
    images = (
        torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(3))
        * torch.tensor([0.1, 1, 5])[:, None, None, None]
    )
    for batch in (images, images[[2, 0, 1]]):
        with pytest.warns(ReplayWarning, match="depend on each other"):
            found = seewhy.explain(model, batch, 1, method="hires_cam", layers="second").maps["second"]
        for row, image in enumerate(batch):
            alone = seewhy.explain(built(Base), image[None], 1, method="hires_cam", layers="second")
            torch.testing.assert_close(found[row], alone.maps["second"][0], rtol=1e-4, atol=1e-6)


class Counts(Base):
    """Its scores grow from call to call."""

    calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(images) * self.calls


@pytest.mark.parametrize("method", ["ablation_cam", "occlusion"])
def test_a_model_that_counts_is_not_called_right(method: str, images: Tensor) -> None:
    with pytest.warns(ReplayWarning, match="the map may be wrong"):
        seewhy.explain(built(Counts), images[:1], 1, method=method)


def test_a_model_that_does_not_mix_is_run_in_batches_without_a_word(images: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ReplayWarning)
        for method in ("hires_cam", "ablation_cam", "occlusion"):
            seewhy.explain(built(Base), images, 1, method=method)
