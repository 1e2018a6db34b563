"""Every private symbol of torch that the library uses, each with why no public one will do."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor
from torch.autograd import grad_mode
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.batchnorm import _NormBase as NormBase
from torch.nn.modules.conv import _ConvNd as Convolution

_core: Any = torch._C  # whose stubs do not list everything in it

# the switch that `torch.no_grad` and its like flip: a mode that watches calls sees it under this name
set_grad_enabled: Any = torch._C._set_grad_enabled


# the module whose `checkpoint` takes its function for use_reentrant=True from here
checkpointing: Any = torch.utils.checkpoint


# a block in which no mode sees the functions that are called
unwatched: Any = torch._C.DisableTorchFunction


def lazy_clone(tensor: Tensor) -> Tensor:
    """A copy that shares memory until either side is written to. Raises `RuntimeError` for memory of others."""
    return tensor._lazy_clone()


def is_alias_of(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors share memory. To ask does not make a lazy copy a true one, as their addresses would."""
    shared: bool = _core._is_alias_of(one, other)
    return shared


def is_inside_func(tensor: Tensor) -> bool:
    """Whether a transform of torch.func, such as `vmap`, is at work on it."""
    inside: bool = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return inside


# a block in which writing to a tensor does not count as a change of it: for what writes the values that it has
same_version: Any = grad_mode._unsafe_preserve_version_counter


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


def without_values() -> Any:
    """A mode in which tensors have shapes, sizes that stay open among them, and no values; weights may have theirs."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    return FakeTensorMode(shape_env=ShapeEnv(duck_shape=False), allow_non_fake_inputs=True)


def function_modes() -> list[Any]:
    """The modes that watch this thread's torch functions, the outermost first."""
    return [torch._C._get_function_stack_at(number) for number in range(torch._C._len_torch_function_stack())]


def put_function_modes(modes: list[Any]) -> None:
    """Put back what `function_modes` gave. Ctrl-C inside torch's own blocks may add one or lose one."""
    now = function_modes()
    if list(map(id, now)) != list(map(id, modes)):
        for _ in now:
            torch._C._pop_torch_function_stack()
        for mode in modes:
            torch._C._push_on_torch_function_stack(mode)


def stance() -> Any:
    """How torch.compile treats compiled functions now, in the whole process."""
    return _eval_frame()._stance


def eager_stance() -> Any:
    """The stance in which compiled functions run as if they had not been compiled."""
    return _eval_frame().DynamoStance("force_eager")


def set_stance(stance: Any) -> None:
    """Put `stance` in force. The public `torch.compiler.set_stance` cannot put back what it did not set itself."""
    _eval_frame()._set_stance(stance)


@cache
def _eval_frame() -> Any:
    return importlib.import_module("torch._dynamo.eval_frame")  # slow to import: only where something is compiled


__all__ = [
    "BatchNorm",
    "Convolution",
    "NormBase",
    "checkpointing",
    "computes_bf16",
    "eager_stance",
    "function_modes",
    "inside_backward",
    "is_alias_of",
    "lazy_clone",
    "put_function_modes",
    "safe_softmax",
    "same_version",
    "set_grad_enabled",
    "set_stance",
    "stance",
    "unwatched",
    "without_values",
]
