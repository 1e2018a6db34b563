"""Models of several images, or that make several of one: each map lies on the image, and the place, that it is of.

Every model looks for red with the same tower; where red was put in each image is known.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seewhy
from seewhy.errors import LayerError, MethodError

TOP_LEFT, BOTTOM_LEFT, BOTTOM_RIGHT = (4, 4), (36, 4), (36, 40)
SIDE = 16


class Tower(nn.Module):
    """Class scores of the red in images (N, 3, 64, 64)."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)
        )
        self.head = nn.Linear(8, 4)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.abs_()
            self.trunk[0].weight[:, 1:] = 0
            for layer in (0, 2, 4):
                self.trunk[layer].bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images).mean((2, 3)))


class Wrapped(nn.Module):
    """A tower, and what is done with it."""

    def __init__(self, towers: int = 1) -> None:
        super().__init__()
        self.tower = Tower()
        self.second = Tower(1) if towers > 1 else None


class Siamese(Wrapped):
    def forward(self, image: Tensor, other: Tensor) -> Tensor:
        return self.tower(image) + 2 * self.tower(other)


class Streams(Wrapped):
    def forward(self, colour: Tensor, depth: Tensor) -> Tensor:
        return self.tower(colour) + self.second(depth)


class Concatenated(Wrapped):
    def forward(self, image: Tensor, other: Tensor) -> Tensor:
        one, two = self.tower(torch.cat([image, other])).chunk(2)
        return one + 2 * two


class Interleaved(Wrapped):
    def forward(self, image: Tensor, other: Tensor) -> Tensor:
        return self.tower(torch.stack([image, other], 1).flatten(0, 1)).unflatten(0, (-1, 2)).sum(1)


class Held(Wrapped):
    """The other image is a constant of the model."""

    def forward(self, image: Tensor) -> Tensor:
        return self.tower(image) + self.tower(red(BOTTOM_RIGHT, count=1).expand_as(image))


class Frames(Wrapped):
    def forward(self, frames: Tensor) -> Tensor:
        return self.tower(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).mean(1)


class Recurrent(Wrapped):
    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.RNN(4, 8, nonlinearity="relu", batch_first=True)
        self.classifier = nn.Linear(8, 3)
        with torch.no_grad():
            for parameter in [*self.memory.parameters(), *self.classifier.parameters()]:
                parameter.abs_()  # more red in any frame is more of every class

    def forward(self, frames: Tensor) -> Tensor:
        steps, _ = self.memory(self.tower(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]))
        return self.classifier(steps.mean(1))


class Loop(Wrapped):
    """A video, frame by frame, each mirrored before it is looked at if the model was made so."""

    mirrored = False

    def forward(self, frames: Tensor) -> Tensor:
        every = frames.unbind(1)
        return torch.stack([self.tower(frame.flip(-1) if self.mirrored else frame) for frame in every]).mean(0)


class Pair(Wrapped):
    """Two images of one tensor; only those at the ends of a video are seen."""

    def forward(self, frames: Tensor) -> Tensor:
        return 2 * self.tower(frames[:, 0]) + self.tower(frames[:, -1])


class Slices(Wrapped):
    """A volume (B, 3, D, H, W), slice by slice."""

    def forward(self, volume: Tensor) -> Tensor:
        slices = volume.transpose(1, 2)
        return self.tower(slices.flatten(0, 1)).unflatten(0, slices.shape[:2]).mean(1)


class Flipped(Wrapped):
    def forward(self, images: Tensor) -> Tensor:
        return self.tower(torch.cat([images, images.flip(-1)])).unflatten(0, (2, -1)).mean(0)


class FlippedCalls(Wrapped):
    def forward(self, images: Tensor) -> Tensor:
        return self.tower(images) + self.tower(images.flip(-1))


class Halves(Wrapped):
    """Each tower sees one half of the image, the other half is black."""

    def forward(self, images: Tensor) -> Tensor:
        left = (torch.arange(64) < 32).float()
        return self.tower(images * left) + self.second(images * (1 - left))


