"""Gradients at the image, along paths and at noisy copies: by hand, from float64 oracles, beside captum."""

from __future__ import annotations

import itertools

import captum.attr
import numpy as np
import pytest
import torch
from torch import nn

import seewhy
from seewhy import methods
from seewhy.errors import InputError, MapWarning
from seewhy.images import arrays
from tests.oracles import attribution as oracle

pytestmark = pytest.mark.filterwarnings("ignore:.*misses up to:seewhy.errors.MapWarning")  # of few steps

CLASSES = [2, 0]
NOISY = {"smooth_grad": "smoothgrad", "smooth_grad_squared": "smoothgrad_sq", "var_grad": "vargrad"}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small(dimensions):
    """Smooth, not linear anywhere: two convolutions with SiLU, a dense head on all places."""
    kind = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
    torch.manual_seed(3)
    body = [kind(2, 4, 3, padding=1), nn.SiLU(), kind(4, 3, 3, stride=2, padding=1), nn.SiLU(), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(3 * (9 if dimensions == 2 else 8), 3)).eval()


SIZES = {2: (6, 5), 3: (4, 3, 3)}
each_size = pytest.mark.parametrize("dimensions", [2, 3])


def images(dimensions, count=2):
    return torch.randn(count, 2, *SIZES[dimensions], generator=seeded(7))


def in_float64(dimensions):
    """For each image its (score, slope) functions of numpy arrays, in float64."""
    model = small(dimensions).double()

    def of(number):
        def score(image):
            return model(torch.from_numpy(image)[None])[0, number].item()

        def slope(image):
            leaf = torch.from_numpy(image)[None].requires_grad_()
            return torch.autograd.grad(model(leaf)[0, number], leaf)[0][0].numpy()

        return score, slope

    return [of(number) for number in CLASSES]


def explained(method, dimensions, **options):
    return seewhy.explain(small(dimensions), images(dimensions), CLASSES, method=method, **options)


def close(found, expected):
    expected = np.stack(expected) if isinstance(expected, list) else expected
    torch.testing.assert_close(found, torch.as_tensor(expected).to(found), rtol=1e-5, atol=1e-5)


# At the image


@each_size
def test_saliency_is_the_slope_summed_over_channels(dimensions):
    slopes = [
        oracle.central_difference(score, image.double().numpy())
        for image, (score, _) in zip(images(dimensions), in_float64(dimensions), strict=True)
    ]
    found = explained("saliency", dimensions)
    assert found.layers == ("input",)
    close(found.maps["input"], [slope.sum(0) for slope in slopes])
    close(explained("saliency", dimensions, absolute=True).maps["input"], [abs(slope).max(0) for slope in slopes])
    products = [(slope * image.numpy()).sum(0) for slope, image in zip(slopes, images(dimensions), strict=True)]
    close(explained("input_x_gradient", dimensions).maps["input"], products)


@each_size
def test_saliency_and_input_x_gradient_equal_captums(dimensions):
    model, x = small(dimensions), images(dimensions)
    theirs = captum.attr.Saliency(model).attribute(x.clone(), target=CLASSES, abs=False)
    close(explained("saliency", dimensions).maps["input"], theirs.sum(1).detach())
    theirs = captum.attr.InputXGradient(model).attribute(x.clone(), target=CLASSES)
    close(explained("input_x_gradient", dimensions).maps["input"], theirs.sum(1).detach())


# Along a path


class Quadratic(nn.Module):
    """S = (sum of x)^2 / 2 + 3 x_0: the gradient is linear on any line."""

    def forward(self, image):
        flat = image.flatten(1)
        return (flat.sum(1) ** 2 / 2 + 3 * flat[:, 0])[:, None]


def test_integrated_gradients_by_hand():
    """On the way from 0 to (1, 2) the mean of the sum is 3/2: 1 * (3/2 + 3) and 2 * 3/2. They add up to S = 15/2."""
    image = torch.tensor([[[[1.0, 2.0]]]])
    for steps in (1, 2, 7):  # one point is exact for a linear gradient
        found = seewhy.explain(Quadratic(), image, lambda out: out[:, 0], method="integrated_gradients", steps=steps)
        torch.testing.assert_close(found.maps["input"], torch.tensor([[[4.5, 3.0]]]))
        torch.testing.assert_close(found.gap, torch.zeros(1), rtol=0, atol=1e-6)


