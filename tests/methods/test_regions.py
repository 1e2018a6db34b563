"""LIME, Kernel SHAP, Sobol indices and HSIC: from float64 oracles with the same draws, beside captum, by hand."""

from __future__ import annotations

import captum.attr
import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnRidge
from torch import nn
from torch.quasirandom import SobolEngine

import seewhy
from seewhy.errors import InputError
from seewhy.images.absent import absent, grid_cells, superpixels
from seewhy.methods.perturbation.region_masks import _segments, kernel_shap
from seewhy.methods.perturbation.sensitivity import hsic, sobol
from tests.methods.test_perturbation import CLASSES, images, slow, small
from tests.oracles import arrays
from tests.oracles import perturbation as oracle

FEW = {"sobol": {"designs": 4}, "hsic": {"samples": 8}}
each_size = pytest.mark.parametrize("dimensions", [2, 3])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def explained(method, dimensions, **options):
    model, batch = small(dimensions, nn.Tanh), images(dimensions)
    return seewhy.explain(model, batch, CLASSES, method=method, generator=seeded(5), **options).maps["input"]


def each(dimensions):
    """(score, image) for every image, in float64."""
    model = small(dimensions, nn.Tanh)
    return [slow(model, image, category)[:2] for image, category in zip(images(dimensions), CLASSES, strict=True)]


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, torch.tensor(np.stack(expected)).float(), rtol=tolerance, atol=tolerance)


def halves(dimensions):
    """Another number of regions in each image, whose numbers have gaps."""
    regions = grid_cells(images(dimensions), count=4 if dimensions == 2 else 8).clone()
    regions[1] = regions[1] // 2 * 7
    return regions


def numbered(segments):
    return [one.unique(return_inverse=True)[1].numpy() for one in segments]


# Linear models of the regions


@each_size
def test_lime_equals_slow_twin_and_captums(dimensions):
    segments = halves(dimensions)
    found = explained("lime", dimensions, samples=30, segments=segments, baseline="zero", width=0.4, ridge=0.5)
    expected = []
    for number, ((score, image), regions) in enumerate(zip(each(dimensions), numbered(segments), strict=True)):
        draws = (torch.rand(30, regions.max() + 1, generator=seeded(5)) < 0.5).long()
        expected.append(oracle.lime(score, image, image * 0, regions, draws.numpy(), 0.4, 0.5))

        def near(_, __, shown, **___):
            return torch.exp(-((1 - shown.float().mean().sqrt()) ** 2) / (2 * 0.4**2))

        def given(*_, draws=draws, **__):
            yield from draws[:, None]

        peer = captum.attr.Lime(
            small(dimensions, nn.Tanh), SkLearnRidge(alpha=0.5), similarity_func=near, perturb_func=given
        )
        theirs = peer.attribute(
            images(dimensions)[number : number + 1],
            target=CLASSES[number],
            feature_mask=torch.from_numpy(regions)[None, None],
            n_samples=30,
        )
        torch.testing.assert_close(found[number], theirs[0, 0].float(), rtol=1e-5, atol=1e-5)
    close(found, expected)


def shap_draws(samples, count):
    """As the method draws them: the size of a set, then which regions it has."""
    generator = seeded(5)
    sizes = torch.arange(1, count, dtype=torch.float64)
    size = 1 + torch.multinomial(1 / (sizes * (count - sizes)), samples, replacement=True, generator=generator)
    order = torch.rand(samples, count, generator=generator).argsort(1).argsort(1)
    return (order < size[:, None]).long()


@each_size
def test_kernel_shap_equals_slow_twin_and_captums(dimensions):
    segments = halves(dimensions)
    found = explained("kernel_shap", dimensions, samples=40, segments=segments, baseline="blur")
    nothing = absent(images(dimensions), "blur")
    expected = []
    for number, ((score, image), regions) in enumerate(zip(each(dimensions), numbered(segments), strict=True)):
        count = int(regions.max() + 1)
        draws = shap_draws(40, count)
        expected.append(oracle.kernel_shap(score, image, nothing[number].double().numpy(), regions, draws.numpy()))
        with_ends = torch.cat([torch.tensor([[1], [0]]).expand(2, count), draws])

        def given(*_, draws=with_ends, **__):
            yield from draws[:, None]

        peer = captum.attr.KernelShap(small(dimensions, nn.Tanh))
        peer.perturb_func = given
        theirs = peer.attribute(
            images(dimensions)[number : number + 1],
            baselines=nothing[number : number + 1],
            target=CLASSES[number],
            feature_mask=torch.from_numpy(regions)[None, None],
            n_samples=42,
        )
        torch.testing.assert_close(found[number], theirs[0, 0].float(), rtol=1e-4, atol=1e-5)
    close(found, expected)


def asking(score):
    """What a method is told of a score: all rows at once."""
    return lambda images, make: score(make(torch.arange(len(images))))


def test_kernel_shap_of_many_samples_are_the_shapley_values():
    """Of four regions there are fourteen sets: a large sample is all of them, by their weights."""
    segments = grid_cells(torch.zeros(1, 1, 2, 2), count=4)

    def score(image):
        return image[..., 0, 0, 0] * image[..., 0, 0, 1] + image[..., 0, 1, 0] * (1 - image[..., 0, 0, 0])

    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    found = kernel_shap(image, asking(score), seeded(), samples=20000, segments=segments, baseline="zero")
    expected = oracle.shapley(score, image[0].numpy(), image[0].numpy() * 0, segments[0].numpy())
    torch.testing.assert_close(found[0], torch.tensor(expected).float(), rtol=0.02, atol=0.03)


