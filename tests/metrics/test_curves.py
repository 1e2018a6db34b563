"""Insertion, deletion, pixel flipping and ROAD: by hand, from the oracle, and beside quantus."""

from __future__ import annotations

import math

import numpy as np
import pytest
import quantus
import torch

from seewhy import metrics
from seewhy.errors import InputError
from seewhy.metrics.faithfulness._absent import fill
from tests.metrics.cases import alone, classifier, images, maps, seeded, tied
from tests.oracles.metrics import faithfulness as oracle

SCORE = metrics.probability(classifier(), 2)
SHARES = (0.2, 0.5, 0.75)
EXACT = {"rtol": 0, "atol": 1e-12}
QUIET = {"disable_warnings": True, "display_progressbar": False}


def close(found, expected, **tolerance):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), **(tolerance or EXACT))


# by hand


def test_insertion_and_deletion_by_hand():
    """Score: the sum of four pixels 8, 4, 2, 1. Inserted one by one from zero: 0, 8, 12, 14, 15; taken: 15, 7, 3, 1, 0.

    The trapezoids are (0 / 2 + 8 + 12 + 14 + 15 / 2) / 4 = 10.375 and (15 / 2 + 7 + 3 + 1 + 0 / 2) / 4 = 4.625.
    """
    x = torch.tensor([[[[8.0, 4.0], [2.0, 1.0]]]])

    def score(images):
        return images.sum((1, 2, 3))

    heat = x[:, 0] / 8
    close(metrics.insertion(score, x, heat, baseline="zero", steps=4), [10.375])
    close(metrics.deletion(score, x, heat, baseline="zero", steps=4), [4.625])
    close(metrics.insertion_minus_deletion(score, x, heat, baseline="zero", steps=4), [5.75])
    close(metrics.insertion_minus_deletion(score, x, -heat, baseline="zero", steps=4), [-5.75])
    close(metrics.pixel_flipping(score, x, heat, steps=4), [15 - 26 / 5])
    curve = metrics.deletion_curve(score, x, heat, baseline="zero", steps=4)
    close(curve.shares, [[0, 0.25, 0.5, 0.75, 1]])
    close(curve.scores, [[15, 7, 3, 1, 0]])


def test_equal_pixels_go_together():
    """One hot pixel of 8, three equal ones: 0, 8 (a quarter of the pixels), 15 (all of them)."""
    x = torch.tensor([[[[8.0, 4.0], [2.0, 1.0]]]])
    heat = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    curve = metrics.insertion_curve(lambda x: x.sum((1, 2, 3)), x, heat, baseline="zero", steps=4)
    close(curve.shares, [[0, 0.25, 0.25, 1, 1]])
    close(curve.scores, [[0, 8, 8, 15, 15]])
    close(curve.area(), [4 / 4 + 0.75 * 23 / 2])


def test_a_single_hot_pixel_is_seen_however_few_the_steps():
    x = torch.rand(1, 1, 32, 32, generator=seeded())
    heat = torch.zeros(1, 32, 32)
    heat[0, 3, 5] = 1
    curve = metrics.insertion_curve(lambda x: x[:, 0, 3, 5], x, heat, baseline="zero", steps=4)
    close(curve.shares, [[0, 1 / 1024, 1 / 1024, 1, 1]])
    close(curve.scores[:, 1], x[:, 0, 3, 5])


def test_road_by_hand():
    """A row 0 9 1 4 4, without its hottest pixel: the 9 becomes the mean of its neighbours 0 and 1."""
    x = torch.tensor([[[[0.0, 9.0, 1.0, 4.0, 4.0]]]])
    curve = metrics.road_curve(lambda x: x[:, 0, 0, 1], x, x[:, 0] + torch.arange(5) / 10, shares=(0.2,), noise=0)
    close(curve.shares, [[0.2]])
    close(curve.scores, [[0.5]], rtol=0, atol=1e-6)


# from the oracle


@pytest.mark.parametrize("baseline", ["blur", "mean", "zero"])
@pytest.mark.parametrize("make", [maps, tied], ids=["distinct", "tied"])
def test_areas_from_the_oracle(baseline, make):
    x = images()
    heat = make(x)
    expected = {"insertion": [], "deletion": [], "pixel_flipping": []}
    for image, one in zip(x.numpy(), heat.numpy(), strict=True):
        other = oracle.baseline(image, baseline)
        for name in ("insertion", "deletion"):
            curve = oracle.curve(alone(SCORE), image, one, other, 6, name)
            expected[name].append(oracle.trapezoid(*curve))
        expected["pixel_flipping"].append(oracle.aopc(alone(SCORE), image, one, other, 6))
    for name, values in expected.items():
        close(getattr(metrics, name)(SCORE, x, heat, baseline=baseline, steps=6), values)


