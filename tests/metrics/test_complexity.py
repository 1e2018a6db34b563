"""Entropy, effective size and sparseness: by hand, from the oracle, and beside quantus."""

from __future__ import annotations

import math

import numpy as np
import pytest
import quantus
import torch

from seewhy import metrics
from seewhy.errors import InputError
from tests.metrics.cases import images, maps
from tests.oracles.metrics import maps as oracle

NAMES = ("entropy", "effective_size", "sparseness")


def close(found, expected, atol=1e-12):
    torch.testing.assert_close(found, torch.as_tensor(np.asarray(expected), dtype=found.dtype), rtol=0, atol=atol)


def theirs(metric, heat):
    return metric(disable_warnings=True, normalise=False)(
        model=None,
        x_batch=heat[:, None].numpy(),
        y_batch=np.zeros(len(heat), int),
        a_batch=heat[:, None].numpy().copy(),
    )


def test_by_hand():
    """One pixel; two equal ones of either sign; four equal ones. Gini of 0 0 0 1: 3/4; of 0 0 1 1: 1/2."""
    heat = torch.tensor([[[0.0, 0, 0, 5]], [[0, 0, 2, -2]], [[0.1, 0.1, 0.1, 0.1]]])
    close(metrics.entropy(heat), [0, math.log(2), math.log(4)], 1e-6)
    close(metrics.effective_size(heat), [1, 2, 4], 1e-6)
    close(metrics.sparseness(heat), [0.75, 0.5, 0], 1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_from_the_oracle(dims):
    heat = maps(images(side=4, dims=dims)) - 0.4
    close(metrics.entropy(heat), [oracle.entropy(one) for one in heat])
    close(metrics.effective_size(heat), [math.exp(oracle.entropy(one)) for one in heat], 1e-10)
    close(metrics.sparseness(heat), [oracle.sparseness(one) for one in heat])


def test_beside_quantus():
    """The same for positive maps. Its entropy takes the logarithm of negative shares, unless they are made positive."""
    heat = maps(images()).float()
    close(metrics.entropy(heat), theirs(quantus.Complexity, heat), 1e-5)
    close(metrics.sparseness(heat), theirs(quantus.Sparseness, heat), 1e-5)
    close(metrics.sparseness(heat - 0.4), theirs(quantus.Sparseness, heat - 0.4), 1e-5)
    signed = quantus.Complexity(disable_warnings=True, normalise=False, abs=False)
    with np.errstate(invalid="ignore"):
        found = signed(None, heat[:, None].numpy(), np.zeros(3, int), (heat - 0.4)[:, None].numpy())
    assert np.isnan(found).all()
    assert metrics.entropy(heat - 0.4).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_judged(name):
    heat = maps(images())
    heat[1] = 0
    found = getattr(metrics, name)(heat)
    assert found.isnan().tolist() == [False, True, False]  # nothing has no shares
    close(getattr(metrics, name)(heat[2:]), found[2:])
    assert getattr(metrics, name)(heat.half()).dtype == torch.float32
    with pytest.raises(InputError, match=r"images \[2\]"):
        getattr(metrics, name)(heat.index_fill(0, torch.tensor([2]), math.nan))
    with pytest.raises(InputError, match="no maps"):
        getattr(metrics, name)(heat[0, 0])
