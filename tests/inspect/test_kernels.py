"""The kernels of a model, as tensors."""

import pytest
import torch
from torch import nn

from seewhy.errors import LayerError
from seewhy.inspect import kernels


def test_the_first_convolution_unless_told():
    model = nn.Sequential(nn.Linear(2, 2), nn.Conv2d(3, 2, (1, 2)), nn.Conv3d(2, 1, 2))
    found = kernels(model)
    assert list(found) == ["1"]
    assert torch.equal(found["1"], model[1].weight)
    assert not found["1"].requires_grad
    assert {name: tuple(weight.shape) for name, weight in kernels(model, ["2", "1"]).items()} == {
        "2": (1, 2, 2, 2, 2),
        "1": (2, 3, 1, 2),
    }


def test_layers_without_kernels_are_refused():
    with pytest.raises(LayerError, match="no convolution"):
        kernels(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(LayerError, match="0 has no kernels"):
        kernels(nn.Sequential(nn.Linear(2, 2)), "0")
    with pytest.raises(LayerError, match="0 has no kernels"):
        kernels(nn.Sequential(nn.Conv1d(2, 2, 3)), "0")
    with pytest.raises(LayerError, match="no layer 'conv9'"):
        kernels(nn.Sequential(nn.Conv2d(1, 1, 1)), "conv9")
