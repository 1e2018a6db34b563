"""Which options go together, and which methods a model can serve."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import get_args

from torch import nn

from seewhy.engine.probe import Precision
from seewhy.errors import InputError, MethodError
from seewhy.evidence import Gradients
from seewhy.methods import default, registry
from seewhy.methods.fuse import Fuse, unknown_fuse
from seewhy.methods.registry import Method
from seewhy.models.accepted import is_closed, limits_of


def check_values(*, fuse: Fuse | None, batch_size: int, precision: Precision, gradients: Gradients) -> None:
    """Refuse options that are none."""
    if fuse not in (None, *get_args(Fuse)):
        raise unknown_fuse(fuse)
    if batch_size < 1:
        raise InputError("the batch size is not positive.", got=batch_size)
    if precision not in ("full", "bf16"):
        raise InputError("unknown precision.", got=repr(precision), expected='"full" or "bf16"')
    if gradients not in get_args(Gradients):
        raise InputError("unknown gradients.", got=repr(gradients), expected='"plain" or "libra"')


def check_methods(
    model: nn.Module, methods: Sequence[Method], *, gradients: Gradients, eigen_smooth: bool, layers: bool
) -> None:
    """Refuse methods that do not go with the options, and those that need what the model cannot do.

    Args:
        model: what is explained.
        methods: in question.
        gradients: those that were asked for.
        eigen_smooth: whether it was asked for.
        layers: whether layers were named.
    """
    for found in methods:
        if gradients == "libra" and (found.attends or not found.differentiates):
            why = "gradients at attention weights, which libra cuts off" if found.attends else "no gradients"
            raise MethodError(
                f"{found.name} takes {why}.",
                got='gradients="libra"',
                do='method="libra_grad", or gradients="plain"',
            )
        if eigen_smooth and not found.reduces:
            raise MethodError(f"{found.name} has no weighted activations for eigen_smooth to work on.")
        if layers and not found.layered:
            where = "all attention" if found.attends else "the input"
            raise MethodError(f"{found.name} looks at {where}, not at a layer.", got="layers=", do="leave layers out")
    _check_limits(model, methods)


def has_a_window(method: str | Method) -> bool:
    """Whether a method has an option of that name itself, as occlusion does: then it is that one's."""
    if method in ("auto", default.DEFAULT):
        return False
    return "window" in inspect.signature(registry.get(method).function).parameters


def _check_limits(model: nn.Module, methods: Sequence[Method]) -> None:
    """Refuse methods that need what the model cannot do because of how it was made."""
    limits = limits_of(model)
    for found in methods:
        inside = found.layered or found.attends or "bias_gradients" in found.needs
        if limits.layers and inside and (is_closed(model) or "bias_gradients" in found.needs):
            others = [other.name for other in registry.available().values() if not (other.layered or other.attends)]
            able = ", ".join(name for name in others if "full_grad" not in name)
            raise MethodError(f"{limits.layers}.", got=f"{found.name}, which looks at layers", do=f"one of {able}")
        if limits.gradients and found.runs_backward:
            able = ", ".join(other.name for other in registry.available().values() if not other.runs_backward)
            raise MethodError(f"{limits.gradients}.", got=f"{found.name}, which needs one", do=f"one of {able}")