def red(*corners: tuple[int, int], count: int = 2) -> Tensor:
    """Images (count, 3, 64, 64) of a little noise with a red square at each corner, (row, column)."""
    images = 0.02 * torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for row, column in corners:
        images[:, 0, row : row + SIDE, column : column + SIDE] = 1
    return images


def share(heat: Tensor, corner: tuple[int, int]) -> float:
    """The least share, of all maps, of the heat that lies around a square, to within a cell of the grid."""
    row, column = (max(0, side - 4) for side in corner)
    inside = heat[..., row : corner[0] + SIDE + 4, column : corner[1] + SIDE + 4].sum((-2, -1))
    return float((inside / heat.sum((-2, -1))).min())


METHODS = pytest.mark.parametrize("method", ["grad_cam", "layer_cam", "smooth_grad_cam_plus_plus"])


@pytest.mark.few(3)
@METHODS
@pytest.mark.parametrize("kind", [Siamese, Streams, Concatenated, Interleaved])
def test_several_images_have_a_map_each(kind: Callable[..., nn.Module], method: str) -> None:
    images = red(TOP_LEFT), red(BOTTOM_RIGHT)
    found = seewhy.explain(kind(2) if kind is Streams else kind(), images, 0, method=method)
    first, second = found.images
    assert (first, second) == (("colour", "depth") if kind is Streams else ("image", "other"))
    assert share(found.heatmap, TOP_LEFT) > 0.8
    assert share(found.images[second].heatmap, BOTTOM_RIGHT) > 0.8
    assert found[1:].images[second].heatmap.shape == (1, 64, 64)


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("kind", "method"), [(Siamese, "ablation_cam"), (Siamese, "occlusion"), (Concatenated, "occlusion")]
)
def test_so_they_have_by_perturbation(kind: Callable[[], nn.Module], method: str) -> None:
    options = {"window": 16, "stride": 16} if method == "occlusion" else {}
    found = seewhy.explain(kind(), (red(TOP_LEFT), red(BOTTOM_RIGHT)), 0, method=method, **options)
    assert share(found.heatmap, TOP_LEFT) > 0.6
    assert share(found.images["other"].heatmap, BOTTOM_RIGHT) > 0.6


def test_a_layer_named_by_the_caller_is_drawn_on_the_image_that_it_saw() -> None:
    found = seewhy.explain(Streams(2), (red(TOP_LEFT), red(BOTTOM_RIGHT)), 0, method="grad_cam", layers="second.trunk")
    assert list(found.images) == ["depth"]
    assert share(found.heatmap, BOTTOM_RIGHT) > 0.8


def test_a_check_changes_the_image_that_the_map_lies_on() -> None:
    model, images = Siamese(), (red(TOP_LEFT), red(BOTTOM_RIGHT))
    found = seewhy.explain(model, images, 0, method="grad_cam").images["other"]
    assert found.check(redraw=False).p_value.max() < 0.1
    elsewhere = seewhy.explain(model, (red(BOTTOM_LEFT), red(TOP_LEFT)), 0, method="grad_cam").images["other"]
    with pytest.warns(match="chance"):
        assert elsewhere.check(model, images, redraw=False).p_value.min() > 0.1


@pytest.mark.slow
def test_an_image_that_the_model_holds_has_no_map() -> None:
    found = seewhy.explain(Held(), red(TOP_LEFT), 0, method="grad_cam")
    assert share(found.heatmap, TOP_LEFT) > 0.8


@pytest.mark.few(2)
@METHODS
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("kind", [Frames, Recurrent])
def test_frames_in_the_batch_have_a_map_each(kind: Callable[[], nn.Module], count: int, method: str) -> None:
    """Three frames of three channels are no volume of three slices."""
    corners = [TOP_LEFT, BOTTOM_RIGHT, BOTTOM_LEFT][:count]
    video = torch.stack([red(corner) for corner in corners], 1)
    found = seewhy.explain(kind(), video, 0, method=method)
    assert found.heatmap.shape == (2, count, 64, 64)
    for frame, corner in enumerate(corners):
        assert share(found.heatmap[:, frame], corner) > 0.75