def test_a_volume_from_the_oracle():
    x = images(count=2, side=4, channels=1, dims=3)
    score = metrics.logit(classifier(channels=1, side=4, dims=3), 1)
    heat = maps(x)
    expected = []
    for image, one in zip(x.numpy(), heat.numpy(), strict=True):
        curve = oracle.curve(alone(score), image, one, oracle.baseline(image, "mean"), 5, "insertion")
        expected.append(oracle.trapezoid(*curve))
    close(metrics.insertion(score, x, heat, baseline="mean", steps=5), expected)
    assert metrics.deletion(score, x, heat, baseline="blur").isfinite().all()
    with pytest.raises(InputError, match="of images"):
        metrics.road(score, x, heat)


def test_given_images_as_the_baseline():
    x, other = images(), images(6)[3:]
    heat = maps(x)
    expected = [
        oracle.trapezoid(*oracle.curve(alone(SCORE), *arrays, 6, "insertion"))
        for arrays in zip(x.numpy(), heat.numpy(), other.numpy(), strict=True)
    ]
    close(metrics.insertion(SCORE, x, heat, baseline=other, steps=6), expected)


def test_road_from_the_oracle():
    x = images()
    heat = maps(x)
    found = {first: [] for first in ("most", "least")}
    for image, one in zip(x.numpy(), heat.numpy(), strict=True):
        for first, scores in found.items():
            scores.append(np.mean(oracle.road(alone(SCORE), image, one, SHARES, first)))
    most, least = (torch.tensor(np.array(scores)) for scores in found.values())
    close_enough = {"rtol": 0, "atol": 1e-6}  # an imputed pixel is exact to 1e-7 of the image
    close(metrics.road_most_relevant_first(SCORE, x, heat, shares=SHARES, noise=0), most, **close_enough)
    close(metrics.road_least_relevant_first(SCORE, x, heat, shares=SHARES, noise=0), least, **close_enough)
    close(metrics.road(SCORE, x, heat, shares=SHARES, noise=0), (least - most) / 2, **close_enough)


def test_road_as_a_baseline():
    x = images()
    heat = maps(x)
    curve = metrics.deletion_curve(SCORE, x, heat, baseline="road", steps=4)
    same = metrics.road_curve(SCORE, x, heat, shares=(0.25, 0.5, 0.75), noise=0)
    torch.testing.assert_close(curve.scores[:, 1:-1], same.scores, rtol=0, atol=0.02)  # noise of 0.01
    assert not curve.scores[:, 1:-1].equal(same.scores)


def test_a_map_of_zeros_loses_no_more_pixels_to_road():
    """80 of 100 pixels are 0; a comparison with the percentile would take all of them at once."""
    x = images(1, side=10)
    heat = torch.zeros(1, 10, 10, dtype=torch.float64)
    heat[0, :2] = maps(x)[0, :2]
    ours = fill(x, "zero", seeded())
    taken = []

    def score(rows):
        taken.extend((rows == x).all(1).logical_not().sum((1, 2)).tolist())
        return rows.sum((1, 2, 3))

    metrics.road_curve(score, x, heat, shares=(0.1, 0.5, 0.9))
    assert taken == [10, 50, 90]
    assert ours(heat[None] > 0).shape == (1, 1, 3, 10, 10)


# beside quantus


class Predicts(torch.nn.Module):
    """Quantus calls a module; float32 in, float32 out."""

    def __init__(self, side=8, channels=3):
        super().__init__()
        self.inner = classifier(side=side, channels=channels)

    def forward(self, x):
        return self.inner(x.double()).float()


def labels(count):
    return np.full(count, 2)


def test_pixel_flipping_beside_quantus(monkeypatch):
    """The same curve; its area fails there with NumPy 2.4, and leaves out the image before the first flip."""
    x = images(channels=1).float()
    heat, model = maps(x).float(), Predicts(channels=1).eval()
    black = x.amin((1, 2, 3), keepdim=True).expand_as(x)
    score = metrics.probability(model, 2)

    def theirs(**options):
        metric = quantus.PixelFlipping(features_in_step=16, perturb_baseline="black", **options, **QUIET)
        inputs = {"x_batch": x.numpy(), "y_batch": labels(3), "a_batch": heat[:, None].numpy()}
        return metric(model=model, channel_first=True, softmax=True, **inputs)

    curve = metrics.deletion_curve(score, x, heat, baseline=black, steps=4)
    close(curve.scores[:, 1:], theirs(), rtol=0, atol=1e-6)
    with pytest.raises(AttributeError, match="trapz"):
        theirs(return_auc_per_sample=True)
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    area = curve.area() * 4 - (curve.scores[:, 0] + curve.scores[:, 1]) / 2
    close(area, theirs(return_auc_per_sample=True), rtol=0, atol=1e-6)


