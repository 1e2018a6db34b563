"""What needs no gradient: numbers by hand, slow twins, and a sign that background cannot win."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.decomposition import NMF

import seewhy
from seewhy import methods
from seewhy.methods import channels
from seewhy.methods.cam import decomposition
from tests.oracles import decomposition as oracle

A = torch.tensor([[[[1, 2], [3, 4]], [[1, -2], [-1, 4]]]], dtype=torch.float64)
METHODS = ["eigen_cam", "kpca_cam", "fem", "lafam"]
SHAPES = pytest.mark.parametrize("shape", [(3, 4, 3, 5), (2, 3, 2, 3, 4), (2, 9, 2, 2)], ids=["2-D", "3-D", "small"])


def random(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_method_of_the_family_is_tested_here():
    assert [
        name for name, found in methods.available().items() if found.function.__module__.endswith("decomposition")
    ] == METHODS


def test_lafam_by_hand():
    torch.testing.assert_close(decomposition.lafam(A), torch.tensor([[[1.0, 0], [1, 4]]], dtype=torch.float64))


def test_fem_by_hand():
    """Channel 0: mean 2.5, deviation 1.118; channel 1: 0.5 and 2.291. With k = 1 the threshold is passed by the 4s."""
    found = decomposition.fem(A, k=1.0)
    torch.testing.assert_close(found, torch.tensor([[[0.0, 0], [0, 3]]], dtype=torch.float64))


def test_fem_counts_a_place_right_on_the_threshold():
    """(0, 0, 0, 4): mean 1, deviation sqrt(3): 4 = 1 + sqrt(3) sqrt(3). And a constant channel is all threshold."""
    channel = torch.tensor([[[[0.0, 0], [0, 4]], [[0.3, 0.3], [0.3, 0.3]]]])
    found = decomposition.fem(channel, k=math.sqrt(3) * (1 - 1e-12))
    torch.testing.assert_close(found, torch.tensor([[[0.3, 0.3], [0.3, 1.3]]]))
    torch.testing.assert_close(decomposition.fem(channel[:, 1:], k=2.0), torch.full((1, 2, 2), 0.3))


def test_eigen_cam_by_hand():
    """Places (1, 2; 3, 4) times channels (3, 4): one component, of length 5; centred less the places' mean of 2.5."""
    places = torch.tensor([[1.0, 2], [3, 4]], dtype=torch.float64)
    activations = torch.stack([3 * places, 4 * places])[None]
    torch.testing.assert_close(decomposition.eigen_cam(activations), 5 * places[None])
    torch.testing.assert_close(decomposition.eigen_cam(-activations), 5 * places[None])
    torch.testing.assert_close(decomposition.eigen_cam(activations, centred=True), 5 * (places - 2.5)[None])


def test_the_sign_is_that_of_the_strongest_places_where_channels_sum_to_zero():
    """Channels (1, -1) times places, as behind a LayerNorm: the 3 stands out, whichever channel it is in."""
    places = torch.tensor([[0.1, 0.1], [0.2, 3.0]], dtype=torch.float64)
    for sign in (1, -1):
        activations = torch.stack([sign * places, -sign * places])[None]
        torch.testing.assert_close(decomposition.eigen_cam(activations), math.sqrt(2) * places[None])
        found = decomposition.kpca_cam(activations)[0]
        assert found[1, 1] > 0 > found[0].max()


def test_kpca_cam_by_hand():
    """One channel, places 1 and 3, centred -1 and 1: the kernel is tanh(2) on the diagonal and tanh(0) = 0 beside it.
    Centred it is tanh(2) / 2 (1, -1; -1, 1), its eigenvalue tanh(2), its vector (-1, 1) / sqrt(2).
    """
    activations = torch.tensor([[[[1.0, 3.0]]]], dtype=torch.float64)
    expected = math.sqrt(math.tanh(2) / 2) * torch.tensor([[[-1.0, 1.0]]], dtype=torch.float64)
    torch.testing.assert_close(decomposition.kpca_cam(activations), expected)


