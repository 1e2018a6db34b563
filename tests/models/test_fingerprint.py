"""The digest of a model's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn

from seewhy.models.fingerprint import weights_hash


def test_it_is_that_of_the_bits_and_the_names() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    first = weights_hash(model)
    assert weights_hash(copy.deepcopy(model).eval()) == first
    assert weights_hash(nn.Sequential(nn.Identity(), *model)) != first  # other names
    assert weights_hash(copy.deepcopy(model).double()) != first
    with torch.no_grad():
        model[0].bias[0] += 1e-6
    assert weights_hash(model) != first


def test_empty_scalars_bfloat16_and_strided_weights_have_one() -> None:
    model = nn.Linear(4, 2, dtype=torch.bfloat16)
    model.register_buffer("count", torch.tensor(3))
    model.register_buffer("empty", torch.empty(0))
    found = weights_hash(model)
    model.weight.data = model.weight.data.mT.contiguous().mT  # the same values in another order of memory
    assert weights_hash(model) == found