def test_road_beside_quantus():
    """The same share of images that keep their class, but there of the first batch only; RGB images with maps raise."""
    x = images(6, channels=1).float()
    heat, model = maps(x).float(), Predicts(channels=1).eval()
    classes = model(x).argmax(1)

    def theirs(inputs, attributions, batch_size):
        metric = quantus.ROAD(percentages=[20, 50, 75], noise=0.0, **QUIET)
        data = {"x_batch": inputs.numpy(), "y_batch": classes[: len(inputs)].numpy(), "a_batch": attributions.numpy()}
        return list(metric(model=model, channel_first=True, batch_size=batch_size, **data).values())

    def keeps(rows):
        return (model(rows).argmax(1) == classes.repeat(len(rows) // len(classes))).float()

    curve = metrics.road_curve(keeps, x, heat, shares=(0.2, 0.5, 0.75), noise=0)
    shares = [int(64 * share) for share in (0.2, 0.5, 0.75)]
    assert shares == [12, 32, 48]  # quantus cuts 12.8 to 12 where we round to 13: the class is the same here
    assert theirs(x, heat[:, None], 64) == pytest.approx(curve.scores.mean(0).tolist())
    assert theirs(x, heat[:, None], 2) == pytest.approx(curve.scores[:2].mean(0).tolist())
    assert theirs(x, heat[:, None], 2) != pytest.approx(curve.scores.mean(0).tolist())
    model = Predicts().eval()
    with pytest.raises(IndexError):
        theirs(images(2).float(), heat[:2], 2)


# rounds, and what cannot be judged


def test_rows_come_in_whole_rounds():
    """Every row of a call is that of its image: a target for each, and the same numbers whatever the batch size."""
    x, target = images(), torch.tensor([4, 0, 2])
    heat, model, seen = maps(x), classifier(), []

    def score(rows):
        seen.append(len(rows))
        return metrics.logit(model, target)(rows)

    alone = [
        metrics.insertion(metrics.logit(model, int(t)), x[i : i + 1], heat[i : i + 1]) for i, t in enumerate(target)
    ]
    for batch_size, sizes in ((None, [3] * 33), (3, [3] * 33), (32, [30, 30, 30, 9])):
        seen.clear()
        found = metrics.insertion(score, x, heat, batch_size=batch_size)
        assert seen == sizes
        close(found, torch.cat(alone))
    with pytest.raises(InputError, match="fewer images"):
        metrics.insertion(score, x, heat, batch_size=2)


def test_road_is_the_same_whatever_the_batch_size():
    x = images()
    heat = tied(x)
    found = [metrics.road(SCORE, x, heat, batch_size=size) for size in (3, 12)]
    close(*found, rtol=0, atol=1e-6)  # the imputation stops when all of a call are exact to 1e-7
    torch.testing.assert_close(found[0][1:2], metrics.road(SCORE, x[1:2], heat[1:2]), rtol=0, atol=1e-6)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    metrics.road(SCORE, x, heat, generator=seeded(5))
    assert state.equal(torch.get_rng_state())


@pytest.mark.parametrize("name", ["insertion", "deletion", "insertion_minus_deletion", "pixel_flipping", "road"])
def test_what_cannot_be_judged_is_nan(name):
    x = images()
    heat = maps(x)
    heat[1] = 0.25
    found = getattr(metrics, name)(SCORE, x, heat)
    assert found.isnan().tolist() == [False, True, False]  # one value everywhere puts pixels in no order
    assert getattr(metrics, name)(lambda x: x.new_full((len(x),), 0.5), x, maps(x)).isnan().all()
    assert getattr(metrics, name)(SCORE, x[:1], heat[:1]).isfinite().all()


@pytest.mark.parametrize("name", ["insertion", "deletion", "insertion_minus_deletion", "pixel_flipping", "road"])
def test_bad_input_is_refused(name):
    x = images()
    metric, heat = getattr(metrics, name), maps(x)
    with pytest.raises(InputError, match="resize the maps"):
        metric(SCORE, x, heat[:, :4])
    with pytest.raises(InputError, match="resize the maps"):
        metric(SCORE, x, heat[:2])
    with pytest.raises(InputError, match=r"images \[1\]"):
        metric(SCORE, x, heat.index_fill(0, torch.tensor([1]), math.nan))
    with pytest.raises(InputError, match="one number for each row"):
        metric(lambda rows: rows.sum(), x, heat)
    with pytest.raises(InputError, match="real numbers"):
        metric(SCORE, x, heat > 0.5)


def test_bad_options_are_refused():
    x = images()
    heat = maps(x)
    with pytest.raises(InputError, match="no such baseline"):
        metrics.insertion(SCORE, x, heat, baseline="black")
    with pytest.raises(InputError, match="another shape"):
        metrics.insertion(SCORE, x, heat, baseline=x[0])
    with pytest.raises(InputError, match="steps"):
        metrics.insertion(SCORE, x, heat, steps=0)
    for shares in ((), (0.0, 0.5), (0.5, 1.0), (0.5, 0.2)):
        with pytest.raises(InputError, match="no shares"):
            metrics.road(SCORE, x, heat, shares=shares)
    with pytest.raises(InputError, match="targets for"):
        metrics.insertion(metrics.logit(classifier(), torch.tensor([0, 1])), x, heat)


def test_half_precision_and_no_gradient():
    x = images().half()
    heat = maps(x.double()).half()
    found = metrics.insertion(lambda rows: SCORE(rows.double()), x, heat, baseline="zero")
    expected = metrics.insertion(SCORE, x.double(), heat.double(), baseline="zero")
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    assert not metrics.insertion(SCORE, images().requires_grad_(), maps(images())).requires_grad
