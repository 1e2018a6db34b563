"""Attributions of other libraries, as functions (model, inputs, target) -> maps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seewhy import targets
from seewhy.errors import InputTypeError
from seewhy.methods.registry import Attribution


def of_captum(attribution_class: Callable[..., Any], **options: Any) -> Attribution:
    """An attribution of captum as a method, its channels summed.

        import captum.attr
        seewhy.explain(model, images, method=seewhy.methods.of_captum(captum.attr.DeepLift))

    Args:
        attribution_class: takes a module, as `captum.attr.IntegratedGradients` does; `functools.partial` passes more.
        **options: of its `attribute`, `n_steps=20` say. `target` comes from seewhy.

    Returns:
        A function (model, inputs, target) -> maps (B, *space), for `method=`. It raises `InputTypeError` for a model
        that takes more than one tensor.
    """

    def attribution(model: nn.Module, inputs: Any, target: targets.BaseTarget) -> Tensor:
        images = _one_tensor(name, inputs)
        with torch.no_grad():
            outputs = model(images)
        rows = torch.arange(len(images), device=images.device)
        made = attribution_class(_Scored(model, target, outputs, len(images)))
        found: Tensor = made.attribute(images, additional_forward_args=(rows,), **options)
        return found.sum(1)

    name = getattr(attribution_class, "__name__", type(attribution_class).__name__)
    attribution.__name__ = name
    return attribution


class Composite(Protocol):
    """Rules for the backward pass of a model, such as zennit's composites."""

    def context(self, module: nn.Module) -> AbstractContextManager[nn.Module]:
        """While the block lasts, the rules hold in the module."""


def of_zennit(composite: Composite) -> Attribution:
    """The gradient at the image under zennit's rules as a method, its channels summed. The score has relevance 1.

        import zennit.composites
        seewhy.explain(model, images, method=seewhy.methods.of_zennit(zennit.composites.EpsilonPlusFlat()))

    Args:
        composite: whose `context` registers its rules in a model.

    Returns:
        A function (model, inputs, target) -> maps (B, *space), for `method=`. It raises `InputTypeError` for a model
        that takes more than one tensor.
    """

    def attribution(model: nn.Module, inputs: Any, target: targets.BaseTarget) -> Tensor:
        images = _one_tensor(name, inputs).requires_grad_()
        with composite.context(model) as ruled:
            (found,) = torch.autograd.grad(target(ruled(images)).sum(), images)
        return found.sum(1)

    name = type(composite).__name__
    attribution.__name__ = name
    return attribution


class _Scored(nn.Module):
    """A model that ends in the score: (images (N, C, *size), which image each row is of) -> (N,)."""

    def __init__(self, model: nn.Module, target: targets.BaseTarget, outputs: Any, batch: int) -> None:
        super().__init__()
        self.model = model
        self.of = target, outputs, batch

    def forward(self, images: Float[Tensor, "N C *size"], rows: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        target, outputs, batch = self.of
        return targets.for_rows(target, self.model(images), rows, outputs, batch)


def _one_tensor(name: str, inputs: Any) -> Tensor:
    if not isinstance(inputs, Tensor):
        raise InputTypeError(
            f"{name} explains a model of one tensor.",
            got=type(inputs).__name__,
            expected="images (B, C, H, W)",
            do="a method of seewhy, or a function of your own that calls the model with these inputs",
        )
    return inputs
