"""The numbers of every class activation map: by hand, and against slow twins written from the papers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from seewhy import methods
from seewhy.methods.cam import gradient
from seewhy.results.explanation import Explanation
from tests.oracles import gradient as oracle

# one image of two channels of 2x2; the activations sum to 10 and 2, the gradients' means are 0.5 and -1
A = torch.tensor([[[[1, 2], [3, 4]], [[1, -2], [-1, 4]]]], dtype=torch.float64)
G = torch.tensor([[[[2, 0], [-1, 1]], [[-4, -1], [2, -1]]]], dtype=torch.float64)
W = torch.tensor([[2, -1]], dtype=torch.float64)
SEED = 7


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


def drawn(channels: int) -> Tensor:
    return torch.rand(channels, generator=seeded())


def sums(tensor: Tensor) -> Tensor:
    return tensor.sum((2, 3), keepdim=True)


@dataclass(frozen=True)
class Case:
    """A method: its map of (A, G) or (A, W) by hand, its slow twin, and formulas it could be mistaken for."""

    name: str
    by_hand: list[list[float]]
    mistakes: dict[str, Callable[[], Tensor]]
    takes: str = "gradients"
    twin: Callable[..., Tensor] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "twin", getattr(oracle, self.name))

    def __call__(self, activations: Tensor, second: Tensor, **options: object) -> Tensor:
        given = seeded() if self.takes == "generator" else second
        return getattr(gradient, self.name)(activations, given, **options)

    def terms(self, activations: Tensor, second: Tensor) -> Tensor:
        """The slow twin's weighted activations (B, C, *space)."""
        given = drawn(activations.shape[1]) if self.takes == "generator" else second
        return torch.from_numpy(self.twin(activations.numpy(), given.numpy()))

    @property
    def second(self) -> Tensor:
        return W if self.takes == "weights" else G

    def random(self, shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
        """Signed activations, and signed gradients with zeros in them (or weights)."""
        generator = torch.Generator().manual_seed(seed)
        activations = torch.randn(shape, generator=generator, dtype=torch.float64)
        second = torch.randn(shape[:2] if self.takes == "weights" else shape, generator=generator, dtype=torch.float64)
        return activations, second * (second.abs() > 0.1)


U = 2 * drawn(2).double() - 1  # what random_cam draws for two channels

CASES = [
    Case(
        "cam",
        [[1, 6], [7, 4]],
        {
            "weights as shares": lambda: (W.softmax(1)[..., None, None] * A).sum(1),
            "mean over channels": lambda: (W[..., None, None] * A).mean(1),
            "ReLU on the map's terms": lambda: (W[..., None, None] * A).relu().sum(1),
        },
        takes="weights",
    ),
    Case(
        "grad_cam",
        [[-0.5, 3], [2.5, -2]],
        {
            "sum pooling": lambda: (sums(G) * A).sum(1),
            "mean over channels": lambda: (G.mean((2, 3), keepdim=True) * A).mean(1),
            "ReLU on the weights": lambda: (G.mean((2, 3), keepdim=True).relu() * A).sum(1),
            "ReLU on the gradients": lambda: (G.relu().mean((2, 3), keepdim=True) * A).sum(1),
            "ReLU on the map": lambda: (G.mean((2, 3), keepdim=True) * A).sum(1).relu(),
        },
    ),
    Case(
        "hires_cam",
        [[-2, 2], [-5, 0]],
        {
            "mean over channels": lambda: (G * A).mean(1),
            "ReLU on the map": lambda: (G * A).sum(1).relu(),
            "pooled gradients": lambda: (G.mean((2, 3), keepdim=True) * A).sum(1),
        },
    ),
    Case(
        "grad_cam_elementwise",
        [[2, 2], [0, 4]],
        {
            "ReLU outside the sum": lambda: (G * A).sum(1).relu(),
            "ReLU on the gradients": lambda: (G.relu() * A).sum(1),
            "no ReLU": lambda: (G * A).sum(1),
        },
    ),
    Case(
        "layer_cam",
        [[2, 0], [-2, 4]],
        {
            "ReLU on the product": lambda: (G * A).relu().sum(1),
            "ReLU on the activations too": lambda: (G.relu() * A.relu()).sum(1),
            "no ReLU": lambda: (G * A).sum(1),
        },
    ),
    Case(
        "x_grad_cam",
        [[-3.7, 8.6], [4.9, -14.8]],
        {
            "divided by the places": lambda: (sums(G * A) / 4 * A).sum(1),
            "divided by the absolute sum": lambda: (sums(G * A) / sums(A.abs()) * A).sum(1),
            "divided by both channels' sum": lambda: (sums(G * A) / A.sum() * A).sum(1),
            "divided by the gradients' sum": lambda: (sums(G * A) / sums(G) * A).sum(1),
            "not divided": lambda: (sums(G * A) * A).sum(1),
        },
    ),
    Case(
        "grad_cam_plus_plus",
        [[67 / 132, -42 / 132], [25 / 132, 268 / 132]],
        {
            "no denominator": lambda: (sums(G**2 * G.relu()) * A).sum(1),
            "g^3 inside the sum": lambda: (sums((G**2 / (2 * G**2 + sums(A * G**3))).nan_to_num() * G.relu()) * A).sum(
                1
            ),
            "no ReLU": lambda: (sums((G**2 / (2 * G**2 + sums(A) * G**3 + 1e-9)).nan_to_num() * G) * A).sum(1),
            "mean for sum of A": lambda: (
                sums((G**2 / (2 * G**2 + A.mean((2, 3), keepdim=True) * G**3 + 1e-9)) * G.relu()) * A
            ).sum(1),
            "1 g^2 for 2 g^2": lambda: (sums((G**2 / (G**2 + sums(A) * G**3 + 1e-9)) * G.relu()) * A).sum(1),
        },
    ),
    Case(
        "random_cam",
        (U[0] * A[0, 0] + U[1] * A[0, 1]).tolist(),
        {"weights in [0, 1]": lambda: ((U + 1) / 2 * A[0].permute(1, 2, 0)).sum(-1)[None]},
        takes="generator",
    ),
]

every_method = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
with_gradients = pytest.mark.parametrize(
    "case", [case for case in CASES if case.takes == "gradients"], ids=lambda case: case.name
)


def test_every_method_of_the_family_is_in_the_table():
    family = {
        name
        for name, found in methods.available().items()
        if found.function.__module__.endswith("cam.gradient") and name == found.function.__name__
    }
    elsewhere = {"shapley_cam", "smooth_grad_cam_plus_plus", "eigen_grad_cam", "seg_eigen_cam", "zoom_cam", "odam"}
    elsewhere |= {"seg_xres_cam"}  # in test_gradient_more.py
    assert family == {case.name for case in CASES} | elsewhere


@every_method
def test_map_by_hand(case):
    """Grad-CAM++: weights 2/22 + 1/12 and 2/6. XGrad-CAM: 3/10 and -8/2. Grad-CAM: 1/2 and -1."""
    expected = torch.tensor([case.by_hand], dtype=torch.float64)
    torch.testing.assert_close(case(A, case.second), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(case.terms(A, case.second).sum(1), expected, rtol=0, atol=1e-12)  # the twin as well


@pytest.mark.parametrize(
    ("case", "mistake"),
    [pytest.param(case, mistake, id=f"{case.name}: {mistake}") for case in CASES for mistake in case.mistakes],
)
def test_numbers_by_hand_tell_the_mistake(case, mistake):
    wrong = case.mistakes[mistake]()
    assert (wrong - torch.tensor([case.by_hand])).abs().max() > 0.1


@every_method
@pytest.mark.parametrize("shape", [(3, 4, 3, 5), (2, 3, 2, 3, 4), (1, 1, 1, 2)], ids=["2-D", "3-D", "one channel"])
@pytest.mark.parametrize("seed", [0, 1])
def test_map_equals_slow_twin(case, shape, seed):
    activations, second = case.random(shape, seed)
    expected = case.terms(activations, second)
    torch.testing.assert_close(case(activations, second), expected.sum(1), rtol=1e-10, atol=1e-10)


@every_method
def test_reduce_is_handed_the_weighted_activations(case):
    activations, second = case.random((2, 3, 4, 5))
    for channel, expected in enumerate(case.terms(activations, second).unbind(1)):
        found = case(activations, second, reduce=lambda weighted, channel=channel: weighted[:, channel])
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@every_method
def test_images_of_a_batch_do_not_see_each_other(case):
    activations, second = case.random((3, 4, 3, 5))
    batch = case(activations, second)
    for index in range(3):
        single = case(activations[index : index + 1], second[index : index + 1])
        torch.testing.assert_close(batch[index : index + 1], single, rtol=1e-12, atol=1e-12)


@every_method
def test_inputs_are_left_as_they_were(case):
    activations, second = case.random((2, 3, 4, 5))
    before = activations.clone(), second.clone()
    case(activations, second)
    assert torch.equal(activations, before[0])
    assert torch.equal(second, before[1])


@with_gradients
def test_zero_gradient_gives_a_zero_map(case):
    """Grad-CAM++ would be 0 / 0."""
    assert torch.equal(case(A, torch.zeros_like(G)), torch.zeros(1, 2, 2, dtype=torch.float64))


def test_grad_cam_plus_plus_counts_a_place_without_gradient_as_nothing():
    """One place with g = 1 in a channel that sums to 2: weight 1 / (2 + 2); the zeros beside it do not spoil it."""
    gradients = torch.zeros_like(G)
    gradients[0, 1, 0, 0] = 1
    expected = A[:, 1] / 4
    torch.testing.assert_close(gradient.grad_cam_plus_plus(A, gradients), expected)


def test_grad_cam_plus_plus_counts_a_vanishing_denominator_as_nothing():
    """g = 1 in a channel that sums to -2: 2 g^2 + sum(A) g^3 = 0. The other channel (weight 1/12) is left."""
    activations = torch.stack([A[:, 0], torch.full((1, 2, 2), -0.5, dtype=torch.float64)], 1)
    gradients = torch.zeros_like(G)
    gradients[0, :, 0, 0] = 1
    torch.testing.assert_close(gradient.grad_cam_plus_plus(activations, gradients), A[:, 0] / 12)


def test_x_grad_cam_leaves_out_a_channel_that_sums_to_zero():
    """Channel 1 is (1, -1, 2, -2): nothing to share out. Channel 0 keeps its weight 3 / 10."""
    activations = torch.stack([A[:, 0], torch.tensor([[[1.0, -1], [2, -2]]], dtype=torch.float64)], 1)
    torch.testing.assert_close(gradient.x_grad_cam(activations, G), 0.3 * A[:, 0])


def heatmap(maps: Tensor) -> Tensor:
    scores, size = torch.zeros(len(maps)), tuple(maps.shape[1:])
    return Explanation(maps={"": maps}, scores=scores, outputs=None, targets=None, method="", size=size).heatmap


@with_gradients
@pytest.mark.parametrize("scale", [1e-8, 1e-12])
def test_tiny_gradients_in_float32_give_the_same_heatmap(case, scale):
    """An epsilon in a denominator, or a range taken for zero, would show. Grad-CAM++ alone depends on the scale by its
    formula, (2 + sum(A) g), so it is held against its twin.
    """
    activations, gradients = case.random((2, 3, 4, 5))
    twin = case.terms(activations, gradients * scale).sum(1)
    expected = (twin.clamp(min=0) / twin.amax((1, 2), keepdim=True)).float()
    expected = (expected - expected.amin((1, 2), keepdim=True)) / (1 - expected.amin((1, 2), keepdim=True))
    found = case(activations.float(), (gradients * scale).float())
    torch.testing.assert_close(heatmap(found), expected, rtol=0, atol=1e-5)
    if case.name != "grad_cam_plus_plus":
        ordinary = case(activations.float(), gradients.float())
        torch.testing.assert_close(heatmap(found), heatmap(ordinary), rtol=0, atol=1e-5)


def test_grad_cam_plus_plus_survives_gradients_whose_cube_underflows():
    """g = 1e-25: g^2 and g^3 are 0 in float32, but alpha is 1/2 and the weight the sum of the positive g, halved."""
    gradients = G.float() * 1e-25
    expected = (sums(G.relu()) / 2 * A).sum(1).float()
    found = gradient.grad_cam_plus_plus(A.float(), gradients)
    torch.testing.assert_close(found * 1e25, expected, rtol=1e-5, atol=1e-5)


def test_random_cam_draws_one_weight_per_channel_from_minus_one_to_one():
    """One-hot activations show the weights: mean 0, variance 1/3, within [-1, 1], the same for both images."""
    channels = 4000
    eye = torch.eye(channels).reshape(1, channels, channels, 1)
    weights = gradient.random_cam(eye.expand(2, -1, -1, -1), seeded()).squeeze(-1)
    assert torch.equal(weights[0], weights[1])
    assert -1 <= weights.min() < -0.99
    assert 0.99 < weights.max() <= 1
    assert abs(weights[0].mean()) < 0.05
    assert abs(weights[0].var() - 1 / 3) < 0.02


def test_random_cam_follows_its_generator_and_leaves_the_global_one():
    before = torch.random.get_rng_state()
    generator = seeded()
    first, second = gradient.random_cam(A, generator), gradient.random_cam(A, generator)
    assert torch.equal(first, gradient.random_cam(A, seeded()))
    assert not torch.allclose(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)
