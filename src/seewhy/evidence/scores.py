"""The score, and what it becomes for changed images or changed activations."""

from __future__ import annotations

from collections.abc import Mapping, Set
from contextlib import AbstractContextManager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from seewhy._types import Ask, CallLabel
from seewhy.engine.replay import remember
from seewhy.engine.session import Session
from seewhy.evidence import _forward
from seewhy.evidence._forward import Forward
from seewhy.evidence._provider import provides
from seewhy.evidence._request import Request


def remembered(run: Session, layers: Mapping[str, nn.Module], _: Set[str]) -> AbstractContextManager[Any]:
    return remember(run.model, layers)


@provides("scores")
def scores(request: Request) -> Float[Tensor, " B"]:
    """The score of each unchanged image."""
    return request.forward.once(_forward.probe).scores[:, request.number]


@provides("score")
def score(request: Request) -> Ask:
    """What the score becomes for changed images (N, C, *size)."""
    ask: Ask = request.forward.once(_images)(request.number)
    return ask


@provides("replay", layered=True, watch=remembered)
def replay(request: Request) -> Ask:
    """What the score becomes for changed activations (N, C, *grid) of the layer. Only what follows it runs again."""
    assert request.label is not None

    def ask(images: Tensor, make: Any) -> Tensor:  # the way is looked for when a method asks, not before
        changed: Ask = request.forward.once(_activations, request.label)(request.number)
        return changed(images, make)

    return ask


def _images(forward: Forward) -> Any:
    return forward.once(_forward.probe).inputs()


def _activations(forward: Forward, label: CallLabel) -> Any:
    memories = forward.watched[remembered]()
    kept = forward.activation(label).detach()
    return forward.once(_forward.probe).layer(label.call, memories[label.call], kept, forward.fold(label))