@each_size
@pytest.mark.parametrize("baseline", ["zero", "mean", "blur", "given", "several"])
def test_integrated_gradients_equal_slow_twin(dimensions, baseline):
    x = images(dimensions)
    given = torch.randn(x.shape, generator=seeded(1))
    blurred = x
    for dim in range(2, x.ndim):
        blurred = arrays.blur(blurred, x.shape[dim] / 20, (dim,))
    means = x.mean(tuple(range(2, x.ndim)), keepdim=True).expand_as(x)
    starts = {"zero": [x * 0], "mean": [means], "blur": [blurred], "given": [given], "several": [x * 0, given]}
    option = {"given": given, "several": ["zero", given]}.get(baseline, baseline)
    found = explained("integrated_gradients", dimensions, steps=6, baseline=option)
    expected = [
        np.mean([oracle.integrated_gradients(slope, image, start, 6) for start in begins], 0).sum(0)
        for (_, slope), image, begins in zip(
            in_float64(dimensions),
            x.double().numpy(),
            np.stack([start.double().numpy() for start in starts[baseline]], 1),
            strict=True,
        )
    ]
    close(found.maps["input"], expected)
    changes = [
        score(image) - np.mean([score(start) for start in begins])
        for (score, _), image, begins in zip(
            in_float64(dimensions),
            x.double().numpy(),
            np.stack([start.double().numpy() for start in starts[baseline]], 1),
            strict=True,
        )
    ]
    missing = [abs(part.sum() - change) for part, change in zip(expected, changes, strict=True)]
    close(found.gap * torch.tensor(changes).abs().float(), np.array(missing))


@each_size
@pytest.mark.parametrize("steps", [5, 50])
def test_integrated_gradients_equal_captums(dimensions, steps):
    x = images(dimensions)
    theirs = captum.attr.IntegratedGradients(small(dimensions)).attribute(x, target=CLASSES, n_steps=steps)
    close(explained("integrated_gradients", dimensions, steps=steps).maps["input"], theirs.sum(1).float())


def test_a_wide_gap_warns_and_is_told():
    class Step(nn.Module):
        """Nothing until the sum is 0.9 of the image's."""

        def forward(self, image):
            return torch.sigmoid(200 * (image.flatten(1).sum(1, keepdim=True) - 0.9))

    image = torch.full((2, 1, 2, 2), 0.25)
    image[1] = 0  # where nothing changes there is no gap
    with pytest.warns(MapWarning, match=r"integrated_gradients map of image 0 misses up to \d+%(.|\n)*more steps"):
        found = seewhy.explain(Step(), image, lambda out: out[:, 0], method="integrated_gradients", steps=4)
    part = found.maps["input"].sum((1, 2))
    torch.testing.assert_close(found.gap[0], (found.scores[0] - part[0]).abs() / found.scores[0])
    assert found.gap[1] == 0
    assert found[1:].gap.shape == (1,)


def test_the_gap_is_kept_in_the_file(tmp_path):
    found = explained("integrated_gradients", 2, steps=2)
    kept = seewhy.Explanation.load(found.save(tmp_path / "found.npz"))
    torch.testing.assert_close(kept.gap, found.gap)


@each_size
def test_expected_gradients_equal_slow_twin_and_captums(dimensions, monkeypatch):
    x = images(dimensions)
    references = torch.randn(3, *x.shape[1:], generator=seeded(5))
    found = explained("expected_gradients", dimensions, samples=8, baseline=references, generator=seeded(4))
    draws = seeded(4)
    numbers, shares = torch.randint(3, (8,), generator=draws), torch.rand(8, generator=draws)
    starts = references[numbers].double().numpy()
    expected = [
        oracle.expected_gradients(slope, image, starts, shares.double().numpy()).sum(0)
        for (_, slope), image in zip(in_float64(dimensions), x.double().numpy(), strict=True)
    ]
    close(found.maps["input"], expected)
    for number, image in enumerate(x):  # captum draws anew for each image
        monkeypatch.setattr(np.random, "choice", lambda *_: numbers.numpy())
        monkeypatch.setattr(np.random, "uniform", lambda *_: shares.double().numpy())
        peer = captum.attr.GradientShap(small(dimensions))
        theirs = peer.attribute(image[None], references, n_samples=8, stdevs=0.0, target=CLASSES[number])
        close(found.maps["input"][number], theirs[0].sum(0).detach())


