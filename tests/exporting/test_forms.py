"""The forms of gradients for ONNX against the operations that they stand for, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seewhy.exporting._forms import FORMS

aten = torch.ops.aten


def image(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"), [(1, 0, 1, 1), (2, 1, 1, 2), (3, 2, 2, 4), ((2, 1), (0, 3), 1, 1)]
)
@pytest.mark.parametrize("transposed", [False, True])
def test_a_convolution(stride, padding, dilation, groups, transposed) -> None:
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = kind(4, 8, (3, 2), stride, padding, dilation=dilation, groups=groups).double()
    given = image(2, 4, 13, 12).requires_grad_()
    output = layer(given)
    slope = image(*output.shape)
    (expected,) = torch.autograd.grad(output, given, slope)
    sides = (layer.stride, layer.padding, layer.dilation, transposed, (0, 0), groups, (True, False, False))
    found, *others = FORMS[aten.convolution_backward.default](slope, given, layer.weight, None, *sides)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert others == [None, None]


def test_a_bounded_activation_lets_nothing_pass_at_its_bounds() -> None:
    given = torch.tensor([-1.0, -0.0, 0.0, 1e-12, 3, 6, 7], requires_grad=True)
    (expected,) = torch.autograd.grad(F.relu6(given).sum(), given)
    found = FORMS[aten.hardtanh_backward.default](torch.ones(7), given, 0.0, 6.0)
    assert found.tolist() == expected.tolist() == [0, 0, 0, 1, 1, 0, 0]


def test_a_maximum_over_windows_that_overlap() -> None:
    given = image(2, 3, 9, 8).requires_grad_()
    output, indices = F.max_pool2d(given, 3, 2, 1, return_indices=True)
    slope = image(*output.shape)
    (expected,) = torch.autograd.grad(output, given, slope)
    arguments = ([3, 3], [2, 2], [1, 1], [1, 1], False, indices)
    found = FORMS[aten.max_pool2d_with_indices_backward.default](slope, given, *arguments)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("ceil_mode", "counts"), [(False, True), (False, False), (True, False)])
def test_a_mean_over_windows(ceil_mode: bool, counts: bool) -> None:
    given = image(2, 3, 9, 8).requires_grad_()
    output = F.avg_pool2d(given, (3, 2), (2, 2), (1, 0), ceil_mode, counts)
    slope = image(*output.shape)
    (expected,) = torch.autograd.grad(output, given, slope)
    found = FORMS[aten.avg_pool2d_backward.default](slope, given, [3, 2], [2, 2], [1, 0], ceil_mode, counts, None)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_mean_over_cells_of_different_sizes() -> None:
    given = image(2, 3, 9, 8).requires_grad_()
    output = F.adaptive_avg_pool2d(given, (4, 3))
    slope = image(*output.shape)
    (expected,) = torch.autograd.grad(output, given, slope)
    found = FORMS[aten._adaptive_avg_pool2d_backward.default](slope, given)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("corners", [False, True])
def test_an_enlargement(corners: bool) -> None:
    given = image(2, 3, 5, 4).requires_grad_()
    output = F.interpolate(given, (11, 7), mode="bilinear", align_corners=corners)
    slope = image(*output.shape)
    (expected,) = torch.autograd.grad(output, given, slope)
    found = FORMS[aten.upsample_bilinear2d_backward.default](slope, [11, 7], given.shape, corners)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_leading_eigenvector() -> None:
    """Of two eigenvalues 1e-6 of their size apart too; a matrix of zeros has no direction, and all is finite."""
    directions = torch.linalg.qr(image(6, 6))[0]
    values = torch.tensor([3.0, 3.0 * (1 - 1e-6), 2, 1, 0.5, 0], dtype=torch.float64)
    matrix = directions * values @ directions.mT
    found, vectors = FORMS[aten._linalg_eigh.default](torch.stack([matrix, torch.zeros_like(matrix)]))
    assert float(found[0, -1]) == pytest.approx(3, abs=1e-10)
    assert float((vectors[0, :, -1] @ directions[:, 0]).abs()) == pytest.approx(1, abs=1e-9)
    assert float(found[1, -1]) == 0
    assert vectors[1, :, -1].isfinite().all()
    assert found[:, :-1].isnan().all()


def test_equal_values_keep_their_order() -> None:
    values = torch.tensor([[2.0, 1.0, 2.0, 1.0]])
    found, order = FORMS[aten.sort.stable](values, stable=True, dim=-1)
    assert found.tolist() == [[1, 1, 2, 2]]
    assert sorted(order[0].tolist()[:2]) == [1, 3]
