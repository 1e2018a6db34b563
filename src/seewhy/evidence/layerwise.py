"""The score that the head gives to the tokens of each layer, and its gradient at that layer's attention."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.engine.attention import attend
from seewhy.engine.heads import Attention
from seewhy.engine.tape import gradients, replacing
from seewhy.errors import MethodError
from seewhy.evidence._forward import Forward, at_least_float32
from seewhy.evidence._provider import provides
from seewhy.evidence._request import Request
from seewhy.evidence.attention import among, last_among, open_attention, tokens_of
from seewhy.geometry.observe import Seen, look
from seewhy.hooks.attach import after_forward, instead_of_forward
from seewhy.hooks.nested import rebuild


@provides("layer_attention_gradients", start="watch", watch=open_attention)
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
    with attend(run.model, begin=_begin) as attended, after_forward(stack, keep):
        tape = run.record(stack, call, from_start=True)
    *_, last = tape.activations
    found: list[list[Tensor]] = []
    for layer, name, returned in zip(among(forward, attended).calls, stack, tape.activations.values(), strict=False):
        shown = returned if tokens.pools else _mean(forward, name, layer, returned)
        with (
            instead_of_forward(stack.values(), say_again),
            attend(run.model, begin=_begin) as again,
            replacing(stack, last, shown),
        ):
            scores = forward.rescored(run.run(call)).columns
        at = last_among(forward, again, len(attended)) if tokens.pools else layer
        slopes = gradients(scores, dict(enumerate(at.outputs)), of=layer.name, keep_graph=True)
        found.append([at.slopes([*slope.values()]) for slope in slopes])
    return [list(layers) for layers in zip(*found, strict=True)]


def _begin(_: object) -> None:
    torch.set_grad_enabled(True)


def _mean(forward: Forward, name: str, layer: Attention, returned: Tensor) -> Tensor:
    """The mean of a layer's tokens in place of each, however the block `name` lays them out.

    Raises:
        MethodError: where it cannot be told which of the dimensions are the tokens.
    """
    size, batch = returned.shape, forward.call.batch
    possible = [
        dims
        for dims in combinations(range(returned.ndim), returned.ndim - 2)
        if math.prod(size[dim] for dim in dims) == layer.rows
        and batch in [size[dim] for dim in range(returned.ndim) if dim not in dims]
    ]
    if returned.ndim == 3:  # linear layers have the channels last
        possible = [dims for dims in possible if 2 not in dims] or possible
    if len(possible) != 1:
        seen = [one.grid for one in forward.once(_looked) if one.label.name == name and one.grid is not None]
        beside = [{grid.batch_axis, grid.channel_axis} for grid in seen]
        possible = [dims for dims in possible if beside and not beside[0] & {*dims}]
    if len(possible) != 1:
        raise MethodError(
            "the tokens cannot be told from the channels in what a block returns.",
            got=f"{name}: {tuple(size)} for {batch} images and {layer.rows} tokens",
            expected="(B, tokens, C), (B, H, W, C) or (B, C, H, W)",
            do='method="attention_relevance", or "agcam"',
        )
    return returned.mean(possible[0], keepdim=True).expand_as(returned)


def _looked(forward: Forward) -> list[Seen]:
    with forward.run.aside():
        return look(forward.run)
