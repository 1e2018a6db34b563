"""Principal components, fusing layers, smoothing by views."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import seewhy
from seewhy.errors import InputError
from seewhy.methods import channels, fuse, smooth
from seewhy.results.explanation import Explanation
from tests.oracles import gradient as oracle


def component(weighted):
    """Up to its sign: the centred places (rows) of one image, projected on numpy's first right singular vector."""
    rows = weighted.reshape(weighted.shape[0], -1).T.astype(np.float64)
    centred = rows - rows.mean(0)
    return (centred @ np.linalg.svd(centred)[2][0]).reshape(weighted.shape[1:])


GRIDS = pytest.mark.parametrize(
    "shape",
    [(4, 12, 2, 3), (4, 3, 4, 5), (4, 6, 2, 3), (4, 5, 2, 3, 4), (4, 30, 2, 3, 2)],
    ids=["fewer places than channels", "more places", "as many", "volume, more places", "volume, fewer places"],
)


def random(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@GRIDS
def test_component_is_that_of_the_singular_value_decomposition(shape):
    weighted = random(shape)
    for found, image in zip(channels.principal_component(weighted), weighted.numpy(), strict=True):
        expected = component(image)
        sign = np.sign((found.numpy() * expected).sum())
        np.testing.assert_allclose(found.numpy(), sign * expected, rtol=1e-9, atol=1e-9)


@GRIDS
def test_component_agrees_with_the_sum_over_channels_whatever_the_sign_of_the_decomposition(shape):
    """Of 4 x 10 images, half would be upside down without the rule."""
    for seed in range(10):
        weighted = random(shape, seed)
        agreement = (channels.principal_component(weighted) * weighted.sum(1)).flatten(1).sum(1)
        assert (agreement > 0).all()


@GRIDS
def test_component_of_the_opposite_is_the_opposite(shape):
    """Evidence turned around turns the map around: a rule on the map alone (largest value positive) would not."""
    weighted = random(shape)
    torch.testing.assert_close(channels.principal_component(-weighted), -channels.principal_component(weighted))


@GRIDS
def test_component_of_a_batch_is_that_of_each_image(shape):
    weighted = random(shape)
    batch = channels.principal_component(weighted)
    for index in range(len(weighted)):
        torch.testing.assert_close(batch[index : index + 1], channels.principal_component(weighted[index : index + 1]))


@pytest.mark.parametrize("count", [2, 40], ids=["more places", "more channels"])
@pytest.mark.parametrize("covered", [0.2, 0.8], ids=["small object", "large object"])
def test_background_does_not_win(count, covered):
    """An object of 5 in all channels, background near 0: where it covers most of the picture, the background has the
    largest absolute value after centring, and a rule that looks for that paints it hot.
    """
    places = 25
    evidence = torch.zeros(places)
    evidence[: int(covered * places)] = 5
    noise = 0.1 * random((1, count, places)).float()
    found = channels.principal_component((evidence + noise).reshape(1, count, 5, 5)).flatten()
    assert found[evidence > 0].min() > 0 > found[evidence == 0].max()


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e6])
@pytest.mark.parametrize("shape", [(2, 12, 2, 3), (2, 3, 7, 7), (1, 7, 3, 3, 3)])
def test_component_of_what_is_the_same_everywhere_is_zero(value, shape):
    """Exactly zero, so that no rounding noise is stretched to a heatmap; each channel has its own value."""
    values = value * torch.arange(1, shape[1] + 1).reshape(1, -1, *[1] * (len(shape) - 2)) / 3
    found = channels.principal_component(values.expand(shape).contiguous())
    assert torch.equal(found, torch.zeros(shape[0], *shape[2:]))


def test_component_keeps_the_precision_of_small_differences_in_float32():
    """Places that differ by 1e-4 of an offset of 1000: a Gram matrix in float32, or of uncentred places, loses them."""
    small = random((1, 3, 4, 4))
    weighted = (1000 + 0.1 * small).float()
    found = channels.principal_component(weighted)[0]
    expected = component(weighted[0].numpy())
    sign = np.sign((found.numpy() * expected).sum())
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), sign * expected, rtol=0, atol=1e-6)


