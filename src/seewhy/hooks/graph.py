"""The autograd graph behind tensors."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.autograd.graph import Node


def behind(*made: Tensor | Node | None) -> Iterator[Node]:
    """Every node of the graph behind these tensors or nodes, once."""
    waiting, seen = [one.grad_fn if isinstance(one, Tensor) else one for one in made], set[Node]()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting.extend(after for after, _ in node.next_functions)
