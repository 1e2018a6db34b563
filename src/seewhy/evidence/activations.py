"""What a layer returned, and what the score's gradient says of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from contextlib import AbstractContextManager

from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from seewhy.engine.session import Session
from seewhy.engine.tape import along
from seewhy.evidence._forward import Forward
from seewhy.evidence._provider import provides
from seewhy.evidence._request import Request


def _activations(forward: Forward) -> Iterable[Tensor]:
    return forward.activations.values()


def _twice_differentiable(_: Session, __: Mapping[str, nn.Module], ___: Set[str]) -> AbstractContextManager[None]:
    """Fused attention has no second derivative."""
    return sdpa_kernel(SDPBackend.MATH)


@provides("activations", layered=True)
def activations(request: Request) -> Float[Tensor, "B C *grid"]:
    """What the layer returned."""
    return request.fold(request.activation.detach())


@provides("gradients", layered=True, leaves=_activations)
def gradients(request: Request) -> Float[Tensor, "B C *grid"]:
    """The gradient of the score at what the layer returned."""
    return request.fold(request.slope(request.activation).detach())


@provides("curvatures", layered=True, leaves=_activations, watch=_twice_differentiable, differentiable=True)
def curvatures(request: Request) -> Float[Tensor, "B C *grid"]:
    """The Hessian of the score at the layer, times the activations."""
    return request.fold(along(request.slope(request.activation), request.activation))


@provides("generator")
def generator(request: Request) -> Generator:
    """The random numbers of a method that draws."""
    return request.forward.settings.generator