def test_the_parts_of_kernel_shap_add_up():
    model, batch = small(2), images(2)
    found = seewhy.explain(model, batch, CLASSES, method="kernel_shap", regions=9, baseline="mean")
    change = found.scores - model(absent(batch, "mean"))[[0, 1], CLASSES].detach()
    for parts, regions, expected in zip(found.maps["input"], superpixels(batch, count=9), change, strict=True):
        sizes = regions.flatten().bincount()[regions]
        torch.testing.assert_close((parts / sizes).sum(), expected, rtol=1e-4, atol=1e-5)


def test_an_image_without_superpixels_is_cut_into_cells():
    """SLIC makes one region of noise; two flat halves stay two regions beside it."""
    image = torch.rand(2, 3, 32, 32, generator=seeded())
    image[1] = (torch.arange(32) < 16).float() * 0.8
    assert superpixels(image, count=4).flatten(1).amax(1).tolist()[0] == 0
    found = _segments(image, None, 4)
    assert torch.equal(found[0], grid_cells(image, count=4)[0])
    assert torch.equal(found[1], superpixels(image, count=4)[1])


def test_an_image_of_one_region_has_all_of_the_change():
    found = kernel_shap(
        torch.ones(1, 1, 2, 2),
        asking(lambda rows: rows.sum((1, 2, 3))),
        seeded(),
        segments=torch.zeros(1, 2, 2, dtype=torch.long),
        baseline="zero",
    )
    torch.testing.assert_close(found, torch.full((1, 2, 2), 4.0))


def test_segments_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"segments do not fit(.|\n)*\(2, 8, 8\)"):
        explained("lime", 2, segments=torch.zeros(1, 8, 8, dtype=torch.long))


# Cells of a grid


@each_size
def test_sobol_equals_slow_twin(dimensions):
    found = explained("sobol", dimensions, designs=8, cells=2, baseline="mean")
    seed = int(torch.randint(2**62, (), generator=seeded(5)))
    count = 2**dimensions
    drawn = SobolEngine(2 * count, scramble=True, seed=seed).draw(8).double().numpy()
    A, B = (half.reshape(8, *[2] * dimensions) for half in (drawn[:, :count], drawn[:, count:]))
    nothing = absent(images(dimensions), "mean").double().numpy()
    expected = [
        arrays.resize(oracle.sobol(score, image, mean, A, B), image.shape[1:])
        for (score, image), mean in zip(each(dimensions), nothing, strict=True)
    ]
    close(found, expected, 1e-4)


class Sum(nn.Module):
    """The sum of four quarters of a picture of ones, weighted 0, 1, 2 and 3."""

    def forward(self, image):
        quarters = torch.stack([half.mean((1, 2, 3)) for side in image.chunk(2, 2) for half in side.chunk(2, 3)], 1)
        return quarters @ torch.tensor([0.0, 1.0, 2.0, 3.0])[:, None]


def test_sobol_indices_of_a_sum_are_its_shares_of_variance():
    """They are 0, 1, 4 and 9 fourteenths."""
    found = sobol(torch.ones(1, 1, 4, 4), asking(lambda rows: Sum()(rows)[:, 0]), seeded(), designs=1024, cells=2)
    corners = found[0, ::3, ::3].flatten()
    torch.testing.assert_close(corners, torch.tensor([0.0, 1.0, 4.0, 9.0]) / 14, rtol=0, atol=0.05)


@each_size
def test_hsic_equals_slow_twin(dimensions):
    found = explained("hsic", dimensions, samples=14, cells=2, baseline="blur")
    order = torch.rand(14, 2**dimensions, generator=seeded(5)).argsort(0)
    masks = (order < 7).double().numpy().reshape(14, *[2] * dimensions)
    assert (masks.sum(0) == 7).all()
    nothing = absent(images(dimensions), "blur").double().numpy()
    expected = [
        arrays.resize(oracle.hsic(score, image, blurred, masks), image.shape[1:])
        for (score, image), blurred in zip(each(dimensions), nothing, strict=True)
    ]
    close(found, expected, 1e-4)


def test_hsic_finds_what_the_score_depends_on():
    found = hsic(torch.ones(1, 1, 4, 4), asking(lambda rows: Sum()(rows)[:, 0]), seeded(), samples=256, cells=2)
    corners = found[0, ::3, ::3].flatten()
    assert corners.tolist() == sorted(corners)
    assert corners[0] < 0.1 * corners[3]


@pytest.mark.parametrize("method", ["sobol", "hsic"])
def test_a_score_that_never_changes_depends_on_nothing(method):
    class Constant(nn.Module):
        def forward(self, image):
            return image.flatten(1).sum(1, keepdim=True) * 0 + 2

    with pytest.warns(seewhy.errors.MapWarning, match="zero everywhere"):
        found = seewhy.explain(Constant(), torch.rand(1, 1, 4, 4), 0, method=method, cells=2, **FEW[method])
    assert not found.maps["input"].any()


def test_numbers_that_are_too_small_or_large_are_refused():
    with pytest.raises(InputError, match="`designs` is too small"):
        explained("sobol", 2, designs=1)
    with pytest.raises(InputError, match=r"too many cells(.|\n)*12769"):
        explained("sobol", 2, cells=113)
    with pytest.raises(InputError, match="`samples` is too small"):
        explained("hsic", 2, samples=3)