def test_eigen_smooth_projects_what_the_method_weighted():
    """Through `explain`, for two methods: the component of the oracle's weighted activations."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(5 * 16, 4)).double()
    images = random((2, 3, 4, 4))
    activations = model[1](model[0](images)).detach()
    gradients = model[3].weight.detach()[2].reshape(1, 5, 4, 4).expand(2, -1, -1, -1)
    for method in ("grad_cam", "hires_cam"):
        found = seewhy.explain(model, images, 2, method=method, layers="1", eigen_smooth=True).maps["1"]
        terms = getattr(oracle, method)(activations.numpy(), gradients.numpy())
        for index in range(2):
            expected = component(terms[index])
            sign = np.sign((expected * terms[index].sum(0)).sum())
            np.testing.assert_allclose(found[index].numpy(), sign * expected, atol=1e-6)


FIRST, SECOND = torch.tensor([[0.0, 1.0], [0.5, 0.2]]), torch.tensor([[1.0, 0.6], [0.5, 0.0]])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("mean", [[0.5, 0.8], [0.5, 0.1]]),
        ("max", [[1.0, 1.0], [0.5, 0.2]]),
        ("product", [[0.0, 0.6], [0.25, 0.0]]),
    ],
)
def test_fuse_by_hand(how, expected):
    torch.testing.assert_close(fuse.fuse_maps([FIRST, SECOND], how), torch.tensor(expected))


@pytest.mark.parametrize(
    ("how", "expected"),
    [  # each of the above once more by its own range
        ("mean", [[4 / 7, 1], [4 / 7, 0]]),
        ("max", [[1, 1], [0.375, 0]]),
        ("product", [[0, 1], [0.25 / 0.6, 0]]),
    ],
)
def test_layers_are_scaled_before_they_are_fused_and_the_result_after(how, expected):
    """The second layer's map is 100 times the first's scale, and its negative half is dropped before."""
    maps = {"a": FIRST[None], "b": 100 * (SECOND[None] - (SECOND[None] == 0).float())}
    found = Explanation(
        maps=maps, scores=torch.zeros(1), outputs=None, targets=None, method="", size=(2, 2), fuse=how
    ).heatmap
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float32))


def test_fuse_names_what_there_is():
    with pytest.raises(InputError, match=r"got: 'median'\s+expected: 'mean', 'max', 'product', 'local_product'"):
        fuse.fuse_maps([FIRST], "median")


def test_local_product_by_hand():
    """The positive part of the finer map has a mean of 3, and so is 0, 2/3, 1 and 7/3 of it; in whatever order."""
    coarse, fine = torch.tensor([[[5.0]]]), torch.tensor([[[-1.0, 2.0], [3.0, 7.0]]])
    expected = 5 * torch.tensor([[[0.0, 2 / 3], [1.0, 7 / 3]]])
    torch.testing.assert_close(fuse.local_product([coarse, fine], 2), expected)
    torch.testing.assert_close(fuse.local_product([fine, coarse], 2), expected)


def test_local_product_enlarges_what_there_is_where_the_finer_map_is_even():
    """A line of 2 as a line of 4, half pixels kept: 1, 3/4 and 1/4, 1/4 and 3/4, 5."""
    found = fuse.local_product([torch.tensor([[1.0, 5.0]]), torch.full((1, 4), 7.0)], 1)
    torch.testing.assert_close(found, torch.tensor([[1.0, 2.0, 4.0, 5.0]]))


def test_local_product_divides_by_all_that_is_around():
    """A spike in the corner of 8 x 8 is 16 times the mean of its quarter, and where there is nothing, nothing comes.

    Sampled at the middle of each quarter instead, as the authors do for resolutions of any ratio, it would be missed.
    """
    fine = torch.zeros(1, 8, 8)
    fine[0, 0, 0] = 3.0
    torch.testing.assert_close(fuse.local_product([torch.ones(1, 2, 2), fine], 2), 16 * fine / 3)


PICTURE = torch.arange(12.0).reshape(1, 1, 3, 4)


def test_views_are_the_image_and_its_mirror_at_three_brightnesses():
    mirror = torch.tensor([[[[3.0, 2, 1, 0], [7, 6, 5, 4], [11, 10, 9, 8]]]])
    expected = [turned * brightness for turned in (PICTURE, mirror) for brightness in (0.9, 1.0, 1.1)]
    found = sorted((view.apply(PICTURE) for view in smooth.views()), key=lambda seen: (seen[0, 0, 0, 0], seen.sum()))
    expected.sort(key=lambda seen: (seen[0, 0, 0, 0], seen.sum()))
    torch.testing.assert_close(found, expected)


def test_the_first_view_is_the_image_itself():
    assert torch.equal(smooth.views()[0].apply(PICTURE), PICTURE)


def test_undo_puts_a_map_back_where_its_image_was():
    """A map made of the changed image itself: back in place it is the image at that brightness."""
    for view in smooth.views():
        brightness = view.apply(PICTURE).max() / PICTURE.max()
        torch.testing.assert_close(view.undo(view.apply(PICTURE)[:, 0]), PICTURE[:, 0] * brightness)


class Net(nn.Module):
    """One convolution, a ReLU, the global average, a linear layer."""

    def __init__(self, kernel, shift, weight, bias):
        super().__init__()
        self.features = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2:], padding="same")
        self.act = nn.ReLU()
        self.head = nn.Linear(*reversed(weight.shape))
        values = {"features.weight": kernel, "features.bias": shift, "head.weight": weight, "head.bias": bias}
        self.load_state_dict(values)

    def forward(self, x):
        return self.head(self.act(self.features(x)).mean((2, 3)))


def smoothed_by_hand(net, images, targets):
    """The mean over the six views of the oracle's Grad-CAM for `targets`, (B,)."""
    total = np.zeros((len(images), *images.shape[2:]))
    for mirrored in (False, True):
        for brightness in (0.9, 1.0, 1.1):
            seen = images.flip(-1) * brightness if mirrored else images * brightness
            activations = net.act(net.features(seen)).detach().double().numpy()
            slopes = net.head.weight.detach().double().numpy()[targets] / images[0, 0].numel()  # d mean / d place
            gradients = np.broadcast_to(slopes[:, :, None, None], activations.shape)
            drawn = oracle.grad_cam(activations, gradients).sum(1)
            total += drawn[..., ::-1] if mirrored else drawn
    return torch.from_numpy(total / 6).float()


