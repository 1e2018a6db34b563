"""Which attention of a forward runs over the image's tokens, and what each of its layers adds to the score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy.engine.attention import Attention, attend, blocks, chain, of_values
from seewhy.engine.replay import Memory, remember
from seewhy.engine.tape import activations_in, gradients, record, replacing
from seewhy.errors import MethodError
from seewhy.geometry.grid import Grid
from seewhy.geometry.observe import look
from seewhy.hooks.attach import Finish, Passed, after_forward, around, instead_of_forward
from seewhy.hooks.nested import rebuild, tensors
from seewhy.inputs.call import Inputs

Fold = Callable[[Tensor], Tensor]


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


def sequences(model: nn.Module, call: Inputs) -> dict[int, Grid]:
    """The grids of the token sequences (B, tokens, C) of a forward, by their length. Costs that forward."""
    return {
        seen.shape[1 - seen.grid.batch_axis]: replace(seen.grid, batch_axis=0)
        for seen in look(model, call)
        if seen.grid is not None and len(seen.shape) == 3
    }


def over_the_image(attended: Sequence[Attention], batch: int, folds: Mapping[int, Fold]) -> Tokens:
    """The attention of the image's tokens among all that was seen; `folds` of sequences by their length.

    Raises `MethodError` if there is none.
    """
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


def by_layer(
    model: nn.Module,
    call: Inputs,
    tokens: Tokens,
    score: Callable[[Any], Float[Tensor, "B T"]],
    find: Callable[[Sequence[Attention]], Tokens],
) -> list[list[Tensor]]:
    """For each target, the gradients at each layer's attention of the score that the head gives to that layer's tokens.

    The head is given the mean of a layer's tokens, in place of each of the last layer's. Where an attention pools, it
    is given the tokens themselves, and the gradient is that at the attention that pools. `tokens` are those of a
    forward before, `find` what tells them again. Costs a forward, and for each layer what is around the blocks. Raises
    `MethodError` where the layers are no modules.
    """
    said: dict[nn.Module, Any] = {}

    def run() -> Any:
        return call.with_rows(Tensor.clone).run(model)

    def keep(name: str, _: tuple[Any, ...], output: Any) -> None:
        said[stack[name]] = rebuild(output, Tensor.detach)

    def say_again(block: nn.Module, *_: Any) -> Any:
        return said[block]

    stack = _stack(model, tokens)
    with attend(model, call.batch) as attended, after_forward(stack, keep):
        tape = record(run, stack, from_start=True)
    found: list[list[Tensor]] = []
    for layer, returned in zip(find(attended).calls, tape.activations.values(), strict=False):
        sequence = 1 if returned.shape[1] == layer.rows else 0
        mean = returned.mean(sequence, keepdim=True).expand_as(returned)
        shown = returned if tokens.pools else mean
        with (
            instead_of_forward(stack.values(), say_again),
            attend(model, call.batch) as again,
            replacing(stack, [*stack][-1], shown),
        ):
            scores = score(run())
        at = find(again).calls[-1] if tokens.pools else layer
        slopes = gradients(scores, {layer.name: at.probabilities}, keep_graph=True)
        found.append([slope[layer.name] for slope in slopes])
    return [list(layers) for layers in zip(*found, strict=True)]


@dataclass(frozen=True)
class Paths:
    """given: what each block was given, (B, tokens, C). added: what its attention adds where it is among its values.

    last, returned, memory: of the last block the name, what it returned, and what its replay needs.
    """

    given: Sequence[Tensor]
    added: Sequence[Tensor]
    last: str
    returned: Tensor
    memory: Memory


def paths(model: nn.Module, call: Inputs, tokens: Tokens) -> Paths:
    """What CLIP Surgery needs of a model: see `seewhy.methods.attention.clip_surgery`. Costs a forward, blocks twice.

    Raises `MethodError` without a block for each layer, or where one does not add what its attention says to its input.
    """
    given: list[Tensor] = []
    added: list[Tensor] = []

    def twice(block: nn.Module, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        entered = next(tensors((args, kwargs))).clone()
        mine, by_name = rebuild((args, kwargs), Tensor.clone)
        with of_values(call.batch), _sums(block, entered) as found:
            own(*mine, **by_name)
        if not found:
            raise MethodError(
                "clip_surgery needs blocks that add what their attention says to the tokens they are given.",
                got=type(block).__name__,
                expected="x + attention(norm(x)), which a module is handed next, as in the towers of CLIP",
                do='method="le_grad", or "grad_eclip"',
            )
        given.append(entered)
        added.append(found[0])
        return own(*args, **kwargs)

    stack = _stack(model, tokens)
    *_, (name, block) = stack.items()
    with torch.no_grad(), instead_of_forward(stack.values(), twice), remember(model, {name: block}) as memories:
        call.with_rows(Tensor.clone).run(model)
    memory = memories()[name]
    return Paths(given, added, name, next(tensors(memory.answers[block])), memory)


@contextmanager
def _sums(block: nn.Module, entered: Tensor) -> Iterator[list[Tensor]]:
    """While the block lasts: what a call inside `block` returned, where the next was handed its sum with `entered`."""
    found: list[Tensor] = []
    returned: list[Tensor] = []

    def is_sum(handed: Tensor, last: Tensor) -> bool:
        return handed.shape == last.shape == entered.shape and torch.equal(handed, entered + last)

    def visit(_: str, passed: Passed) -> tuple[Passed, Finish]:
        found.extend(last for last in returned for handed in tensors(passed) if is_sum(handed, last))

        def leave(output: Any) -> None:
            returned[:] = [tensor.clone() for tensor in activations_in(output).values()]

        return passed, leave

    inside = {name: module for name, module in block.named_modules() if name}
    with around(inside, visit):
        yield found


def _stack(model: nn.Module, tokens: Tokens) -> dict[str, nn.Module]:
    """The blocks that the layers ran in, by name. Raises `MethodError` where it is not one module for each layer."""
    names = blocks(tokens.layers) if tokens.layers else []
    if not all(names) or not names or len({*names}) < len(names):
        raise MethodError(
            "this method needs blocks that are modules, one for each layer, to give the head something else to read.",
            got=f"{len(tokens.layers)} layers of attention in {', '.join({*names} - {''}) or 'the model itself'}",
            do='method="attention_relevance", or "agcam"',
        )
    return {name: model.get_submodule(name) for name in names}