@pytest.mark.few(2)
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("count", [2, 3, 12])
def test_frames_that_are_looked_at_one_by_one(count: int, mirrored: bool) -> None:
    corners = [(TOP_LEFT, BOTTOM_RIGHT, BOTTOM_LEFT)[frame % 3] for frame in range(count)]
    model = Loop()
    model.mirrored = mirrored
    found = seewhy.explain(model, torch.stack([red(corner) for corner in corners], 1), 0, method="grad_cam")
    assert found.layers == ("tower.trunk",)
    assert found.heatmap.shape == (2, count, 64, 64)
    for frame, corner in enumerate(corners):
        assert share(found.heatmap[:, frame], corner) > 0.75


def test_a_frame_that_nobody_looked_at_is_blank() -> None:
    video = torch.stack([red(TOP_LEFT), red(BOTTOM_LEFT), red(BOTTOM_RIGHT)], 1)
    found = seewhy.explain(Pair(), video, 0, method="grad_cam")
    assert share(found.heatmap[:, 0], TOP_LEFT) > 0.75
    assert share(found.heatmap[:, 2], BOTTOM_RIGHT) > 0.75
    assert found.maps["tower.trunk"][:, 1].abs().max() == 0


def test_a_map_on_the_input_has_the_frames_before_the_places() -> None:
    video = torch.stack([red(TOP_LEFT), red(BOTTOM_RIGHT), red(BOTTOM_LEFT)], 1)
    found = seewhy.explain(Frames(), video, 0, method="input_x_gradient")
    for frame, corner in enumerate([TOP_LEFT, BOTTOM_RIGHT, BOTTOM_LEFT]):
        assert share(found.heatmap[:, frame], corner) > 0.8


def test_slices_of_a_volume_are_frames_of_it() -> None:
    volume = torch.stack([red(TOP_LEFT), red(BOTTOM_RIGHT), red(BOTTOM_LEFT)], 2)
    found = seewhy.explain(Slices(), volume, 0, method="grad_cam")
    assert found.heatmap.shape == (2, 3, 64, 64)
    for number, corner in enumerate([TOP_LEFT, BOTTOM_RIGHT, BOTTOM_LEFT]):
        assert share(found.heatmap[:, number], corner) > 0.8


@pytest.mark.few(3)
@METHODS
@pytest.mark.parametrize("kind", [Flipped, FlippedCalls])
def test_views_of_an_image_lie_where_the_evidence_is(kind: Callable[[], nn.Module], method: str) -> None:
    """The mirrored view is mirrored back; the maps of both views add up, and each has half of the heat."""
    found = seewhy.explain(kind(), red(TOP_LEFT), 0, method=method)
    assert len(found.layers) == 2
    assert found.fuse == "sum"
    assert share(found.heatmap, TOP_LEFT) > 0.8


@pytest.mark.parametrize("method", ["grad_cam", "ablation_cam"])
def test_quarters_that_are_looked_at_one_by_one_are_one_map(method: str) -> None:
    """The first one has run before a quarter of the forward has."""

    class Quarters(Wrapped):
        def forward(self, images: Tensor) -> Tensor:
            return sum(self.tower(part) for half in images.chunk(2, 2) for part in half.chunk(2, 3))  # type: ignore

    for corner in (TOP_LEFT, BOTTOM_RIGHT):
        found = seewhy.explain(Quarters(), red(corner), 0, method=method)
        assert found.layers == tuple(f"tower.trunk#{number}" for number in range(4))
        assert found.heatmap.shape == (2, 64, 64)
        assert share(found.heatmap, corner) > 0.8


def test_the_first_of_many_towers_has_its_part() -> None:
    """It ends in the first tenth of the forward, and is the only one that sees the red."""

    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.towers = nn.ModuleList(Tower(seed) for seed in range(5))

        def forward(self, images: Tensor) -> Tensor:
            left = (torch.arange(64) < 32).float()
            first, *others = self.towers
            return first(images * left) + sum(tower(images * (1 - left)) for tower in others)

    found = seewhy.explain(Many(), red(TOP_LEFT), 0, method="grad_cam")
    assert len(found.layers) == 5
    assert share(found.heatmap, TOP_LEFT) > 0.6  # the other four see a little noise each


