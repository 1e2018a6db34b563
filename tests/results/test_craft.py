"""Concepts as in CRAFT: importance of known concepts, maps, parts at an earlier layer, against an oracle in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

import seewhy
from seewhy.errors import InputError, MethodError, TargetError
from seewhy.methods.cam import decomposition
from seewhy.methods.perturbation.sensitivity import design, total_indices
from tests.oracles import concepts as oracle


class Scenes(nn.Module):
    """Its layer returns the three colours of the image; the classes are known functions of their means."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        red, green, blue = self.layer(image).mean((-2, -1)).unbind(1)
        return torch.stack([3 * red + 4 * green + 2 * blue, red * green, blue], 1)


def scenes() -> Tensor:
    """Two images of 12x12, one half red (4), a quarter green (2), a quarter blue (3); means 2, 1/2 and 3/4."""
    images = torch.zeros(2, 3, 12, 12)
    images[:, 0, :6], images[:, 1, 6:, :6], images[:, 2, 6:, 6:] = 4, 2, 3
    return images


def found(target: int, **options):
    return seewhy.concepts(
        Scenes(), scenes(), 3, layers="layer", method="craft", target=target, **{"crop": 3, "designs": 512, **options}
    )


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        # shares of the variance of 6 M + 2 M + 3/2 M, independent and uniform
        pytest.param(0, {0: 36 / 42.25, 1: 4 / 42.25, 2: 2.25 / 42.25}, id="a sum"),
        # of M M': var M E[M'^2] / var(M M') = (1/12 1/3) / (1/9 - 1/16)
        pytest.param(1, {0: 4 / 7, 1: 4 / 7, 2: 0.0}, id="a product"),
        pytest.param(2, {0: 0.0, 1: 0.0, 2: 1.0}, id="one of them"),
    ],
)
def test_the_importance_of_known_concepts_is_known(target, expected):
    concepts = found(target)
    colours = concepts.vectors.argmax(1)
    torch.testing.assert_close(concepts.vectors, torch.eye(3)[colours], atol=1e-4, rtol=0)
    assert concepts.importance.tolist() == pytest.approx([expected[int(colour)] for colour in colours], abs=0.02)
    assert concepts.importance.tolist() == sorted(concepts.importance.tolist(), reverse=True)
    torch.testing.assert_close(concepts.maps, scenes()[:, colours], atol=1e-4, rtol=1e-4)
    assert concepts.legend()[0].startswith(f"{float(concepts.importance[0]):.2f}: class ")
    assert [text.get_text() for text in concepts.figure().legends[0].get_texts()] == concepts.legend()


def test_crops_tell_what_they_are_of():
    """Crops of 4 of 12 pixels, 3 apart; the whole of a crop at the upper left is red."""
    concepts = found(0, crop=4)
    assert concepts.crops.shape == (2 * 9, 5)
    assert concepts.crops[:4].tolist() == [[0, 0, 0, 4, 4], [0, 0, 3, 4, 7], [0, 0, 6, 4, 10], [0, 3, 0, 7, 4]]
    assert concepts.crops[9].tolist() == [1, 0, 0, 4, 4]
    red = int((concepts.vectors.argmax(1) == 0).nonzero())
    assert float(concepts.shares[0, red]) == pytest.approx(4, rel=1e-3)
    assert concepts.shares[0, [k for k in range(3) if k != red]].tolist() == pytest.approx([0, 0], abs=1e-3)