@SHAPES
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_map_equals_slow_twin(name, shape, seed):
    activations = random(shape, seed)
    activations = activations.relu() if seed == 1 else activations
    expected = torch.from_numpy(getattr(oracle, name)(activations.numpy()))
    torch.testing.assert_close(getattr(decomposition, name)(activations), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", METHODS)
def test_images_of_a_batch_do_not_see_each_other(name):
    activations = random((3, 4, 3, 5))
    batch = getattr(decomposition, name)(activations)
    for index in range(3):
        single = getattr(decomposition, name)(activations[index : index + 1])
        torch.testing.assert_close(batch[index : index + 1], single)


@pytest.mark.parametrize("name", ["eigen_cam", "kpca_cam"])
@pytest.mark.parametrize("covered", [0.2, 0.8], ids=["small object", "large object"])
@pytest.mark.parametrize("seed", range(4))
def test_background_does_not_win(name, covered, seed):
    evidence = torch.zeros(25, dtype=torch.float64)
    evidence[: int(covered * 25)] = 5
    activations = (evidence + 0.1 * random((1, 8, 25), seed)).reshape(1, 8, 5, 5)
    found = getattr(decomposition, name)(activations).flatten()
    assert found[evidence > 0].min() > found[evidence == 0].max()


def test_they_are_the_same_for_every_class():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, stride=2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(4)
    )
    images = random((2, 3, 17, 17)).float()
    model(images)
    for found in seewhy.explain(model, images, torch.tensor([[0, 3], [1, 2]]), method=METHODS, layers="1").values():
        assert torch.equal(found.maps["1"][:, 0], found.maps["1"][:, 1])


@pytest.mark.parametrize("name", ["eigen_cam", "kpca_cam", "eigen_grad_cam", "seg_eigen_cam", "fem", "lafam"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("shape", [(3, 9, 2, 2), (3, 3, 4, 5)], ids=["more channels", "more places"])
def test_one_image_that_is_not_finite_is_not_finite_alone(name, value, shape):
    """The other images of the batch have the maps that they have without it."""
    layers = {"activations": random(shape), "gradients": random(shape, 1)}
    found = methods.get(name)
    values = [layers[need].clone() for need in found.needs]
    expected = found.function(*values)
    values[0][1, 0, 0, 0] = value
    maps = found.function(*values)
    torch.testing.assert_close(maps[[0, 2]], expected[[0, 2]])
    assert not maps[1].isfinite().any() or name in ("fem", "lafam")
    assert not maps[1].isfinite().all()


# Deep feature factorization


def residual(activations, maps, vectors):
    rows = activations.movedim(1, -1).flatten(0, -2)
    return float((rows - maps.movedim(1, -1).flatten(0, -2) @ vectors).norm() / rows.norm())


@pytest.mark.parametrize("shape", [(2, 6, 4, 5), (2, 6, 2, 3, 4)], ids=["2-D", "3-D"])
def test_factorization_finds_concepts_that_are_there(shape):
    """Three concepts in channels of their own, apart in space: nothing else explains such activations."""
    batch, channels, *space = shape
    maps = random((batch, 3, *space)).relu()
    vectors = torch.kron(torch.eye(3), torch.tensor([[3.0, 4.0]])).double() * torch.tensor([[1.0], [10.0], [3.0]])
    activations = torch.einsum("bk...,kc->bc...", maps, vectors)
    found, channels = decomposition.factorize(activations, 3)
    order = [1, 2, 0]  # the one that makes up most first
    torch.testing.assert_close(channels, (vectors / vectors.norm(dim=1, keepdim=True))[order], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        found, (maps * vectors.norm(dim=1)[:, *[None] * len(space)])[:, order], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("seed", range(3))
def test_factorization_is_as_good_as_scikit_learns(seed):
    """Coordinate descent from the same start, run as long: within a percent of its residual, or below it."""
    activations = random((2, 12, 5, 6), seed).relu()
    maps, vectors = decomposition.factorize(activations, 4)
    rows = activations.movedim(1, -1).flatten(0, -2).numpy()
    peer = NMF(4, init="nndsvd", solver="cd", max_iter=200, tol=0)
    peer.fit(rows)
    assert residual(activations, maps, vectors) <= 1.01 * peer.reconstruction_err_ / float(activations.norm())
    assert min(float(maps.min()), float(vectors.min())) >= 0
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4, dtype=torch.float64))


def test_factorization_of_nothing_is_nothing():
    maps, vectors = decomposition.factorize(torch.zeros(1, 3, 2, 2), 2)
    assert torch.equal(maps, torch.zeros(1, 2, 2, 2))
    assert torch.isfinite(vectors).all()


def test_the_first_eigenvector_of_a_large_matrix_is_that_of_all() -> None:
    """1,100 places of ten channels: more than are taken apart whole."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 1100, 10, dtype=torch.float64, generator=draw).relu()
    gram = (rows @ rows.mT / 10).tanh()
    values, vectors = torch.linalg.eigh(gram)
    expected = vectors[..., -1] * values[:, -1:].sqrt()
    found = channels.leading(gram)
    torch.testing.assert_close(channels.agreeing(found, expected), expected, rtol=0, atol=1e-6)
    gram[0, 0, 0] = torch.nan
    spoiled = channels.leading(gram)
    assert spoiled[0].isnan().all()
    torch.testing.assert_close(channels.agreeing(spoiled[1:], expected[1:]), expected[1:], rtol=0, atol=1e-6)
