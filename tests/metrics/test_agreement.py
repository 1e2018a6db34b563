"""Infidelity, sensitivity-n, faithfulness correlation and estimate, SaCo, IROF: by hand, from oracles, beside peers."""

from __future__ import annotations

import captum.metrics
import numpy as np
import pytest
import quantus
import skimage.segmentation
import torch

from seewhy import metrics
from seewhy.errors import InputError
from seewhy.images import absent as regions
from tests.metrics.cases import alone, classifier, images, maps, seeded, tied
from tests.oracles.metrics import faithfulness as oracle

SCORE = metrics.probability(classifier(), 2)
NAMES = ("infidelity", "sensitivity_n", "faithfulness_correlation", "faithfulness_estimate", "saco", "irof")
FEW = {"sensitivity_n": {"subsets": 4, "sizes": (8, 30)}, "faithfulness_estimate": {"groups": 8}}
QUIET = {"disable_warnings": True, "display_progressbar": False}


def close(found, expected, atol=1e-12):
    torch.testing.assert_close(found, torch.as_tensor(np.asarray(expected), dtype=found.dtype), rtol=0, atol=atol)


def each(x, heat):
    return zip(x.numpy(), heat.numpy(), strict=True)


def linear(rows):
    """8 x + 4 y + 2 z + 1 w: what is lost without a pixel is known."""
    return (rows[:, 0] * torch.tensor([[8.0, 4.0], [2.0, 1.0]])).sum((1, 2))


# by hand


def test_a_map_that_is_the_model():
    x = torch.ones(1, 1, 2, 2)
    heat = torch.tensor([[[8.0, 4.0], [2.0, 1.0]]])
    close(metrics.infidelity(linear, x, heat, scaled=False), [0])
    close(metrics.infidelity(linear, x, heat / 7), [0], 1e-10)
    close(metrics.faithfulness_correlation(linear, x, heat, size=2), [1], 1e-6)
    close(metrics.sensitivity_n(linear, x, heat, sizes=(1, 3)), [1], 1e-6)
    close(metrics.faithfulness_estimate(linear, x, heat, groups=4), [1], 1e-6)
    close(metrics.saco(linear, x, heat, groups=4, baseline="zero"), [1])


def test_by_hand():
    """One perturbation, to zero: the score loses 15, a map of ones says 4, and 11² = 121. Scaled it is right.

    Groups cost 8, 4, 2, 1; the map (1, 4, 3, 2) puts 4, 2, 1, 8 with the sums 4, 3, 2, 1. Pairs: 4 > 2 (1), 4 > 1 (2),
    4 < 8 (-3), 2 > 1 (1), 2 < 8 (-2), 1 < 8 (-1): -2 of 10.
    IROF: regions are pixels, so that 15, 11, 9, 8, 0 are left: 1 - (15 / 2 + 11 + 9 + 8 + 0) / 15 / 4.
    """
    x = torch.ones(1, 1, 2, 2)
    ones, heat = torch.ones(1, 2, 2), torch.tensor([[[1.0, 4.0], [3.0, 2.0]]])
    zero = {"perturb": torch.zeros_like, "samples": 1}
    close(metrics.infidelity(linear, x, ones, scaled=False, **zero), [121])
    close(metrics.infidelity(linear, x, ones, **zero), [0])
    close(metrics.saco(linear, x, heat, groups=4, baseline="zero"), [-0.2])
    cells = torch.arange(4).reshape(1, 2, 2)
    close(metrics.irof(linear, x, heat, segments=cells, baseline="zero"), [1 - 35.5 / 60], 1e-6)


# from the oracle


@pytest.mark.parametrize("scaled", [True, False])
def test_infidelity_from_the_oracle(scaled):
    x = images()
    heat, noise = maps(x), [torch.randn(x.shape, generator=seeded(n), dtype=torch.float64) for n in range(5)]
    draws = iter(noise * 2)
    found = metrics.infidelity(SCORE, x, heat, perturb=lambda rows: rows - next(draws), samples=5, scaled=scaled)
    expected = [
        oracle.infidelity(alone(SCORE), i, m, [i - n[b].numpy() for n in noise], scaled)
        for b, (i, m) in enumerate(each(x, heat))
    ]
    close(found, expected)


