"""Containers are rebuilt around new tensors without their constructors, which may take something else."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from seewhy.hooks.nested import rebuild, tensors


@dataclasses.dataclass
class Later:
    scores: Tensor
    count: int = dataclasses.field(init=False, default=3)


@dataclasses.dataclass(frozen=True)
class Halves:
    scores: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", self.scores / 2)


class Fields(NamedTuple):
    scores: Tensor
    count: int


class Short(Fields):
    def __new__(cls, scores: Tensor) -> Any:
        return super().__new__(cls, scores, 3)  # type: ignore[call-arg]


class Keywords(dict[str, Tensor]):
    def __init__(self, **entries: Tensor) -> None:
        super().__init__(**entries)
        self.count = 3


class Named(list[Tensor]):
    def __init__(self, count: int, entries: list[Tensor]) -> None:
        super().__init__(entries)
        self.count = count


ONES = torch.ones(2)
STRUCTURES = [
    collections.defaultdict(list, scores=ONES),
    collections.OrderedDict(scores=ONES),
    collections.deque([ONES], maxlen=3),
    nn.utils.rnn.pack_sequence([ONES]),
    torch.return_types.max((ONES, torch.ones(2))),  # type: ignore[attr-defined]
    Later(ONES),
    Halves(2 * ONES),
    Fields(ONES, 3),
    Short(ONES),
    Keywords(scores=ONES),
    Named(3, [ONES]),
]


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: type(structure).__name__)
def test_a_container_keeps_its_type_and_the_rest_of_what_is_in_it(structure: Any) -> None:
    if isinstance(structure, Later):
        structure.count = 7
    before = [tensor.clone() for tensor in tensors(structure)]
    found = rebuild(structure, lambda tensor: tensor * 3)
    assert type(found) is type(structure)
    assert found is not structure
    for new, old, kept in zip(tensors(found), before, tensors(structure), strict=True):
        assert torch.equal(new, 3 * old)
        assert torch.equal(kept, old)
    own = ("count",) if isinstance(structure, Later | Fields | Keywords | Named) else ("default_factory", "maxlen")
    for attribute in own:
        assert getattr(found, attribute, None) == getattr(structure, attribute, None)


def test_what_does_not_change_is_handed_back() -> None:
    for structure in STRUCTURES:
        assert rebuild(structure, lambda tensor: tensor) is structure
