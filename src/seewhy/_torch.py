"""Every private symbol of torch that the library uses, each with why no public one will do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.batchnorm import _NormBase as NormBase
from torch.nn.modules.conv import _ConvNd as Convolution

# the switch that `torch.no_grad` and its like flip: a mode that watches calls sees it under this name
set_grad_enabled: Any = torch._C._set_grad_enabled


def lazy_clone(tensor: Tensor) -> Tensor:
    """A copy that shares memory until either side is written to. Raises `RuntimeError` for memory of others."""
    return tensor._lazy_clone()


def inside_backward() -> bool:
    """Whether this thread is inside a backward pass."""
    return torch._C._current_graph_task_id() != -1


def safe_softmax(logits: Tensor, dim: int) -> Tensor:
    """A softmax that is 0 where a whole row is minus infinity, as fused attention has it."""
    return torch._safe_softmax(logits, dim)


def computes_bf16(device: torch.device) -> bool:
    """Whether the hardware has instructions for bfloat16. A processor that emulates them is slower than in float32."""
    if device.type != "cpu":
        return True
    if torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # on x86 it says yes to emulation too


__all__ = [
    "BatchNorm",
    "Convolution",
    "NormBase",
    "computes_bf16",
    "inside_backward",
    "lazy_clone",
    "safe_softmax",
    "set_grad_enabled",
]