def test_infidelity_of_squares():
    """Every perturbation is a square of a quarter of the side, the same one in all images."""
    x, seen = images(side=8), []

    def score(rows):
        seen.append(rows)
        return SCORE(rows)

    metrics.infidelity(score, x, maps(x), samples=40, baseline="zero")
    holes = (torch.cat(seen).reshape(41, *x.shape)[1:] == 0).all(2)
    assert holes[:, 0].equal(holes[:, 1])
    corners = set()
    for hole in holes[:, 0]:
        places = hole.nonzero()
        assert len(places) == 4
        assert (places.amax(0) - places.amin(0)).tolist() == [1, 1]
        corners.add(tuple(places.amin(0).tolist()))
    assert len(corners) > 20  # of 49, with 40 draws


def test_correlations_over_subsets_from_the_oracle():
    """Over the subsets that were drawn, found again by the same draws."""
    x = images()
    heat = maps(x)

    def expected(sizes, count):
        draws, per_size = seeded(), []
        for size in sizes:
            subsets = [torch.randperm(64, generator=draws)[:size].tolist() for _ in range(count)]
            places = [[divmod(number, 8) for number in subset] for subset in subsets]
            per_size.append(
                [
                    oracle.subset_correlation(alone(SCORE), i, m, places, oracle.baseline(i, "mean"))
                    for i, m in each(x, heat)
                ]
            )
        return np.mean(per_size, axis=0)

    options = {"baseline": "mean", "batch_size": 6}
    close(metrics.faithfulness_correlation(SCORE, x, heat, size=20, subsets=7, **options), expected([20], 7))
    close(metrics.sensitivity_n(SCORE, x, heat, sizes=(3, 30), subsets=5, **options), expected([3, 30], 5))
    default = [1, 2, 4, 8, 15, 27, 51]  # 0.64 * 80 ** (k / 7), twice 1
    close(metrics.sensitivity_n(SCORE, x, heat, subsets=4, **options), expected(default, 4))


def test_groups_from_the_oracle():
    x = images()
    heat = maps(x)
    zero, mean = (lambda i, name=name: oracle.baseline(i, name) for name in ("zero", "mean"))
    estimate = [
        oracle.subset_correlation(alone(SCORE), i, m, oracle.groups_of(m, 10), zero(i)) for i, m in each(x, heat)
    ]
    close(metrics.faithfulness_estimate(SCORE, x, heat, groups=10), estimate)
    saco = [oracle.saco(alone(SCORE), i, m, 10, mean(i)) for i, m in each(x, heat)]
    close(metrics.saco(SCORE, x, heat), saco)


def test_irof_from_the_oracle():
    """With a different number of regions in each image, whose numbers are no sequence."""
    x = images()
    heat = maps(x)
    cells = torch.stack([torch.randint(0, count, (8, 8), generator=seeded(count)) * 3 - 1 for count in (4, 9, 30)])
    expected = [
        oracle.irof(alone(SCORE), i, m, s.numpy(), oracle.baseline(i, "mean"))
        for (i, m), s in zip(each(x, heat), cells, strict=True)
    ]
    close(metrics.irof(SCORE, x, heat, segments=cells), expected)
    close(metrics.irof(SCORE, x, heat, segments=cells, batch_size=9), expected)


def test_volumes():
    x = images(2, side=4, channels=1, dims=3)
    score, heat = metrics.probability(classifier(channels=1, side=4, dims=3), 1), maps(x)
    mean = [oracle.baseline(i, "mean") for i in x.numpy()]
    pairs = list(zip(each(x, heat), mean, strict=True))
    close(metrics.saco(score, x, heat), [oracle.saco(alone(score), i, m, 10, o) for (i, m), o in pairs])
    cells = metrics.grid_cells(x, count=8)
    assert cells[0].unique(return_counts=True)[1].tolist() == [8] * 8
    found = metrics.irof(score, x, heat, segments=cells)
    close(found, [oracle.irof(alone(score), i, m, cells[0].numpy(), o) for (i, m), o in pairs])
    for name in NAMES:
        assert getattr(metrics, name)(score, x, heat, **FEW.get(name, {})).isfinite().all()


# regions


def test_regions():
    x = torch.rand(2, 3, 32, 32, generator=seeded())
    found = metrics.superpixels(x, count=20)
    for image, labels in zip(x, found, strict=True):
        picture = image.permute(1, 2, 0).double().numpy()
        assert (labels.numpy() == skimage.segmentation.slic(picture, n_segments=20, start_label=0)).all()
    cells = metrics.grid_cells(x, count=16)
    assert cells.shape == (2, 32, 32)
    assert cells[0, ::8, ::8].flatten().tolist() == list(range(16))


