"""A backward pass that keeps the account: attention, norms and gates are linear on the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.engine.attention import Open

# the slope at 0 of the functions that are their input times a gate
_GATED = {"gelu": 0.5, "silu": 0.5, "hardswish": 0.5, "mish": 0.6}
_PRODUCTS = {"mul", "__mul__", "multiply"}


class Libra(Open):
    """While it is on, gradients are those of LibraGrad (Mehri et al. 2025, arXiv:2411.16760); all values stay.

    For f made of parts that are linear or piecewise linear, f(x) = x . df/dx + sum_b b . df/db over all biases b. Three
    kinds of parts of transformers break this, and are mended where they are called as functions of torch:

    - Attention A V: its weights A are constants (pruned), so that gradients reach the values only.
    - Layer, root mean square and group norms: what is divided by is a constant (pruned).
    - GELU, SiLU, Mish and Hardswish, x times a gate: the gate is a constant (pruned). A product of two activations of
      one shape, as in SwiGLU: each factor has half of the gradient (scaled).

    Norms and gates that a model writes out, softmaxes beside attention, and scripted code are not seen.
    """

    def __init__(self) -> None:
        super().__init__(weigh=lambda weights, _: weights.detach())

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").removesuffix("_")
        if name in _GATED and torch.is_grad_enabled():
            return _gated(func, name, *args, **kwargs)
        if name in _NORMS and torch.is_grad_enabled():
            return _NORMS[name](func, *args, **kwargs)
        if name in _PRODUCTS and len(args) == 2 and all(map(_is_made, args)) and args[0].shape == args[1].shape:
            one, other = args
            product = func(one, other)
            return _valued(product, (one * other.detach() + one.detach() * other) / 2)
        return super().__torch_function__(func, types, args, kwargs)


def _valued(value: Tensor, linear: Tensor) -> Tensor:
    """A value to the last bit, with the gradient of something else."""
    found: Tensor = value.detach() + (linear - linear.detach())
    return found


def _is_made(entry: Any) -> bool:
    """Whether a tensor was computed from what has a gradient: not a weight."""
    return isinstance(entry, Tensor) and entry.requires_grad and not entry.is_leaf


def _gated(func: Callable[..., Tensor], name: str, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    in_place = kwargs.pop("inplace", False) or func.__name__.endswith("_")
    before = x.detach().clone() if in_place else x.detach()
    value = getattr(F, name)(before, *[entry for entry in args if not isinstance(entry, bool)], **kwargs)
    gate = torch.where(before == 0, _GATED[name], value / torch.where(before == 0, 1, before))
    found = _valued(value, x * gate)
    return x.copy_(found) if in_place or True in args else found


def _layer_norm(
    func: Callable[..., Tensor],
    x: Tensor,
    shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    **kwargs: Any,
) -> Tensor:
    dims = tuple(range(-len(shape), 0))
    centred = x - x.mean(dims, keepdim=True)
    deviation = (x.var(dims, correction=0, keepdim=True) + eps).sqrt().detach()
    return _valued(func(x, shape, weight, bias, eps, **kwargs), _affine(centred / deviation, weight, bias))


def _rms_norm(
    func: Callable[..., Tensor], x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    dims = tuple(range(-len(shape), 0))
    floor = torch.finfo(x.dtype).eps if eps is None else eps
    root = (x.square().mean(dims, keepdim=True) + floor).sqrt().detach()
    return _valued(func(x, shape, weight, eps), _affine(x / root, weight, None))


def _group_norm(
    func: Callable[..., Tensor],
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    **kwargs: Any,
) -> Tensor:
    grouped = x.reshape(len(x), groups, -1)
    centred = grouped - grouped.mean(-1, keepdim=True)
    deviation = (grouped.var(-1, correction=0, keepdim=True) + eps).sqrt().detach()
    along = [-1, *[1] * (x.ndim - 2)]
    weight_, bias_ = (None if found is None else found.reshape(along) for found in (weight, bias))
    return _valued(
        func(x, groups, weight, bias, eps, **kwargs), _affine((centred / deviation).reshape(x.shape), weight_, bias_)
    )


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = x if weight is None else x * weight
    return scaled if bias is None else scaled + bias


_NORMS: dict[str, Callable[..., Tensor]] = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
}
