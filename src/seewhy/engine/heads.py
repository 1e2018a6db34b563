"""What was seen of attention: the calls that weighted values, the layers they form, and the blocks they ran in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Call:
    """One product of weights and values. Before rows and columns all dimensions are one, of n images and heads.

    Attributes:
        name: of the innermost module that was running.
        queries, keys: what the weights were made of, as far as it was seen.
        values: what was weighted.
        output: what the product returned, as the model has it; in the graph if the forward is recorded.
        by_row: lays the output, or a gradient at it, out as (n, rows, e).
        weights: makes what the values were weighted with, (n, rows, columns).
        logits: makes what the softmax was taken of, the same.
        rows: how many there are.
        lead: the dimensions before rows and columns, as the model has them.
        readable: whether a softmax made the weights.
        onward: the node of the graph that leads on from the output.
        sources: what the call was made of: the graph behind them leads to the calls before.
    """

    queries: Float[Tensor, "n rows d"]
    keys: Float[Tensor, "n columns d"]
    values: Float[Tensor, "n columns e"]
    output: Tensor
    by_row: Callable[[Tensor], Tensor]
    weights: Callable[[], Tensor]
    logits: Callable[[], Tensor]
    sources: tuple[Tensor, ...]
    rows: int
    lead: tuple[int, ...]
    name: str = ""
    readable: bool = True
    onward: Any = None

    @property
    def columns(self) -> int:
        return self.values.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the probabilities, as the model has them."""
        return (*self.lead, self.rows, self.columns)

    @property
    def kind(self) -> str:
        """The name with the numbers taken out: the same for all blocks of a stack."""
        return re.sub(r"\d+", "#", self.name)


class Layout(NamedTuple):
    """How many heads, or the like, vary slower than the image in a call's values, and in its queries and keys.

    (B, heads, ...) and (b h) have one; (h b) has all heads.
    """

    values: int = 1
    keys: int = 1


@dataclass(frozen=True, eq=False)
class Attention:
    """One layer of attention: a call, or one for each of its heads. Tensors are (images, heads, ...)."""

    calls: tuple[Call, ...]
    layout: Layout
    batch: int

    @property
    def name(self) -> str:
        """Of the module that it ran in."""
        levels = zip(*(call.name.split(".") for call in self.calls), strict=False)
        return ".".join(level[0] for level in _same(levels))

    @property
    def rows(self) -> int:
        return self.calls[0].rows

    @property
    def columns(self) -> int:
        return self.calls[0].columns

    @property
    def probabilities(self) -> Float[Tensor, "B heads rows columns"]:
        """What the values were weighted with; made anew each time."""
        return self._joined([call.weights() for call in self.calls], self.layout.values)

    @property
    def logits(self) -> Float[Tensor, "B heads rows columns"]:
        """What the softmax was taken of, with masks and biases; made anew each time."""
        return self._joined([call.logits() for call in self.calls], self.layout.values)

    @property
    def queries(self) -> Float[Tensor, "B heads rows d"]:
        return self._joined([call.queries for call in self.calls], self.layout.keys)

    @property
    def keys(self) -> Float[Tensor, "B heads columns d"]:
        return self._joined([call.keys for call in self.calls], self.layout.keys)

    @property
    def values(self) -> Float[Tensor, "B heads columns e"]:
        return self._joined([call.values for call in self.calls], self.layout.values)

    @property
    def outputs(self) -> list[Tensor]:
        """What each call returned, as the model has it: gradients are asked for at these."""
        return [call.output for call in self.calls]

    def by_row(self, outputs: Sequence[Tensor]) -> Float[Tensor, "B heads rows e"]:
        """The outputs, or gradients at them, by image and head."""
        laid = [call.by_row(output) for call, output in zip(self.calls, outputs, strict=True)]
        return self._joined(laid, self.layout.values)

    def slopes(self, gradients: Sequence[Tensor]) -> Float[Tensor, "B heads rows columns"]:
        """The gradient at the probabilities, from those at the outputs."""
        pairs = zip(self.calls, gradients, strict=True)
        made = [wide(call.by_row(gradient)) @ wide(call.values.detach()).mT for call, gradient in pairs]
        return self._joined(made, self.layout.values)

    def _joined(self, parts: Sequence[Tensor], slower: int) -> Tensor:
        by_image = [
            part.reshape(slower, self.batch, -1, *part.shape[1:]).transpose(0, 1).flatten(1, 2) for part in parts
        ]
        return by_image[0] if len(by_image) == 1 else torch.cat(by_image, 1)


def wide(tensor: Tensor) -> Tensor:
    """In float32 at least: what the kernels compute in."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _same(levels: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Those at the front in which all are the same."""
    for level in levels:
        if len({*level}) > 1:
            return
        yield level


def layers_of(calls: Sequence[Call]) -> list[tuple[int, ...]] | None:
    """The numbers of the calls that are the heads of each layer, first layer to last; None where they are no stack.

    Calls are heads of one layer where none is made of another one, and all are made of the same calls and go into the
    same. A stack is a sequence of layers in which each is made of all before it. The forward has been recorded.
    """
    before = _before(calls)
    after = [frozenset(other for other, found in enumerate(before) if number in found) for number in range(len(calls))]
    layers: dict[Any, list[int]] = {}
    for number, known in enumerate(zip(before, after, strict=True)):
        layers.setdefault((known, calls[number].rows), []).append(number)
    found = list(layers.values())
    earlier: set[int] = set()
    for layer in found:
        if any(before[number] != earlier for number in layer):
            return None
        earlier.update(layer)
    return [tuple(layer) for layer in found]


def _before(calls: Sequence[Call]) -> list[frozenset[int]]:
    """For each call the numbers of those that it is made of."""
    number_of = {call.onward: number for number, call in enumerate(calls) if call.onward is not None}
    found: list[frozenset[int]] = []
    for call in calls:
        waiting, seen, met = [source.grad_fn for source in call.sources], set(), set()
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if (number := number_of.get(node)) is not None:
                met |= {number, *found[number]}
            else:
                waiting.extend(after for after, _ in node.next_functions)
        found.append(frozenset(met))
    return found


def blocks(layers: Sequence[Attention]) -> list[str]:
    """The names of the blocks that these ran in: as much as tells them apart, or what is around the only one."""
    names = [layer.name.split(".") for layer in layers]
    levels = (number for number, level in enumerate(zip(*names, strict=False), 1) if len(set(level)) > 1)
    depth = next(levels, len(names[0]) - 1)
    return [".".join(name[:depth]) for name in names]
