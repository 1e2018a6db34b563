"""The rest of the gradient family: numbers by hand, slow twins, and what the engine hands over."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy import methods
from seewhy.errors import MethodError
from seewhy.methods.cam import gradient
from tests.oracles import gradient_more as oracle

# one image of two channels of 2x2; the activations sum to 10 and 2, the gradients' means are 0.5 and -1
A = torch.tensor([[[[1, 2], [3, 4]], [[1, -2], [-1, 4]]]], dtype=torch.float64)
G = torch.tensor([[[[2, 0], [-1, 1]], [[-4, -1], [2, -1]]]], dtype=torch.float64)

SHAPES = pytest.mark.parametrize("shape", [(3, 4, 3, 5), (2, 3, 2, 3, 4), (2, 9, 2, 2)], ids=["2-D", "3-D", "small"])


def random(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exactly(values: list[list[float]]) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_shapley_cam_by_hand():
    """HA is 2 in channel 0 and 0 in channel 1: weights 0.5 - 1 and -1; with + HA / 2 they were 1.5 and -1."""
    curvatures = torch.zeros_like(A)
    curvatures[:, 0] = 2
    found = gradient.shapley_cam(A, G, curvatures)
    torch.testing.assert_close(found, exactly([[-1.5, 1], [-0.5, -6]]))


def test_smooth_grad_cam_plus_plus_by_hand():
    """Of the samples G and 0 every mean is halved: alpha stays, the weights halve, and so does Grad-CAM++'s map."""
    found = gradient.smooth_grad_cam_plus_plus(A, lambda samples, noise: torch.stack([G, 0 * G]))
    torch.testing.assert_close(found, exactly([[67 / 264, -42 / 264], [25 / 264, 268 / 264]]))


def test_smooth_grad_cam_plus_plus_survives_gradients_whose_cube_underflows():
    """g = 1e-25: sum(A) g vanishes beside 2, alpha is 1/2 and the weight the sum of the positive g, halved."""
    found = gradient.smooth_grad_cam_plus_plus(A.float(), lambda samples, noise: 1e-25 * G.float()[None])
    expected = (G.relu().sum((2, 3), keepdim=True) / 2 * A).sum(1).float()
    torch.testing.assert_close(found * 1e25, expected)


def test_smooth_grad_cam_plus_plus_asks_for_as_many_samples_and_as_much_noise_as_told():
    asked = []
    found = methods.get("smooth_grad_cam_plus_plus", samples=7, noise=0.5)
    found.function(A, lambda samples, noise: asked.append((samples, noise)) or G[None])
    assert asked == [(7, 0.5)]


def test_seg_xres_cam_by_hand():
    """The maxima of the gradients are 2 and 2, their means 0.5 and -1."""
    torch.testing.assert_close(gradient.seg_xres_cam(A, G), exactly([[4, 0], [4, 16]]))
    torch.testing.assert_close(gradient.seg_xres_cam(A, G, pooling="mean"), gradient.grad_cam(A, G))
    torch.testing.assert_close(gradient.seg_xres_cam(A, G, window=1), gradient.hires_cam(A, G))


def test_odam_is_between_hires_cam_and_grad_cam():
    """Unblurred gradients give HiResCAM; a blur much wider than the picture makes each the mean of all."""
    torch.testing.assert_close(gradient.odam(A, G, sigma=0.0), exactly([[-2, 2], [-5, 0]]))
    torch.testing.assert_close(gradient.odam(A, G, sigma=50.0), gradient.grad_cam(A, G), rtol=0, atol=1e-3)


def test_seg_eigen_cam_by_hand():
    """|g| A is (2, 0; 3, 4) and 0: centred (-.25, -2.25; .75, 1.75), the largest in size is negative, so turned."""
    activations, gradients = A.clone(), G.clone()
    activations[:, 1] = 0
    gradients[0, 0] = torch.tensor([[-2, 0], [1, 1]])
    expected = exactly([[0.25, 2.25], [-0.75, -1.75]])
    torch.testing.assert_close(gradient.seg_eigen_cam(activations, gradients), expected)
    expected = exactly([[-3.25, -1.25], [1.75, 2.75]])  # g A is (-2, 0; 3, 4), centred, and agrees with itself
    torch.testing.assert_close(gradient.eigen_grad_cam(activations, gradients), expected)


