"""The attention over an image's tokens, in the open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy._types import Fold
from seewhy.engine.attention import Attention, attend, blocks, chain
from seewhy.engine.session import Session
from seewhy.errors import MethodError
from seewhy.evidence._forward import Forward, at_least_float32
from seewhy.evidence._provider import provides
from seewhy.evidence._request import Request
from seewhy.geometry import grid as grids
from seewhy.geometry.observe import look
from seewhy.inputs.prompted import Prompted


@dataclass(frozen=True)
class Tokens:
    """The attention over an image's tokens, first layer to last, and the fold that takes (n, tokens, C) to the grid."""

    calls: Sequence[Attention]
    fold: Fold

    @property
    def pools(self) -> bool:
        """Whether the last is an attention that reads the tokens, and not one among them."""
        return self.calls[-1].rows != self.calls[-1].columns

    @property
    def layers(self) -> Sequence[Attention]:
        """Those among the tokens."""
        return self.calls[:-1] if self.pools else self.calls

    def places(self, rows: Float[Tensor, "n tokens"]) -> Float[Tensor, "n *space"]:
        """A value for each token, on the grid of those that are patches."""
        return self.fold(rows[..., None])[:, 0]

    def blocks(self, model: nn.Module) -> dict[str, nn.Module]:
        """The blocks that the layers ran in, by name.

        Raises:
            MethodError: where it is not one module for each layer.
        """
        names = blocks(self.layers) if self.layers else []
        if not all(names) or not names or len({*names}) < len(names):
            raise MethodError(
                "this method needs blocks that are modules, one for each layer.",
                got=f"{len(self.layers)} layers of attention in {', '.join({*names} - {''}) or 'the model itself'}",
                do='method="attention_relevance", or "agcam"',
            )
        return {name: model.get_submodule(name) for name in names}


def open_attention(run: Session, _: Mapping[str, nn.Module]) -> AbstractContextManager[list[Attention]]:
    """Every attention of the forward, its probabilities in the graph; of a model of language, that of its layers."""
    within = run.call.layers if isinstance(run.call, Prompted) else ()
    return attend(run.model, run.call.batch, within)


def tokens_of(forward: Forward) -> Tokens:
    """The attention over the image's tokens of a forward. Pass it to `Forward.once`."""
    return among(forward, forward.watched[open_attention])


def among(forward: Forward, attended: Sequence[Attention]) -> Tokens:
    """The attention over the image's tokens among all that was seen in a forward like this one.

    Raises:
        MethodError: if there is none.
    """
    batch = forward.call.batch
    folds = {length: fold for length in {seen.columns for seen in attended} if (fold := _fold(forward, length))}
    if calls := chain(attended, batch, folds):
        return Tokens(calls, folds[calls[-1].columns])
    shapes = sorted({str(tuple(seen.probabilities.shape)) for seen in attended})
    raise MethodError(
        "methods of attention need a vision transformer in which all blocks look at all tokens of the image.",
        got=f"attention of shapes {', '.join(shapes)} for {batch} image(s)" if shapes else "a model without attention",
        expected="probabilities (images, heads, tokens, tokens), of tokens that lie over the image",
        do='choose a method that does not look at attention, such as "grad_cam", "layer_cam" or "vit_cx"; or pass '
        "grid=, the size of the grid, where the tokens do lie over the image",
    )


def _fold(forward: Forward, length: int) -> Fold | None:
    """How a sequence of this length lies over the image: as the caller says, or as one forward shows."""
    given, call = forward.settings.grid, forward.call
    if callable(given):
        return given
    if given is not None:
        found = grids.readings((call.batch, length, 1), call.space, call.batch, grid=given)
        return found[-1].fold if found else None
    sequences = forward.plan.sequences
    if not sequences:
        with forward.run.aside():
            for seen in look(replace(forward.run, call=call)):
                if seen.grid is not None and len(seen.shape) == 3:
                    sequences[seen.shape[1 - seen.grid.batch_axis]] = replace(seen.grid, batch_axis=0)
    return sequences[length].fold if length in sequences else None


_WHOLE: dict[str, Any] = {"start": "forward", "watch": open_attention}


def _probabilities(forward: Forward) -> Iterable[Tensor]:
    return [call.probabilities for call in forward.once(tokens_of).calls]


def _outputs(forward: Forward) -> Iterable[Tensor]:
    """What the attentions returned: of those with the same number of rows the last."""
    return list({call.rows: call.output for call in forward.once(tokens_of).calls}.values())


def _last(forward: Forward) -> Attention:
    return forward.once(tokens_of).calls[-1]


@provides("attentions", **_WHOLE)
def attentions(request: Request) -> list[Tensor]:
    """The probabilities (B, heads, rows, columns) of each attention."""
    return [at_least_float32(call.probabilities.detach()) for call in request.forward.once(tokens_of).calls]


@provides("attention_logits", **_WHOLE)
def attention_logits(request: Request) -> list[Tensor]:
    """What the softmax of each was taken of."""
    return [at_least_float32(call.logits.detach()) for call in request.forward.once(tokens_of).calls]


@provides("attention_gradients", **_WHOLE, leaves=_probabilities)
def attention_gradients(request: Request) -> list[Tensor]:
    """The gradient of the score at each attention's probabilities."""
    return [at_least_float32(request.slope(leaf).detach()) for leaf in _probabilities(request.forward)]


@provides("readings", **_WHOLE, leaves=_outputs)
def readings(request: Request) -> list[Float[Tensor, "B rows"]]:
    """For each attention the share of each row in what is read of it: the rows that the score's gradient reaches."""
    read = {}
    for output in _outputs(request.forward):
        reached = (request.slope(output) != 0).any(-1).any(1).to(torch.float32)
        read[output.shape[-2]] = reached / reached.sum(1, keepdim=True).clamp(min=1)
    return [read[call.rows] for call in request.forward.once(tokens_of).calls]


@provides("attended_gradients", **_WHOLE, leaves=_outputs)
def attended_gradients(request: Request) -> Tensor:
    """The gradient of the score at what the last attention returned."""
    last = _last(request.forward)
    (output,) = (found for found in _outputs(request.forward) if found.shape[-2] == last.rows)
    return at_least_float32(request.slope(output).detach())


@provides("queries", **_WHOLE)
def queries(request: Request) -> Tensor:
    """Of the last attention."""
    return at_least_float32(_last(request.forward).queries.detach())


@provides("keys", **_WHOLE)
def keys(request: Request) -> Tensor:
    """Of the last attention."""
    return at_least_float32(_last(request.forward).keys.detach())


@provides("values", **_WHOLE)
def values(request: Request) -> Tensor:
    """Of the last attention."""
    return at_least_float32(_last(request.forward).values.detach())


@provides("places", **_WHOLE)
def places(request: Request) -> Any:
    """A function from a value for each token, (n, tokens), to the grid (n, *grid)."""
    return request.forward.once(tokens_of).places