@each_size
@pytest.mark.parametrize("distance", [0.05, 1.0])
def test_guided_integrated_gradients_equal_slow_twin(dimensions, distance):
    options = {"steps": 9, "fraction": 0.3, "max_distance": distance}
    model, x = small(dimensions).double(), images(dimensions).double()
    found = seewhy.explain(model, x, CLASSES, method="guided_integrated_gradients", baseline="mean", **options)
    starts = x.mean(tuple(range(2, x.ndim)), keepdim=True).expand_as(x).numpy()
    expected = [
        oracle.guided_integrated_gradients(slope, image, start, 9, 0.3, distance).sum(0)
        for (_, slope), image, start in zip(in_float64(dimensions), x.numpy(), starts, strict=True)
    ]
    close(found.maps["input"], expected)


def test_guided_integrated_gradients_on_the_straight_line_are_a_riemann_sum():
    x = images(2).double()
    model = small(2).double()
    found = seewhy.explain(model, x, CLASSES, method="guided_integrated_gradients", max_distance=0.0, steps=40)
    expected = [
        (image * np.mean([slope(image * step / 40) for step in range(40)], 0)).sum(0)
        for (_, slope), image in zip(in_float64(2), x.numpy(), strict=True)
    ]
    close(found.maps["input"], expected)


# At noisy copies


@each_size
@pytest.mark.parametrize("method", NOISY)
def test_noisy_gradients_equal_slow_twin_and_captums(dimensions, method, monkeypatch):
    x = images(dimensions)
    found = explained(method, dimensions, samples=6, noise=0.3, generator=seeded(2)).maps["input"]
    drawn = torch.randn(6, *x.shape[1:], generator=seeded(2))
    make = {"smooth_grad": np.mean, "smooth_grad_squared": lambda g, axis: np.mean(g**2, axis), "var_grad": np.var}
    expected = [
        make[method](oracle.noisy_gradients(slope, image, 0.3, drawn.double().numpy()), 0).sum(0)
        for (_, slope), image in zip(in_float64(dimensions), x.double().numpy(), strict=True)
    ]
    close(found, expected)
    for number, image in enumerate(x):
        deviation = float(0.3 * (image.max() - image.min()))
        monkeypatch.setattr(torch, "normal", lambda mean, std: std * drawn.to(std))
        peer = captum.attr.NoiseTunnel(captum.attr.Saliency(small(dimensions)))
        theirs = peer.attribute(
            image[None], nt_type=NOISY[method], nt_samples=6, stdevs=deviation, target=CLASSES[number], abs=False
        )
        close(found[number], theirs[0].sum(0).detach())


# All of them

ON_THE_INPUT = [
    name for name, found in methods.available().items() if found.family == "attribution" and "low_pass" in found.options
]
FEW = {name: {"samples": 4} for name in (*NOISY, "expected_gradients")} | {
    "integrated_gradients": {"steps": 8},
    "guided_integrated_gradients": {"steps": 8},
}


@each_size
@pytest.mark.parametrize("cutoff", [2, 3])
def test_low_pass_equals_the_transform_written_out(dimensions, cutoff):
    values = torch.randn(2, *SIZES[dimensions], generator=seeded(9), dtype=torch.float64)
    expected = [oracle.low_pass(one, cutoff) for one in values.numpy()]
    torch.testing.assert_close(arrays.low_pass(values, cutoff, dimensions), torch.from_numpy(np.stack(expected)))
    whole = arrays.low_pass(values, min(SIZES[dimensions]), dimensions)
    torch.testing.assert_close(whole, values)  # the shortest side's length keeps everything


