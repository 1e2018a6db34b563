"""Gradients and decompositions that ONNX has no operation for, written with operations that it has.

Each has the signature of the aten operation that it stands for, and is put in its place while a program is traced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import ModelError

_SQUARINGS = 30  # the leading eigenvector of two that differ by 1e-8 of their size is found to 1e-4

aten = torch.ops.aten


def _convolution_backward(
    slope: Tensor,
    image: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,  # noqa: ARG001
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],  # noqa: ARG001
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, None, None]:
    """The gradient at a convolution's input: the transposed convolution of the gradient at its output.

    Nothing in a program asks for the gradient at a weight.
    """
    if output_mask[1] or output_mask[2]:
        raise ModelError("the gradient at a convolution's weights is not exported.", got="aten.convolution_backward")
    if transposed:
        return (
            aten.convolution(slope, weight, None, stride, padding, dilation, False, [0] * len(stride), groups),
            None,
            None,
        )
    sides = zip(image.shape[2:], slope.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    missing = [
        size - ((out - 1) * step - 2 * pad + apart * (kernel - 1) + 1) for size, out, kernel, step, pad, apart in sides
    ]
    return aten.convolution(slope, weight, None, stride, padding, dilation, True, missing, groups), None, None


def _hardtanh_backward(slope: Tensor, image: Tensor, min_val: float, max_val: float) -> Tensor:
    """Nothing passes at a bound, where a dead channel of ReLU6 lies. The exporter's own form lets it pass there."""
    return torch.where((image > min_val) & (image < max_val), slope, torch.zeros_like(slope))


def _max_pool2d_backward(
    slope: Tensor,
    image: Tensor,
    kernel_size: Sequence[int],  # noqa: ARG001
    stride: Sequence[int],  # noqa: ARG001
    padding: Sequence[int],  # noqa: ARG001
    dilation: Sequence[int],  # noqa: ARG001
    ceil_mode: bool,  # noqa: ARG001
    indices: Tensor,
) -> Tensor:
    """Each maximum's gradient, added at the place where it was."""
    flat = torch.zeros_like(image).flatten(-2)
    return flat.scatter_add(-1, indices.flatten(-2), slope.flatten(-2)).reshape(image.shape)


def _transposed(slope: Tensor, size: Sequence[int], along: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The transpose of an operation that is linear and separable: along(unit images, axis) shows what it does."""
    rows, columns = (
        along(torch.eye(size[axis], dtype=slope.dtype, device=slope.device)[:, None], axis)[:, 0] for axis in (-2, -1)
    )
    return rows @ slope @ columns.mT


def _adaptive_avg_pool2d_backward(slope: Tensor, image: Tensor) -> Tensor:
    """Each mean's gradient, shared out over what it was the mean of."""
    return _transposed(slope, image.shape, lambda units, axis: F.adaptive_avg_pool1d(units, slope.shape[axis]))


def _avg_pool2d_backward(
    slope: Tensor,
    image: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Each mean's gradient, shared out over what it was the mean of."""
    if divisor_override is not None:
        raise ModelError(
            "a mean over windows with a divisor of its own is not exported.", got="aten.avg_pool2d_backward"
        )

    def along(units: Tensor, axis: int) -> Tensor:
        kernel, step, pad = (
            [*each] * 2 if len(each) == 1 else each for each in (kernel_size, stride or kernel_size, padding)
        )
        return F.avg_pool1d(units, kernel[axis], step[axis], pad[axis], ceil_mode, count_include_pad)

    return _transposed(slope, image.shape, along)


def _upsample_bilinear2d_backward(
    slope: Tensor,
    output_size: Sequence[int],
    input_size: Sequence[int],
    align_corners: bool,
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Tensor:
    """Each pixel's gradient, shared out over the four that it was made of."""
    scales = scales_h, scales_w

    def along(units: Tensor, axis: int) -> Tensor:
        enlarged: Tensor = aten.upsample_linear1d(units, [output_size[axis]], align_corners, scales[axis])
        return enlarged

    return _transposed(slope, input_size, along)


def _linalg_eigh(
    symmetric: Float[Tensor, "*B n n"],
    UPLO: str = "L",  # noqa: ARG001, N803
    compute_v: bool = True,  # noqa: ARG001
) -> tuple[Tensor, Tensor]:
    """The last eigenvalue, the largest, and its eigenvector; all others are NaN.

    By repeated squaring: M^(2^k) of a positive matrix tends to the projector on its leading eigenvector, k power
    iterations doubled each time. The methods ask for no other.
    """
    power = symmetric
    for _ in range(_SQUARINGS):
        power = power / power.abs().amax((-2, -1), keepdim=True).clamp(min=torch.finfo(power.dtype).tiny)
        power = power @ power
    longest = power.norm(dim=-2).argmax(-1)[..., None, None].expand(*power.shape[:-1], 1)
    vector = power.gather(-1, longest)
    vector = vector / vector.norm(dim=-2, keepdim=True).clamp(min=torch.finfo(power.dtype).tiny)
    value = (vector * (symmetric @ vector)).sum(-2)
    others = torch.full_like(symmetric[..., 1:], torch.nan)
    return torch.cat([others[..., 0, :], value], -1), torch.cat([others, vector], -1)


def _sort(values: Tensor, *, stable: bool, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    """All of them by size; of equal ones ONNX's TopK has the first first, as a stable sort has."""
    found: tuple[Tensor, Tensor] = aten.topk(values, values.shape[dim], dim, descending)
    return found


# what stands for an operation while a program for ONNX is traced
FORMS: dict[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: _convolution_backward,
    aten.hardtanh_backward.default: _hardtanh_backward,
    aten.max_pool2d_with_indices_backward.default: _max_pool2d_backward,
    aten._adaptive_avg_pool2d_backward.default: _adaptive_avg_pool2d_backward,
    aten.avg_pool2d_backward.default: _avg_pool2d_backward,
    aten.upsample_bilinear2d_backward.default: _upsample_bilinear2d_backward,
    aten._linalg_eigh.default: _linalg_eigh,
    aten.sort.stable: _sort,
}
