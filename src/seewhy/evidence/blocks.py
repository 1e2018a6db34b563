"""What each block of a transformer is given and adds, and what the head says of single tokens, for CLIP Surgery."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy._types import Ask
from seewhy.engine.attention import of_values
from seewhy.engine.replay import remember
from seewhy.errors import MethodError
from seewhy.evidence import _forward
from seewhy.evidence._forward import Forward, at_least_float32
from seewhy.evidence._provider import provides
from seewhy.evidence._request import Request
from seewhy.evidence.attention import open_attention, tokens_of
from seewhy.hooks.activations import activations_in
from seewhy.hooks.attach import Finish, Passed, around, instead_of_forward
from seewhy.hooks.nested import rebuild, tensors


@provides("block_inputs", start="forward", watch=open_attention)
def block_inputs(request: Request) -> list[Float[Tensor, "B tokens C"]]:
    """What each block was given."""
    return [at_least_float32(found) for found in request.forward.once(_paths).given]


@provides("value_attention", start="forward", watch=open_attention)
def value_attention(request: Request) -> list[Float[Tensor, "B tokens C"]]:
    """What each block's attention adds where it is among its values."""
    return [at_least_float32(found) for found in request.forward.once(_paths).added]


@provides("token_scores", start="forward", watch=open_attention)
def token_scores(request: Request) -> Callable[[Tensor], Tensor]:
    """A function from tokens (B, tokens, C) to the scores (B, tokens) that the head gives to each, in place of all."""
    ask = request.forward.once(_paths).ask(request.number)

    def scores(path: Float[Tensor, "B tokens C"]) -> Float[Tensor, "B tokens"]:
        batch, count = path.shape[:2]
        numbers = torch.arange(batch * count, device=path.device)
        single = path.flatten(0, 1)[:, None]
        return ask(numbers // count, lambda rows: single[rows].expand(-1, count, -1)).reshape(batch, count)

    return scores


@dataclass(frozen=True)
class _Paths:
    """given: what each block was given, (B, tokens, C). added: what its attention adds where it is among its values.

    ask: for each target, what the score becomes where the last block returns something else.
    """

    given: Sequence[Tensor]
    added: Sequence[Tensor]
    ask: Callable[[int], Ask]


def _paths(forward: Forward) -> _Paths:
    """See `seewhy.methods.attention`, clip_surgery. Costs a forward in which each block runs twice.

    Raises:
        MethodError: without a block for each layer, or where one does not add what its attention says to its input.
    """
    run, call = forward.run, forward.call
    given: list[Tensor] = []
    added: list[Tensor] = []

    def twice(block: nn.Module, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        entered = next(tensors((args, kwargs))).clone()
        mine, by_name = rebuild((args, kwargs), Tensor.clone)
        with of_values(), _sums(block, entered) as found:
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

    stack = forward.once(tokens_of).blocks(run.model)
    *_, (name, block) = stack.items()
    with torch.no_grad(), instead_of_forward(stack.values(), twice), remember(run.model, {name: block}) as memories:
        run.run(call)
    ((label, memory),) = memories().items()
    returned = next(tensors(memory.answers[block]))
    ask = forward.once(_forward.probe).layer(label, memory, returned, at_least_float32)
    return _Paths(given, added, ask)


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
