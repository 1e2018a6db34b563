"""Which tensors of a forward are made of which: whether something of the input passes beside a layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from seewhy.hooks.nested import tensors

# what takes values, or where to look, out of tensors: by which of its arguments
_STEERING: dict[str, slice] = {
    **dict.fromkeys(("grid_sample", "grid_sampler", "roi_align", "roi_pool"), slice(1, 2)),
    **dict.fromkeys(
        ("gather", "index_select", "take_along_dim", "__getitem__", "masked_select", "take"), slice(1, None)
    ),
    **dict.fromkeys(("item", "__int__", "__index__", "__float__", "__bool__", "tolist", "numpy"), slice(0, 1)),
    **dict.fromkeys(("nonzero", "argwhere"), slice(0, 1)),
}


class Flow(TorchFunctionMode):
    """While it is on, notes of every tensor that a function of torch returns which tensors it was made of.

    Tensors are numbered in the order in which they were first seen. What is written into a tensor counts as one it was
    made of. What runs outside of Python (a scripted part) is not seen: its results are made of nothing.

    Attributes:
        steered: whether what the images show has decided where the model looks in them, or what it does next.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steered = False
        self._starts: set[int] = set()
        self._numbers: dict[int, tuple[int, ReferenceType[Tensor]]] = {}
        self._sources: list[set[int]] = []

    def begin(self, images: Iterable[Tensor]) -> set[int]:
        """The numbers of the images, which everything else is made of."""
        self._starts = {self.number(tensor) for tensor in images}
        return self._starts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.steered and (steering := _STEERING.get(getattr(func, "__name__", ""))):
            by = {self.number(tensor) for tensor in tensors((args[steering], kwargs if steering.start else None))}
            self.steered = bool(by) and bool(self.before(by) & self._starts)
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self._note((made,), args, kwargs)
        elif made is None and args and isinstance(args[0], Tensor):  # written in place, as `x[0] = y` is
            self._note(args[:1], args[1:], kwargs)
        elif isinstance(made, tuple | list) and not isinstance(made, torch.Size):
            self._note(tensors(made), args, kwargs)
        return made

    def _note(self, made: Iterable[Tensor], args: Any, kwargs: Any) -> None:
        given = {self.number(tensor) for tensor in tensors((args, kwargs))}
        for tensor in made:
            number = self.number(tensor)
            self._sources[number] |= given - {number}

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor."""
        number, reference = self._numbers.get(id(tensor), (0, None))
        if reference is None or reference() is not tensor:
            number = len(self._sources)
            self._numbers[id(tensor)] = number, ref(tensor)
            self._sources.append(set())
        return number

    def before(self, ends: Iterable[int], without: Set[int] = frozenset()) -> set[int]:
        """The tensors that `ends` were made of, with these themselves; not what only goes through `without`."""
        found: set[int] = set()
        waiting = [number for number in ends if number not in without]
        while waiting:
            number = waiting.pop()
            if number not in found:
                found.add(number)
                waiting.extend(self._sources[number] - without)
        return found

    def beside(self, chosen: int, others: Iterable[int], starts: Set[int], ends: Set[int]) -> Iterator[int]:
        """Those of `others` that carry to the outputs what passes beside a chosen tensor.

        Args:
            chosen: the tensor that is looked at.
            others: the best first.
            starts: the inputs.
            ends: the outputs.

        Yields:
            Tensors that are parallel: none is made of another one. No more once nothing passes beside all of them.
        """
        taken, behind = {chosen}, self.before([chosen])
        rest = self.before(ends, taken)
        for number in others:
            if not rest & starts:
                return
            if number in behind or number not in rest:
                continue
            own = self.before([number])
            if own & starts and not own & taken:
                taken.add(number)
                behind |= own
                rest = self.before(ends, taken)
                yield number