@pytest.mark.parametrize("method", ON_THE_INPUT)
def test_every_gradient_map_on_the_input_takes_a_low_pass(method):
    options = FEW.get(method, {})
    plain, found = (explained(method, 2, low_pass=cutoff, **options).maps["input"] for cutoff in (None, 2))
    close(found, [oracle.low_pass(one, 2) for one in plain.double().numpy()])
    assert (plain - found).abs().max() > 0.01 * plain.abs().max()
    torch.testing.assert_close(found.sum((1, 2)), plain.sum((1, 2)), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="nothing would be left"):
        explained(method, 2, low_pass=0, **options)


@pytest.mark.parametrize("method", ON_THE_INPUT)
def test_every_gradient_map_on_the_input_takes_a_blur(method):
    """A share of each side. What the map adds up to stays."""
    options = FEW.get(method, {})
    plain, found = (explained(method, 2, blur=share, **options).maps["input"] for share in (None, 0.2))
    close(found, [oracle.blurred(one, 0.2) for one in plain.double().numpy()])
    torch.testing.assert_close(found.sum((1, 2)), plain.sum((1, 2)), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="nothing would be left"):
        explained(method, 2, blur=0.0, **options)


LOCAL = {"local_libra_grad": "libra_grad", "local_integrated_gradients": "integrated_gradients"}


@each_size
@pytest.mark.parametrize("method", LOCAL)
def test_a_local_map_is_its_pixels_map_under_a_window(method, dimensions):
    """The SiLU's gate is a constant on the way back for both: `gradients="libra"`."""
    options = FEW.get(LOCAL[method], {})
    pixels = explained(LOCAL[method], dimensions, gradients="libra", **options).maps["input"]
    found = explained(method, dimensions, window=0.4, **options)
    close(found.maps["input"], [oracle.blurred(one, 0.4) for one in pixels.double().numpy()])
    assert found.gap is None  # few steps, and gates that are held, account for no change of the score
    plain = explained(LOCAL[method], dimensions, **options).maps["input"]
    if method == "local_integrated_gradients":
        assert (plain - pixels).abs().max() > 0.01 * plain.abs().max()


@pytest.mark.parametrize("method", ON_THE_INPUT)
def test_targets_of_one_image_are_each_like_one(method):
    options = FEW.get(method, {})
    both = seewhy.explain(small(2), images(2), torch.tensor([[2, 1], [0, 2]]), method=method, **options)
    alone = explained(method, 2, **options)
    torch.testing.assert_close(both.maps["input"][:, 0], alone.maps["input"])
    if alone.gap is not None:
        torch.testing.assert_close(both.gap[:, 0], alone.gap)


def test_rows_that_depend_on_each_other_run_alone():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = small(2)

        def forward(self, image):
            return self.body(image - image.mean(0, keepdim=True) * (len(image) > 1))

    with pytest.warns(seewhy.errors.ReplayWarning, match="depend on each other"):
        found = seewhy.explain(Centred(), images(2)[:1], 2, method="smooth_grad", samples=4)
    expected = seewhy.explain(small(2), images(2)[:1], 2, method="smooth_grad", samples=4)
    torch.testing.assert_close(found.maps, expected.maps)


@pytest.mark.parametrize(
    ("method", "option"), [*itertools.product(NOISY, ["samples"]), ("integrated_gradients", "steps")]
)
def test_counts_start_at_one(method, option):
    with pytest.raises(InputError, match=f"`{option}` is too small"):
        explained(method, 2, **{option: 0})


def test_baselines_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="no such baseline"):
        explained("integrated_gradients", 2, baseline="black")
    with pytest.raises(InputError, match="baseline is of another shape"):
        explained("integrated_gradients", 2, baseline=torch.zeros(1, 2, 3, 3))
    with pytest.raises(InputError, match="no baseline was given"):
        explained("integrated_gradients", 2, baseline=[])
    with pytest.raises(InputError, match=r"references do not fit(.|\n)*\(K, 2, 6, 5\)"):
        explained("expected_gradients", 2, baseline=torch.zeros(3, 1, 6, 5))
    with pytest.raises(InputError, match="fraction is out of range"):
        explained("guided_integrated_gradients", 2, fraction=0.0)