@pytest.mark.parametrize("width", [1, 3], ids=["equivariant net", "net that tells left from right"])
def test_augment_smooth_is_the_mean_over_the_six_views(width):
    """With the wider kernel a view that is not mirrored, or not mirrored back, gives another map."""
    generator = torch.Generator().manual_seed(3)
    kernel, weight = torch.randn(4, 2, 1, width, generator=generator), torch.randn(3, 4, generator=generator)
    net = Net(kernel, torch.randn(4, generator=generator), weight, torch.zeros(3))
    images = torch.randn(2, 2, 4, 4, generator=generator)
    found = seewhy.explain(net, images, [2, 0], layers="act", augment_smooth=True).maps["act"]
    torch.testing.assert_close(found, smoothed_by_hand(net, images, [2, 0]), rtol=1e-5, atol=1e-7)
    plain = seewhy.explain(net, images, [2, 0], layers="act").maps["act"]
    assert (found - plain).abs().max() > 1e-4


def test_augment_smooth_of_several_targets_is_that_of_each():
    generator = torch.Generator().manual_seed(3)
    kernel, weight = torch.randn(4, 2, 1, 3, generator=generator), torch.randn(3, 4, generator=generator)
    net = Net(kernel, torch.randn(4, generator=generator), weight, torch.zeros(3))
    images = torch.randn(2, 2, 4, 4, generator=generator)
    found = seewhy.explain(net, images, torch.tensor([[2, 0], [1, 1]]), layers="act", augment_smooth=True).maps["act"]
    for column, targets in enumerate(([2, 1], [0, 1])):
        torch.testing.assert_close(found[:, column], smoothed_by_hand(net, images, targets), rtol=1e-5, atol=1e-7)


@pytest.fixture
def flipping():
    """Class 0 scores the mean m of the image, class 1 scores 1.05 + 0.1 (2 - m): 1.2 against 1.13 at m = 1.2, but 1.08
    against 1.142 at 0.9 of it.
    """
    kernel = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    return Net(kernel, torch.tensor([0.0, 2.0]), torch.tensor([[1.0, 0.0], [0.0, 0.1]]), torch.tensor([0.0, 1.05]))


def test_augment_smooth_keeps_the_class_predicted_for_the_image_itself(flipping):
    """Brightness changes the answer; the maps of all six views are of class 0 all the same."""
    ramp = torch.linspace(0.8, 1.6, 16).reshape(1, 1, 4, 4)  # mean 1.2
    assert flipping(ramp).argmax() == 0
    assert flipping(0.9 * ramp).argmax() == 1
    found = seewhy.explain(flipping, ramp, layers="act", augment_smooth=True)
    torch.testing.assert_close(found.maps["act"], ramp[:, 0] / 16)  # slope 1/16, mean brightness 1
    assert found.targets.index.tolist() == [0]
    torch.testing.assert_close(found.scores, flipping(ramp)[:, 0].detach())
