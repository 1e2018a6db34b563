"""Whether a forward keeps places in order by construction, so that no changed copies are needed to see it.

A convolution, a pooling, a norm or anything elementwise leaves each place where it is. What may move places (flips,
slices, padding, sorting, products of matrices) is noticed while the forward runs: layers that returned before the first
of these lie over the whole input, cell i of n at (i + 1/2) / n of it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

# functions of torch, by name, that leave every place of a map where it is
_LOCAL = frozenset(
    {
        *("conv1d", "conv2d", "conv3d", "batch_norm", "instance_norm", "group_norm", "layer_norm"),
        *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "boolean_dispatch"),
        *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "interpolate"),
        *(
            "relu",
            "relu_",
            "relu6",
            "leaky_relu",
            "leaky_relu_",
            "elu",
            "elu_",
            "celu",
            "selu",
            "gelu",
            "silu",
            "silu_",
        ),
        *("gelu", "silu", "silu_", "hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_", "hardtanh", "hardtanh_"),
        *(
            "mish",
            "softplus",
            "sigmoid",
            "sigmoid_",
            "tanh",
            "prelu",
            "exp",
            "log",
            "sqrt",
            "square",
            "pow",
            "abs",
            "neg",
            "clamp",
        ),
        *("clamp_", "clip", "add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "maximum", "minimum"),
        *("__add__", "__radd__", "__iadd__", "__sub__", "__rsub__", "__isub__", "__mul__", "__rmul__", "__imul__"),
        *("__truediv__", "__rtruediv__", "__itruediv__", "__pow__", "__neg__", "dropout", "dropout2d", "dropout3d"),
        *("mean", "sum", "amax", "amin", "var", "std", "contiguous", "clone", "detach", "to", "float", "half"),
        *("bfloat16", "type", "type_as", "size", "dim", "stride", "numel", "is_contiguous", "is_floating_point"),
        *("requires_grad_", "__get__", "__set__", "expand_as", "_assert", "is_complex", "data_ptr", "is_inference"),
        *("_set_grad_enabled", "is_grad_enabled", "__len__", "__bool__", "__float__", "__int__", "item", "isfinite"),
        *("any", "all", "max", "min"),
    }
)


class Order(TorchFunctionMode):
    """While it is on, `kept` says whether everything so far has left places where they are.

    Attributes:
        kept: True until something ran that may move places.
        by: the name of what did so first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept = True
        self.by = ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.kept and not _local(func, args, kwargs):
            self.kept, self.by = False, getattr(func, "__name__", str(func))
        return func(*args, **kwargs)


def _local(func: Any, args: Any, kwargs: Any) -> bool:
    name = getattr(func, "__name__", "")
    if name in _LOCAL:
        return True
    if name in ("cat", "concat"):  # of channels
        given = args[0] if args else kwargs.get("tensors", ())
        dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
        return dim == 1 and all(isinstance(tensor, Tensor) and tensor.ndim > 3 for tensor in given)
    if name == "permute":  # of channels to the end and back
        dims = tuple(args[1]) if len(args) == 2 and isinstance(args[1], tuple | list) else tuple(args[1:])
        last = len(dims) - 1
        return dims in ((0, *range(2, last + 1), 1), (0, last, *range(1, last)))
    if name == "linear":  # of channels at the end, or behind everything with places
        return isinstance(args[0], Tensor) and args[0].ndim != 3
    if name == "flatten":
        return isinstance(args[0], Tensor) and args[0].shape[2:].numel() == 1
    return False