def test_a_grid_without_scikit_image(monkeypatch):
    monkeypatch.setattr(regions, "find_spec", lambda name: None)
    x = images(side=20)
    assert metrics.superpixels(x).equal(metrics.grid_cells(x))
    assert metrics.irof(lambda rows: rows.square().mean((1, 2, 3)), x, maps(x)).isfinite().all()


# beside captum and quantus


@pytest.mark.parametrize("scaled", [True, False])
def test_infidelity_is_captums(scaled):
    x = images()
    heat = torch.randn(x.shape, generator=seeded(3), dtype=torch.float64)
    noise = torch.randn(6, *x.shape, generator=seeded(4), dtype=torch.float64)
    draws = iter(noise)
    found = metrics.infidelity(SCORE, x, heat, perturb=lambda rows: rows - next(draws), samples=6, scaled=scaled)
    theirs = iter(noise)

    def perturb(rows):
        change = next(theirs)
        return change, rows - change

    expected = captum.metrics.infidelity(
        SCORE, perturb, x, heat, n_perturb_samples=6, max_examples_per_batch=len(x), normalize=scaled
    )
    close(found, expected.detach())


class Predicts(torch.nn.Module):
    """Quantus calls a module; float32 in, float32 out."""

    def __init__(self, channels=1, side=8):
        super().__init__()
        self.inner = classifier(channels=channels, side=side)

    def forward(self, x):
        return self.inner(x.double()).float()


def quantus_of(metric, x, heat, batch_size=64, softmax=True, **options):
    data = {"x_batch": x.numpy(), "y_batch": np.full(len(x), 2), "a_batch": heat[:, None].numpy()}
    model = Predicts(channels=x.shape[1], side=x.shape[-1]).eval()
    return metric(normalise=False, **options, **QUIET)(
        model=model, channel_first=True, softmax=softmax, batch_size=batch_size, **data
    )


def of_predicts(x):
    return metrics.probability(Predicts(channels=x.shape[1], side=x.shape[-1]).eval(), 2)


def black(x):
    return x.amin((1, 2, 3), keepdim=True).expand_as(x)


def test_faithfulness_correlation_is_that_of_quantus(monkeypatch):
    x = images(channels=1).float()
    heat, draws = maps(x).float(), seeded()
    subsets = iter([subset for _ in range(20) for subset in [torch.randperm(64, generator=draws)[:9].numpy()] * 3])
    monkeypatch.setattr(np.random, "choice", lambda *_, **__: next(subsets))
    theirs = quantus_of(quantus.FaithfulnessCorrelation, x, heat, nr_runs=20, subset_size=9, return_aggregate=False)
    found = metrics.faithfulness_correlation(of_predicts(x), x, heat, size=9, subsets=20, baseline=black(x))
    close(found, theirs, 1e-4)  # of differences of probabilities in float32


def test_faithfulness_estimate_is_that_of_quantus():
    x = images(channels=1).float()
    heat = maps(x).float()
    theirs = quantus_of(quantus.FaithfulnessEstimate, x, heat, features_in_step=8)
    found = metrics.faithfulness_estimate(of_predicts(x), x, heat, groups=8, baseline=black(x))
    close(found, theirs, 1e-4)


def test_sensitivity_n_of_quantus_is_of_the_first_batch_and_over_images():
    """One number for each size, correlated over images; a second batch changes nothing. Ours is over subsets.

    Its attributions are those of a step alone, and its losses those of all steps so far.
    """
    x = images(6, channels=1).float()
    heat = maps(x).float()
    options = {"features_in_step": 16, "return_aggregate": False}
    whole = quantus_of(quantus.SensitivityN, x, heat, **options)
    first = quantus_of(quantus.SensitivityN, x[:3], heat[:3], **options)
    parts = quantus_of(quantus.SensitivityN, x, heat, batch_size=3, **options)
    np.testing.assert_allclose(parts, first, atol=1e-6)
    assert np.abs(np.array(parts) - np.array(whole)).max() > 0.1
    assert len(whole) == 3
    found = metrics.sensitivity_n(of_predicts(x), x, heat, sizes=(16,), baseline=black(x))
    close(found[:3], metrics.sensitivity_n(of_predicts(x), x[:3], heat[:3], sizes=(16,), baseline=black(x[:3])), 1e-3)
    assert len(found) == 6