def test_a_model_that_looks_where_it_finds_something_is_seen_to_for_each_image() -> None:
    class Finds(Wrapped):
        """Zooms to the quarter that is brightest."""

        def forward(self, images: Tensor) -> Tensor:
            parts = torch.stack([part for half in images.chunk(2, 2) for part in half.chunk(2, 3)], 1)
            found = parts.mean((2, 3, 4)).argmax(1)
            brightest = torch.stack([part[number] for part, number in zip(parts, found.tolist(), strict=True)])
            return self.tower(F.interpolate(brightest, size=(64, 64)))

    explainer = seewhy.Explainer(Finds(), "grad_cam")
    for corner in (TOP_LEFT, BOTTOM_RIGHT, TOP_LEFT):
        assert share(explainer(red(corner, count=1), 0).heatmap, corner) > 0.8
    with pytest.raises(LayerError, match="what an image shows decides where the model looks"):
        explainer(torch.cat([red(TOP_LEFT, count=1), red(BOTTOM_RIGHT, count=1)]), 0)


def test_what_passes_beside_a_layer_is_explained_with_it() -> None:
    """HiResCAM is exact here: each tower's part of the heat is its part of the score that comes from the image."""
    model, images = Halves(2), red(TOP_LEFT, BOTTOM_RIGHT)
    found = seewhy.explain(model, images, 0, method="hires_cam")
    assert found.layers == ("tower.trunk", "second.trunk")
    assert "beside it through tower.trunk" in found.note
    heat = found.scaled("none").clamp(min=0)
    with torch.no_grad():
        parts = [model(images * half) - model(0 * images) for half in ((torch.arange(64) < 32).float(),)]
        whole = model(images) - model(0 * images)
    expected = parts[0][:, 0] / whole[:, 0]
    left = heat[..., :32].sum((-2, -1)) / heat.sum((-2, -1))
    torch.testing.assert_close(left, expected, atol=0.03, rtol=0)


def test_what_no_layer_holds_is_said() -> None:
    """A head reads an early layer too. Without biases the score is the sum of what comes by both ways."""

    class Skip(Wrapped):
        def ways(self, images: Tensor) -> tuple[Tensor, Tensor]:
            early = self.tower.trunk[:2](images)
            return self.tower.trunk[2:](early).mean((2, 3)), early.mean((2, 3))

        def forward(self, images: Tensor) -> Tensor:
            late, early = self.ways(images)
            return late + 10 * early

    model, images = Skip(), red(TOP_LEFT)
    found = seewhy.explain(model, images, 0, method="grad_cam")
    late, _ = model.ways(images)
    share = float(1 - late[:, 0].sum() / model(images)[:, 0].sum())
    assert found.layers == ("tower.trunk.4",)
    assert 0.2 < share < 0.8
    assert f"{share:.0%} of what the image says to the score passes beside it" in found.note
    assert "beside" not in seewhy.explain(model.tower, images, 0, method="grad_cam").note


def test_of_two_heads_only_what_speaks_for_the_score_counts() -> None:
    class Heads(Wrapped):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"logits": self.tower(images), "other": self.second(images)}

    found = seewhy.explain(Heads(2), red(TOP_LEFT), 0, method="grad_cam", output="logits")
    assert found.layers == ("tower.trunk",)


def test_methods_that_cannot_tell_rows_apart_refuse() -> None:
    with pytest.raises(MethodError, match="several of one"):
        seewhy.explain(Flipped(), red(TOP_LEFT), 0, method="score_cam")


def test_a_named_layer_that_never_saw_the_image_is_refused() -> None:
    class Constant(Wrapped):
        def forward(self, image: Tensor, other: Tensor) -> Tensor:
            return self.tower(image) + other.mean((1, 2, 3))[:, None] + self.second(red(TOP_LEFT, count=1))

    with pytest.raises(LayerError, match=r"second\.trunk"):
        seewhy.explain(Constant(2), (red(TOP_LEFT), red(TOP_LEFT)), 0, method="grad_cam", layers="second.trunk")
