"""Layers that return what they were given, and models that write to it afterwards."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor
from torch.autograd.graph import Node

from seewhy._torch import is_alias_of
from seewhy.errors import LayerError
from seewhy.hooks.graph import behind
from seewhy.hooks.nested import tensors


class _Parted(NamedTuple):
    """A tensor that a layer was given and returned, and what went on in its place, as both were at that time."""

    name: str
    given: Tensor
    version: int
    source: tuple[Node | None, int]
    instead: Tensor
    its_version: int
    its_source: Node | None

    @property
    def is_written(self) -> bool:
        return self.given._version != self.version or self.instead._version != self.its_version

    def matters(self, outputs: Any) -> bool:
        """Whether the model relies on the two being one.

        The graph of `outputs` tells whether a tensor is read whose copy was written to, but not that of a view.
        """
        if self.source[0] is None or self.given._version != self.version or self.given._is_view():
            return True
        copies = set(behind(self.its_source))
        return any(self.source in node.next_functions and node not in copies for node in behind(*tensors(outputs)))


class Aliases:
    """Tensors that a layer was given and returned, while a copy went on in their place.

    Dropout in eval mode, `nn.Identity` and in-place layers return such tensors. As long as nothing writes to the tensor
    or to its copy the two are as good as one; afterwards the model computes something else than by itself.
    """

    def __init__(self) -> None:
        self._parted: list[_Parted] = []

    def note(self, name: str, passed: Any, given: Any, output: Any, instead: Any) -> None:
        """Compare what a layer was passed, what it was given in place of that, what it returned, and what goes on."""
        for returned, other in zip(tensors(output), tensors(instead), strict=False):
            if returned.is_inference() or other.is_inference():
                continue
            for tensor, copy in zip(tensors(passed), tensors(given), strict=True):
                returns = is_alias_of(tensor, returned) or is_alias_of(copy, returned)
                if returns and not is_alias_of(tensor, other):
                    here, there = (tensor.grad_fn, tensor.output_nr), other.grad_fn
                    self._parted.append(_Parted(name, tensor, tensor._version, here, other, other._version, there))

    @property
    def written(self) -> bool:
        """Whether one of the tensors, or its copy, was written to since."""
        return any(one.is_written for one in self._parted)

    def check(self, outputs: Any) -> None:
        """Raise `LayerError` where the model that returned `outputs` relies on two names for one tensor. Forget all."""
        written = [one for one in self._parted if one.is_written]
        self._parted.clear()
        for one in written:
            if one.matters(outputs):
                raise LayerError(
                    f"{one.name} returns what it is given, and the model writes to that in place afterwards.",
                    got="two names for one tensor, which a copy in place of one of them would part",
                    do="choose the layer before it or after it, or leave out the in-place operation",
                )
