"""What a model of language would say at each token of its pictures and of its text: the logit lens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy.engine.session import Session
from seewhy.errors import MethodError
from seewhy.evidence._forward import Forward, at_least_float32
from seewhy.evidence._provider import provides
from seewhy.evidence._request import Request
from seewhy.hooks.attach import after_forward
from seewhy.hooks.nested import tensors
from seewhy.hooks.offloaded import in_memory
from seewhy.inputs.prompted import Prompted
from seewhy.targets.tokens import Spoken


class Readout(NamedTuple):
    """What one token of an answer has to do with the pictures, and with the text before it.

    Attributes:
        own: (*grid), the token's logit at each place of the pictures.
        earlier: (K, *grid), the logits there of the K tokens of the text before it that are others.
        likeness: (K,), the token's logit at each of these K tokens.
    """

    own: Float[Tensor, "*grid"]
    earlier: Float[Tensor, "K *grid"]
    likeness: Float[Tensor, " K"]


@contextmanager
def _last_vectors(run: Session, _: Mapping[str, nn.Module], __: Set[str]) -> Iterator[list[Tensor]]:
    """What the head makes logits of, for every token."""
    model: Any = run.model
    found: list[Tensor] = []

    def keep(_: str, __: tuple[Any, ...], output: Any) -> None:
        found[:] = [next(tensors(output)).detach()]

    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    with after_forward({} if decoder is None else {"decoder": decoder}, keep):
        yield found


@provides("readouts", watch=_last_vectors)
def readouts(request: Request) -> list[list[Readout]]:
    """For each image, for each of the tokens that are one target, its readout.

    Raises:
        MethodError: for a model in which text and pictures do not go through the same layers, and for another target.
    """
    forward, target = request.forward, request.forward.target
    call = forward.call
    vectors = next((found for found in forward.watched[_last_vectors] if found.ndim == 3), None)
    model: Any = forward.run.model
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    fits = isinstance(call, Prompted) and vectors is not None and vectors.shape[:2] == call.ids.shape
    if not fits or not isinstance(target, Spoken) or not isinstance(head, nn.Module):
        raise MethodError(
            "this method reads what a model of language would say at the tokens of its pictures.",
            got=type(forward.run.model).__name__,
            expected="a decoder that text and pictures go through, and seewhy.Token(...) as target",
            do='method="grad_cam"',
        )
    assert isinstance(call, Prompted)
    assert vectors is not None
    with torch.no_grad(), in_memory(head):
        return [_of_row(request, call, target, vectors, head, row) for row in range(call.batch)]


def _of_row(request: Request, call: Prompted, target: Spoken, vectors: Tensor, head: Any, row: int) -> list[Readout]:
    fold = request.forward.settings.grid
    assert callable(fold)
    ids, count = call.ids[row], target.ids.shape[1]
    pictured = request.forward.once(_pictured)[row]
    weights, bias = head.weight, getattr(head, "bias", None)
    text = (~torch.isin(ids, ids[pictured])).nonzero()[:, 0]
    text = text[text > pictured.nonzero()[0, 0]]  # what stands before the pictures has not seen them
    members = target.members if target.members.ndim == 2 else target.members[:, request.number]
    found = []
    for place in (members[row] > 0).nonzero()[:, 0] + call.length - count:
        before = text[(text < place) & (ids[text] != ids[place])]
        classes = torch.cat([ids[place][None], ids[before]])
        kinds, which = torch.unique(classes, return_inverse=True)
        said = torch.nn.functional.linear(vectors, weights[kinds], None if bias is None else bias[kinds])
        maps = at_least_float32(fold(said))[row][which]
        likeness = at_least_float32(said[row, before, which[0]])
        found.append(Readout(maps[0], maps[1:], likeness))
    return found


def _pictured(forward: Forward) -> Tensor:
    """(B, L), whether a token is read by the grid: where the gradient of the grid is not zero."""
    fold = forward.settings.grid
    assert callable(fold)
    assert isinstance(forward.call, Prompted)
    with torch.enable_grad():
        leaf = torch.zeros(*forward.call.ids.shape, 1, device=forward.call.ids.device).requires_grad_()
        return torch.autograd.grad(fold(leaf).sum(), leaf)[0][..., 0] != 0