def test_infidelity_of_quantus_wants_patches_that_divide_the_image():
    """Where they do, one patch as large as the image is what ours is with one square."""
    x = images(channels=1).float()
    heat = maps(x).float()
    options = {"perturb_baseline": "black", "n_perturb_samples": 1}
    with pytest.raises(ValueError, match="reshape"):
        quantus_of(quantus.Infidelity, x, heat, perturb_patch_sizes=[3], **options)
    theirs = quantus_of(quantus.Infidelity, x, heat, perturb_patch_sizes=[8], **options)
    one = {"side": 1.0, "samples": 1, "scaled": False, "baseline": black(x)}
    close(metrics.infidelity(of_predicts(x), x, heat, **one), theirs, 0.01)  # of about 10,000, in float32
    assert metrics.infidelity(of_predicts(x), x, heat, side=3 / 8).isfinite().all()


def test_irof_of_quantus_fails_and_depends_on_the_other_images(monkeypatch):
    """It refuses colours, and `np.trapz` is gone. With it, what is removed becomes the mean of the whole batch."""
    x = images(channels=1, side=32).float() + torch.arange(3).reshape(3, 1, 1, 1)
    heat = maps(x).float()
    with pytest.raises(AssertionError, match="mask shape"):
        quantus_of(quantus.IROF, x.repeat(1, 3, 1, 1), heat, return_aggregate=False)
    with pytest.raises(AttributeError, match="trapz"):
        quantus_of(quantus.IROF, x, heat, return_aggregate=False)
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    together = quantus_of(quantus.IROF, x, heat, return_aggregate=False)
    single = [quantus_of(quantus.IROF, x[i : i + 1], heat[i : i + 1], return_aggregate=False)[0] for i in range(3)]
    assert np.abs(np.array(together) - np.array(single)).max() > 0.01
    score, regions = of_predicts(x), metrics.superpixels(x)
    ours = metrics.irof(score, x, heat, segments=regions)
    alone_ = [metrics.irof(score, x[i : i + 1], heat[i : i + 1], segments=regions[i : i + 1])[0] for i in range(3)]
    close(ours, torch.stack(alone_), 1e-5)


# what cannot be judged


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_judged(name):
    x = images()
    heat, options, metric = maps(x), FEW.get(name, {}), getattr(metrics, name)
    heat[1] = 0.1
    found = metric(SCORE, x, heat, **options)
    assert found.isnan().tolist() == [False, name != "infidelity", False]  # infidelity ranks nothing
    torch.testing.assert_close(metric(SCORE, x[2:], heat[2:], **options), found[2:], rtol=0, atol=1e-9)
    torch.testing.assert_close(
        metric(SCORE, x, heat, batch_size=9, **options), found, rtol=0, atol=1e-9, equal_nan=True
    )
    assert metric(lambda rows: rows.new_full((len(rows),), 0.1), x, maps(x), **options).isnan().all()
    with pytest.raises(InputError, match="resize the maps"):
        metric(SCORE, x, heat[:, :4], **options)
    with pytest.raises(InputError, match=r"images \[1\]"):
        metric(SCORE, x, heat.index_fill(0, torch.tensor([1]), torch.nan), **options)
    assert metric(SCORE, x, tied(x), **options).isfinite().all()
    state = torch.get_rng_state()
    first, second = (metric(SCORE, x, tied(x), generator=seeded(n), **options) for n in (1, 2))
    assert state.equal(torch.get_rng_state())
    assert name == "irof" or not first.equal(second)


def test_other_bad_input():
    x = images()
    heat = maps(x)
    assert metrics.infidelity(SCORE, x, torch.zeros_like(heat)).isnan().all()
    assert metrics.infidelity(SCORE, x, torch.zeros_like(heat), scaled=False).isfinite().all()
    assert metrics.irof(lambda rows: -SCORE(rows), x, heat).isnan().all()
    with pytest.raises(InputError, match="some of the pixels"):
        metrics.faithfulness_correlation(SCORE, x, heat, size=64)
    with pytest.raises(InputError, match="2 to 64 groups"):
        metrics.saco(SCORE, x, heat, groups=1)
    with pytest.raises(InputError, match="side is out of range"):
        metrics.infidelity(SCORE, x, heat, side=0)
    with pytest.raises(InputError, match="do not fit the images"):
        metrics.irof(SCORE, x, heat, segments=heat)
    with pytest.raises(InputError, match="samples"):
        metrics.infidelity(SCORE, x, heat, samples=0)