class Mixed(nn.Module):
    """Its first layer returns four colours, its second two mixtures of these, the class is that of the first more."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Identity()
        self.second = nn.Conv2d(4, 2, 1, bias=False)
        self.second.weight.data = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]])[:, :, None, None]

    def forward(self, image: Tensor) -> Tensor:
        means = self.second(self.first(image)).mean((-2, -1))
        return torch.stack([5 * means[:, 0] + means[:, 1], means[:, 1]], 1)


@pytest.mark.slow
def test_a_concept_is_taken_apart_at_an_earlier_layer():
    """The first mixture is made of colours 0 and 1, the second of 2 and 3; 20 of 50 crops show one of them alone."""
    images = torch.zeros(2, 4, 12, 12)
    for colour, (rows, columns) in enumerate([(0, 0), (0, 6), (6, 0), (6, 6)]):
        images[:, colour, rows : rows + 6, columns : columns + 6] = 1
    concepts = seewhy.concepts(
        Mixed(), images, 2, layers=["first", "second"], method="craft", target=0, crop=3, share=0.4, designs=64
    )
    assert concepts.layer == "second"
    assert concepts.vectors.argmax(1).tolist() == [0, 1]
    assert concepts.importance[0] > 0.9 > 0.1 > concepts.importance[1]
    assert [part.layer for part in concepts.parts] == ["first", "first"]
    for part, colours in zip(concepts.parts, ([0, 1], [2, 3]), strict=True):
        assert sorted(part.vectors.argmax(1).tolist()) == colours
        assert part.maps.shape == (2, 2, 12, 12)
        assert part.parts == ()


def test_it_is_the_papers_sum_of_given_shares():
    """Weights of a convolutional network: coefficients to 1e-6, and Jansen's estimate to 1e-5."""
    torch.manual_seed(0)
    head = nn.Linear(8, 3).double()
    activations = torch.randn(2, 8, 3, 4, dtype=torch.float64).relu()
    _, vectors = decomposition.factorize(activations, 3)
    maps = decomposition.coefficients(activations, vectors)
    np.testing.assert_allclose(maps.numpy(), oracle.coefficients(activations.numpy(), vectors.numpy()), atol=1e-6)
    masks = design(3, 16, Generator().manual_seed(1)).double()

    def score(activation: Tensor) -> Tensor:
        return head(activation.tanh().mean((-2, -1)))[..., 1].detach()

    changed = torch.einsum("nk,bkhw,kc->bnchw", masks, maps, vectors)
    expected = oracle.importance(
        lambda one: float(score(torch.from_numpy(one))), maps.numpy(), vectors.numpy(), masks.numpy(), 16
    )
    np.testing.assert_allclose(total_indices(score(changed), 16).mean(0).numpy(), expected, rtol=1e-5)


def test_through_a_network_it_is_the_same():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    images = torch.randn(2, 3, 17, 17)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    concepts = seewhy.concepts(model, images, 3, layers="1", method="craft", target=2, designs=16)
    masks = design(3, 16, Generator().manual_seed(0)).double().numpy()

    def score(activation):
        with torch.no_grad():
            return float(model[2:](torch.from_numpy(activation).float()[None])[0, 2])

    maps, vectors = concepts.maps.double().numpy(), concepts.vectors.double().numpy()
    errors = [
        np.abs(
            oracle.importance(score, maps[:, order], vectors[order], masks, 16) - concepts.importance.numpy()[order]
        ).max()
        for order in map(
            list, itertools.permutations(range(3))
        )  # in one of these they were found, and have their masks
    ]
    assert min(errors) < 1e-4
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    again = seewhy.concepts(model, images, 3, layers="1", method="craft", target=2, designs=16)
    assert torch.equal(again.importance, concepts.importance)


def test_what_cannot_be_asked_is_told():
    with pytest.raises(MethodError, match=r'unknown way to find concepts(.|\n)*"factorization" or "craft"'):
        seewhy.concepts(Scenes(), scenes(), 3, method="nmf")
    with pytest.raises(MethodError, match=r'asks about no score(.|\n)*target, crop(.|\n)*method="craft"'):
        seewhy.concepts(Scenes(), scenes(), 3, target=1, crop=4)
    with pytest.raises(InputError, match=r"cannot be that many concepts at layer(.|\n)*1 to 3"):
        seewhy.concepts(Scenes(), scenes(), 4, layers="layer", method="craft")
    with pytest.raises(InputError, match=r"the crop does not fit(.|\n)*1 to 12"):
        found(0, crop=13)
    with pytest.raises(InputError, match="`designs` is too small"):
        found(0, designs=1)
    with pytest.raises(InputError, match="`share` is out of range"):
        found(0, share=0)
    with pytest.raises(TargetError, match="one score of each image"):
        seewhy.concepts(Scenes(), scenes(), 3, layers="layer", method="craft", target=torch.tensor([[0, 1], [0, 1]]))
