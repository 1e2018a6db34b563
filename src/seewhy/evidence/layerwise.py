"""The score that the head gives to the tokens of each layer, and its gradient at that layer's attention."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from seewhy.engine.attention import attend
from seewhy.engine.tape import gradients, replacing
from seewhy.evidence._forward import Forward, at_least_float32
from seewhy.evidence._provider import provides
from seewhy.evidence._request import Request
from seewhy.evidence.attention import among, open_attention, tokens_of
from seewhy.hooks.attach import after_forward, instead_of_forward
from seewhy.hooks.nested import rebuild


@provides("layer_attention_gradients", start="forward", watch=open_attention)
def layer_attention_gradients(request: Request) -> list[Tensor]:
    """For each layer (B, heads, rows, columns), the gradient of the score that the head gives to its tokens."""
    return [at_least_float32(found) for found in request.forward.once(_by_layer)[request.number]]


def _by_layer(forward: Forward) -> list[list[Tensor]]:
    """For each target, the gradients at each layer's attention of the score that the head gives to its tokens.

    The head is given the mean of a layer's tokens, in place of each of the last layer's. Where an attention pools, it
    is given the tokens themselves, and the gradient is that at the attention that pools. Costs a forward, and for each
    layer what is around the blocks.

    Raises:
        MethodError: where the layers are no modules.
    """
    tokens, run, call = forward.once(tokens_of), forward.run, forward.call
    said: dict[nn.Module, Any] = {}

    def keep(name: str, _: tuple[Any, ...], output: Any) -> None:
        said[stack[name]] = rebuild(output, Tensor.detach)

    def say_again(block: nn.Module, *_: Any) -> Any:
        return said[block]

    stack = tokens.blocks(run.model)
    with attend(run.model, call.batch) as attended, after_forward(stack, keep):
        tape = run.record(stack, call, from_start=True)
    *_, last = tape.activations
    found: list[list[Tensor]] = []
    for layer, returned in zip(among(forward, attended).calls, tape.activations.values(), strict=False):
        sequence = 1 if returned.shape[1] == layer.rows else 0
        mean = returned.mean(sequence, keepdim=True).expand_as(returned)
        shown = returned if tokens.pools else mean
        with (
            instead_of_forward(stack.values(), say_again),
            attend(run.model, call.batch) as again,
            replacing(stack, last, shown),
        ):
            scores = forward.rescored(run.run(call)).columns
        at = among(forward, again).calls[-1] if tokens.pools else layer
        slopes = gradients(scores, {layer.name: at.probabilities}, keep_graph=True)
        found.append([slope[layer.name] for slope in slopes])
    return [list(layers) for layers in zip(*found, strict=True)]
