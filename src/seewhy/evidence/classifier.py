"""The weights of the linear classifier behind a global average, for CAM."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy import targets
from seewhy._torch import Convolution
from seewhy.engine.session import Session
from seewhy.errors import MethodError
from seewhy.evidence._provider import provides
from seewhy.evidence._request import Request
from seewhy.hooks.attach import after_forward
from seewhy.hooks.offloaded import in_memory


@contextmanager
def _inputs_of_linear_layers(
    run: Session, _: Mapping[str, nn.Module], __: Set[str]
) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """Each linear layer that is handed one vector per image, with that vector (B, C)."""
    linear = {name: module for name, module in run.model.named_modules() if _is_linear(module)}
    kept: list[tuple[nn.Module, Tensor]] = []

    def keep(name: str, args: tuple[Any, ...], _: Any) -> None:
        if args and isinstance(args[0], Tensor) and args[0].numel() == math.prod(args[0].shape[:2]):
            kept.append((linear[name], args[0].detach().flatten(1)))

    with after_forward(linear, keep):
        yield kept


@provides("weights", layered=True, watch=_inputs_of_linear_layers, keeps_graph=True)
def weights(request: Request) -> Float[Tensor, "B C"]:
    """The weight of each of the layer's channels for the score.

    Raises:
        MethodError: if no linear layer is given the layer's global average.
    """
    logits = targets.scores_tensor(request.forward.outputs)
    selectors = torch.autograd.grad(request.column.sum(), logits, retain_graph=True)[0].flatten(1)
    assert request.label is not None
    vectors = request.forward.watched[_inputs_of_linear_layers]
    activations, known = request.give("activations"), request.forward.plan.classifiers
    if request.label not in known:
        known[request.label] = classifier_of(vectors, str(request.label), activations, selectors.shape[1])
    module, _ = vectors[known[request.label]]
    with in_memory(module):
        assert isinstance(module.weight, Tensor)
        return selectors.to(activations) @ module.weight.detach().flatten(1).to(activations)


def _is_linear(module: nn.Module) -> bool:
    """Whether it is a linear layer, or a convolution of a single pixel."""
    return isinstance(module, nn.Linear) or (isinstance(module, Convolution) and set(module.kernel_size) == {1})


def classifier_of(
    kept: Sequence[tuple[nn.Module, Tensor]], layer: str, activations: Float[Tensor, "B C *space"], classes: int
) -> int:
    """Which of the linear layers turns a layer's global average into the class scores.

    Args:
        kept: the linear layers, and what each was handed.
        layer: its name, for the error.
        activations: what the layer returned.
        classes: how many class scores there are.

    Returns:
        The number of it in `kept`.

    Raises:
        MethodError: if there is none: then the premise of the method does not hold.
    """
    pooled = activations.flatten(2).mean(-1)
    for number, (module, given) in enumerate(kept):
        weight = module.weight
        if not isinstance(weight, Tensor) or weight.flatten(1).shape != (classes, pooled.shape[1]):
            continue
        rounding = torch.finfo(given.dtype).eps ** 0.75 * pooled.abs().amax()
        if given.shape == pooled.shape and bool(((given.to(pooled) - pooled).abs() <= rounding).all()):
            return number
    raise MethodError(
        "cam needs a global average of the layer followed by one linear layer that gives the class scores.",
        got=f"{layer}, whose average no linear layer is given",
        do='method="grad_cam", which is the same where cam applies, or layers= the one before the global average',
    )
