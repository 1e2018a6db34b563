"""Average drop, increase and gain, ADCC and ARCC: by hand and from the oracle."""

from __future__ import annotations

import math

import pytest
import torch

from seewhy import metrics
from seewhy.errors import InputError
from tests.metrics.cases import alone, classifier, images, maps
from tests.oracles.metrics import faithfulness as oracle

SCORE = metrics.probability(classifier(), 2)
AVERAGES = ("average_drop", "average_increase", "average_gain")


def explain(rows):
    """A gradient-free stand-in: heat where the image is bright, in [0, 1]."""
    return torch.sigmoid(rows.sum(1) * 2)


def close(found, expected, atol=1e-12):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), rtol=0, atol=atol)


def test_averages_by_hand():
    """The score is the mean of the image: 0.5; what the map shows has 0.2 of it, and that of -1 of it 0.8."""
    x = torch.full((2, 1, 2, 2), 0.5)
    heat = torch.tensor([0.4, 0.4]).reshape(2, 1, 1).expand(2, 2, 2)

    def falls(rows):
        return rows.mean((1, 2, 3))

    def rises(rows):
        return 1 - rows.mean((1, 2, 3))

    close(metrics.average_drop(falls, x, heat), [0.6, 0.6], 1e-6)
    close(metrics.average_gain(rises, x, heat), [0.6, 0.6], 1e-6)
    close(metrics.average_increase(rises, x, heat), [1, 1])
    close(metrics.average_drop(rises, x, heat), [0, 0])
    close(metrics.average_gain(falls, x, heat), [0, 0])
    close(metrics.average_increase(falls, x, heat), [0, 0])
    close(metrics.average_drop(falls, x, heat, baseline=x * 2), [-0.0, 0], 1e-6)  # 0.2 + 0.6 of what is seen elsewhere


@pytest.mark.parametrize("name", AVERAGES)
@pytest.mark.parametrize("dims", [2, 3])
def test_averages_from_the_oracle(name, dims):
    x = images(side=4, dims=dims) * 4
    score, heat = metrics.probability(classifier(side=4, dims=dims), 2), maps(x)
    expected = [getattr(oracle, name)(alone(score), i, m) for i, m in zip(x.numpy(), heat.numpy(), strict=True)]
    close(getattr(metrics, name)(score, x, heat), expected)
    close(getattr(metrics, name)(score, x, heat, batch_size=6), expected)


def test_adcc_from_the_oracle():
    x = images()
    heat = explain(x)

    def one(image):
        return explain(torch.as_tensor(image)[None])[0].numpy()

    expected = [oracle.adcc(alone(SCORE), one, i, m) for i, m in zip(x.numpy(), heat.numpy(), strict=True)]
    close(metrics.adcc(SCORE, explain, x, heat), expected)


def test_arcc_from_the_oracle():
    x = images()
    score = metrics.probability(lambda rows: torch.stack([rows.sum((1, 2, 3)) / 40, rows[:, 0, 0, 0]], 1), 0)
    heat = explain(x)

    def one(image):
        return explain(torch.as_tensor(image)[None])[0].numpy()

    shares = (0.3, 0.6)
    expected = [oracle.arcc(alone(score), one, i, m, shares) for i, m in zip(x.numpy(), heat.numpy(), strict=True)]
    assert min(expected) > 0
    close(metrics.arcc(score, explain, x, heat, shares=shares, noise=0), expected, 1e-6)


def test_bad_input():
    x = images()
    heat = maps(x)
    for name in AVERAGES:
        metric = getattr(metrics, name)
        with pytest.raises(InputError, match="no probability"):
            metric(metrics.logit(classifier(), 2), x * 20, heat)
        with pytest.raises(InputError, match=r"\[0, 1\]"):
            metric(SCORE, x, heat - 0.5)
        with pytest.raises(InputError, match="resize the maps"):
            metric(SCORE, x, heat[..., 1:])
        with pytest.raises(InputError, match=r"images \[0, 1, 2\]"):
            metric(SCORE, x, heat * math.nan)
        close(metric(SCORE, x[:1], heat[:1]), metric(SCORE, x, heat)[:1])
    with pytest.raises(InputError, match="did not return a tensor"):
        metrics.adcc(SCORE, lambda rows: rows.sum(1).numpy(), x, heat)
    with pytest.raises(InputError, match="maps and images differ"):
        metrics.adcc(SCORE, lambda rows: rows, x, heat)


def test_what_is_not_defined():
    x = images()
    heat = maps(x)
    assert metrics.average_drop(lambda rows: rows.new_zeros(len(rows)), x, heat).isnan().all()
    assert metrics.average_gain(lambda rows: rows.new_ones(len(rows)), x, heat).isnan().all()
    heat[1] = 0.1  # correlates with nothing, and the mean of 64 tenths is not a tenth
    assert metrics.adcc(SCORE, explain, x, heat).isnan().tolist() == [False, True, False]
    assert metrics.arcc(SCORE, explain, x, heat).isnan().tolist() == [False, True, False]
