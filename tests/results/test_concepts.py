"""Deep feature factorization through a model: where concepts are, which classes they speak for, and the figure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.errors import InputError, LayerError
from seewhy.render import _concepts as drawing


class Painter(nn.Module):
    """Its layer returns the image's three colours as channels; classes 0 to 2 are the means of these, doubled."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight.data = torch.cat([2 * torch.eye(3), torch.zeros(1, 3)])

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.layer(image).mean((-2, -1)))


def scene() -> Tensor:
    """Two images of 4x6: the first half red (4) and half green (2), the second green (1) and in one corner blue (3)."""
    images = torch.zeros(2, 3, 4, 6)
    images[0, 0, :, :3], images[0, 1, :, 3:] = 4, 2
    images[1, 1] = 1
    images[1, :, 0, 0] = torch.tensor([0.0, 0.0, 3.0])
    return images


def test_concepts_are_found_in_all_images_together():
    found = seewhy.concepts(Painter(), scene(), count=3, layers="layer")
    expected = scene()[:, [0, 1, 2]]  # by amount: red 48, green 24 + 23, blue 3
    torch.testing.assert_close(found.maps, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.vectors, torch.eye(3), atol=1e-4, rtol=1e-4)
    assert found.layer == "layer"


def test_scores_are_those_of_a_picture_of_the_concept_alone():
    """As strong everywhere as at its strongest: red 4, green 2, blue 3; the classes' scores are twice that."""
    found = seewhy.concepts(Painter(), scene(), count=3, layers="layer")
    expected = torch.tensor([[8.0, 0, 0, 0], [0, 4, 0, 0], [0, 0, 6, 0]])
    torch.testing.assert_close(found.scores, expected, atol=1e-3, rtol=1e-3)


def test_heatmaps_are_comparable_between_images():
    found = seewhy.concepts(Painter(), scene(), count=3, layers="layer")
    torch.testing.assert_close(found.heatmaps[:, 1], scene()[:, 1] / 2, atol=1e-4, rtol=1e-4)


def test_scores_of_a_convolutional_network_are_its_heads_of_the_vectors():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    images = torch.randn(3, 3, 16, 16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = seewhy.concepts(model, images, count=4)
    assert found.layer == "1"
    strength = found.maps.amax((0, 2, 3))[:, None]
    torch.testing.assert_close(found.scores, model[4](found.vectors * strength).detach(), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class Tokens(nn.Module):
    """(B, 1 + 24, 3) tokens; the score of class k is a colour's mean, and 10 times the class token for class 3."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        patches = image.flatten(2).mT
        tokens = self.layer(torch.cat([torch.ones_like(patches[:, :1]), patches], 1))
        return torch.cat([tokens[:, 1:].mean(1), 10 * tokens[:, :1].mean(-1)], 1)


def test_what_is_no_place_of_the_grid_stays_as_it_was():
    """A class token of 1 goes on beside the concept: 10 in every score of class 3."""
    grid = lambda tokens: tokens[:, 1:].mT.unflatten(2, (4, 6))  # noqa: E731
    found = seewhy.concepts(Tokens(), scene(), count=3, layers="layer", grid=grid)
    expected = torch.tensor([[4.0, 0, 0, 10], [0, 2, 0, 10], [0, 0, 3, 10]])
    torch.testing.assert_close(found.scores, expected, atol=1e-3, rtol=1e-3)


def test_a_layer_called_twice_is_replaced_where_it_was_looked_at():
    class Twice(Painter):
        def forward(self, image: Tensor) -> Tensor:
            return self.head(self.layer(self.layer(image) + 100).mean((-2, -1)))

    found = seewhy.concepts(Twice(), scene()[:1], count=1)
    assert found.layer == "layer#1"
    expected = found.vectors * found.maps.amax() * 2
    torch.testing.assert_close(found.scores[:, :3], expected, rtol=1e-4, atol=1e-3)


def test_concepts_of_several_layers_are_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    images = torch.randn(1, 3, 8, 8)
    model(images)
    with pytest.raises(LayerError, match=r"concepts are those of one layer(.|\n)*0, 1"):
        seewhy.concepts(model, images, layers=["0", "1"])


# The figure


def test_legend_tells_the_classes_and_their_probabilities():
    found = seewhy.concepts(Painter(), scene(), count=3, layers="layer", labels=["red, ruddy", "green", "blue", "none"])
    shares = [float(torch.tensor([score, 0.0, 0, 0]).softmax(0)[0]) for score in (8, 4, 6)]
    assert [entry.split(",")[0] for entry in found.legend()] == [
        f"{name} {share:.2f}" for name, share in zip(("red", "green", "blue"), shares, strict=True)
    ]
    assert [len(entry.split(",")) for entry in found.legend(top=3)] == [3, 3, 3]
    unnamed = seewhy.concepts(Painter(), scene(), count=1, layers="layer")
    assert unnamed.legend(top=1)[0].startswith("class 0 ")


def test_a_place_has_the_colour_of_its_strongest_concept():
    """Heat 1 of concept 1, then 0.5 of concept 0 over a gray of 100, with alpha 0.8."""
    photo = np.full((1, 2, 3), 100, np.uint8)
    heat = torch.tensor([[[0.2, 0.5]], [[1.0, 0.1]]])
    colours = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    found = drawing.painted(photo, heat, colours, 0.8)
    assert found.tolist() == [[[20, 20, 224], [162, 60, 60]]]


def test_figure_shows_every_image_and_the_legend():
    found = seewhy.concepts(Painter(), scene(), count=3, layers="layer")
    photos = [Image.new("RGB", (60, 40), (0, 0, 0))] * 2
    figure = found.figure(photos, alpha=1.0)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == found.legend()
    assert figure.get_suptitle() == "3 concepts at layer"
    first = figure.axes[0].images[0].get_array()
    assert first.shape == (40, 60, 3)
    colours = np.rint(255 * drawing.palette(3, "tab10")).tolist()
    assert first[20, 5].tolist() == colours[0]  # red's place, all of it the first concept
    assert first[20, 55].tolist() == colours[1]
    patches = [np.rint(255 * np.array(patch.get_facecolor()[:3])).tolist() for patch in figure.legends[0].get_patches()]
    assert patches == colours
    assert len(found.figure(max_images=1).axes) == 1
    assert found.figure().axes[0].images[0].get_array().shape == (4, 6, 3)


def test_a_palette_has_a_colour_for_each():
    assert len({tuple(colour) for colour in drawing.palette(15, "tab10").tolist()}) <= 15
    assert len({tuple(colour) for colour in drawing.palette(15, "viridis").tolist()}) == 15
    assert drawing.palette(2, "tab10").tolist() == drawing.palette(10, "tab10")[:2].tolist()


def test_volumes_have_no_figure():
    model = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    volumes = torch.randn(1, 1, 6, 6, 6)
    model(volumes)
    found = seewhy.concepts(model, volumes, count=2, layers="1")
    assert found.heatmaps.shape == (1, 2, 6, 6, 6)
    with pytest.raises(InputError, match="drawn over images"):
        found.figure()
    assert found._repr_png_() is None


def test_a_notebook_shows_the_figure_and_prints_a_line():
    found = seewhy.concepts(Painter(), scene(), count=3, layers="layer")
    assert repr(found) == "Concepts(3 at layer, 2 images, (2, 3, 4, 6))"
    assert found._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"