@SHAPES
@pytest.mark.parametrize("name", ["eigen_grad_cam", "seg_eigen_cam", "zoom_cam", "odam", "seg_xres_cam"])
@pytest.mark.parametrize("seed", [0, 1])
def test_map_equals_slow_twin(name, shape, seed):
    activations, gradients = random(shape, seed), random(shape, seed + 10)
    expected = getattr(oracle, name)(activations.numpy(), gradients.numpy())
    found = getattr(gradient, name)(activations, gradients)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


@SHAPES
@pytest.mark.parametrize(("name", "options"), [
    ("odam", {"sigma": 0.6}),
    ("seg_xres_cam", {"window": 3}),
    ("seg_xres_cam", {"window": 2, "pooling": "mean"}),
])  # fmt: skip
def test_map_with_options_equals_slow_twin(name, options, shape):
    activations, gradients = random(shape), random(shape, 10)
    expected = getattr(oracle, name)(activations.numpy(), gradients.numpy(), **options)
    found = methods.get(name, **options).function(activations, gradients)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


@SHAPES
def test_methods_of_three_tensors_equal_their_slow_twins(shape):
    activations, gradients, third = (random(shape, seed) for seed in range(3))
    expected = oracle.shapley_cam(activations.numpy(), gradients.numpy(), third.numpy())
    torch.testing.assert_close(gradient.shapley_cam(activations, gradients, third), torch.from_numpy(expected))
    noisy = torch.stack([gradients, third, random(shape, 3)])
    expected = oracle.smooth_grad_cam_plus_plus(activations.numpy(), noisy.numpy())
    found = gradient.smooth_grad_cam_plus_plus(activations, lambda samples, noise: noisy)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


def test_background_does_not_win_in_eigen_grad_cam():
    """An object of most of the picture: the paper's rule for seg_eigen_cam turns it around, the sum does not."""
    evidence = torch.zeros(25, dtype=torch.float64)
    evidence[:20] = 5
    activations = (evidence + 0.1 * random((1, 8, 25))).reshape(1, 8, 5, 5)
    ones = torch.ones_like(activations)
    assert gradient.eigen_grad_cam(activations, ones).flatten()[:20].min() > 0
    assert gradient.seg_eigen_cam(activations, ones).flatten()[:20].max() < 0


# What the engine hands over


class Cube(nn.Module):
    """S_k = w_k sum of A^3 over a layer of 2 channels, A = the image: dS/dA = 3 w A^2, and H A = 6 w A A."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.weights = nn.Parameter(torch.tensor([1.0, -2.0]))

    def forward(self, image: Tensor) -> Tensor:
        return (self.layer(image) ** 3).flatten(1).sum(1, keepdim=True) * self.weights


def test_curvatures_are_the_hessian_times_the_activations():
    """Weights 3 w mean(A^2) - 3 w mean(A^2) = 0: for a cube, Shapley-CAM and Grad-CAM differ as much as they can."""
    seen = {}

    def probe(activations: Tensor, curvatures: Tensor) -> Tensor:
        seen.update(activations=activations, curvatures=curvatures)
        return curvatures.sum(1)

    method = methods.Method("probe", "test", probe, ("activations", "curvatures"), "a test", "1 forward, 2 backwards")
    image = random((3, 2, 4, 4)).float()
    found = seewhy.explain(Cube(), image, torch.tensor([[0, 1]] * 3), method=method, layers="layer").maps["layer"]
    torch.testing.assert_close(found[:, 0], 6 * (image**2).sum(1))
    torch.testing.assert_close(found[:, 1], -12 * (image**2).sum(1))
    assert not seen["curvatures"].requires_grad
    shapley = seewhy.explain(Cube(), image, 0, method="shapley_cam", layers="layer").maps["layer"]
    assert shapley.abs().max() < 1e-5 * found.abs().max()


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.Tanh(),
        nn.Flatten(), nn.Linear(8 * 64, 5),
    )  # fmt: skip


def test_shapley_cam_is_grad_cam_where_the_score_is_linear_in_the_layer():
    model, images = small(), random((2, 3, 16, 16)).float()
    found = seewhy.explain(model, images, 1, method=["shapley_cam", "grad_cam"], layers="4")
    torch.testing.assert_close(found["shapley_cam"].maps, found["grad_cam"].maps)
    before = seewhy.explain(model, images, 1, method=["shapley_cam", "grad_cam"], layers="3")
    assert not torch.allclose(before["shapley_cam"].maps["3"], before["grad_cam"].maps["3"], rtol=0.1)


def test_smooth_grad_cam_plus_plus_without_noise_is_grad_cam_plus_plus():
    model, images = small(), random((2, 3, 16, 16)).float()
    quiet = methods.get("smooth_grad_cam_plus_plus", noise=0.0)
    found = seewhy.explain(model, images, [1, 2], method=[quiet, "grad_cam_plus_plus"], layers="3")
    first, second = (explanation.maps["3"] for explanation in found.values())
    torch.testing.assert_close(first, second)


def test_smooth_grad_cam_plus_plus_takes_the_means_over_the_noisy_inputs():
    """Recomputed with plain autograd and the very noise that the generator gives."""
    model, images = small().double(), random((2, 3, 16, 16))
    method = methods.get("smooth_grad_cam_plus_plus", samples=3, noise=0.2)
    seeded = torch.Generator().manual_seed(5)
    found = seewhy.explain(model, images, 1, method=method, layers="3", generator=seeded).maps["3"]
    generator = torch.Generator().manual_seed(5)
    spans = (images.amax((1, 2, 3)) - images.amin((1, 2, 3))).reshape(2, 1, 1, 1)
    slopes = []
    for _ in range(3):
        noise = torch.randn(3, 16, 16, generator=generator).double()
        layer = model[:4](images + 0.2 * spans * noise).detach().requires_grad_()
        slopes.append(torch.autograd.grad(model[4:](layer)[:, 1].sum(), layer)[0].numpy())
    expected = oracle.smooth_grad_cam_plus_plus(model[:4](images).detach().numpy(), np.stack(slopes))
    torch.testing.assert_close(found, torch.from_numpy(expected))


def pyramid() -> nn.Module:
    """Two layers of 16x16 places and two of 8x8, for images of 32x32."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.Tanh(),
        nn.Flatten(), nn.Linear(8 * 64, 5),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("method", "base", "together"),
    [("zoom_cam", "hires_cam", lambda maps: maps.amax(0)), ("refine_cam", "Grad-CAM++", lambda maps: maps.prod(0))],
)
def test_the_last_layer_of_every_resolution_is_looked_at_and_fused(method, base, together):
    model, images = pyramid(), random((2, 3, 32, 32)).float()
    found = seewhy.explain(model, images, 1, method=method)
    assert found.layers == ("1", "3")
    fused = together(torch.stack([seewhy.explain(model, images, 1, method=base, layers=at).heatmap for at in "13"]))
    low, high = fused.amin((1, 2), keepdim=True), fused.amax((1, 2), keepdim=True)
    torch.testing.assert_close(found.heatmap, (fused - low) / (high - low))
    assert seewhy.explain(model, images, 1, method=method, layers="2").layers == ("2",)
    assert seewhy.explain(model, images, 1, method=method, fuse="mean").fuse == "mean"


def test_odam_of_two_boxes_gives_two_maps():
    """A detector in little: one score per cell of a 4x4 grid; each box's score lights up where the box is."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1))
    images = torch.rand(2, 3, 32, 32)

    def boxes(output: Tensor) -> Tensor:
        return torch.stack([output[:, 0, 1, 1], output[:, 0, 6, 5]], 1)

    found = seewhy.explain(model, images, boxes, method="odam", layers="1").maps["1"]
    for map_, place in zip(found.abs().sum(0), [(1, 1), (6, 5)], strict=True):
        assert divmod(int(map_.argmax()), 8) == place
        assert map_.max() > 0


def test_an_option_that_a_method_does_not_have_is_refused():
    with pytest.raises(MethodError, match=r"odam has no option sgima(.|\n)*sigma=0.0"):
        methods.get("odam", sgima=2.0)
    with pytest.raises(MethodError, match="no options at all"):
        methods.get("lafam", centred=True)
    assert methods.get("odam", sigma=2.0).summary == methods.get("odam").summary
