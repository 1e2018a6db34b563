"""A product of two tensors, however it was written: which of their dimensions it shares, keeps and sums over."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

Labels = tuple[int, ...]

_MATRICES = {"matmul", "__matmul__", "bmm", "baddbmm"}


class Product(NamedTuple):
    """Two factors, and a label for each dimension of them and of the result, as einsum has them."""

    factors: tuple[Tensor, Tensor]
    labels: tuple[Labels, Labels]
    result: Labels

    @property
    def sizes(self) -> dict[int, int]:
        """How long the dimensions of each label are."""
        found: dict[int, int] = {}
        for factor, labels in zip(self.factors, self.labels, strict=True):
            for label, size in zip(labels, factor.shape, strict=True):
                found[label] = max(size, found.get(label, 1))
        return found

    def alone(self, which: int) -> Labels:
        """The labels of the result that one of the factors has and the other one has not."""
        return tuple(
            label for label in self.result if label in self.labels[which] and label not in self.labels[1 - which]
        )


def product_of(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Product | None:
    """The product that a function of torch computes, by its name; None if it is none of two tensors."""
    if name in _MATRICES and len(args) >= 2 and not kwargs.get("out"):
        one, other = args[-2:]
        if not (isinstance(one, Tensor) and isinstance(other, Tensor) and one.ndim > 1 and other.ndim > 1):
            return None
        lead = tuple(range(max(one.ndim, other.ndim) - 2))
        row, middle, column = -1, -2, -3
        shared = [lead[len(lead) - (factor.ndim - 2) :] for factor in (one, other)]
        return Product((one, other), ((*shared[0], row, middle), (*shared[1], middle, column)), (*lead, row, column))
    return _einsum(args) if name == "einsum" else None


def _einsum(args: Sequence[Any]) -> Product | None:
    if not args:
        return None
    if isinstance(args[0], str):
        factors = args[1] if len(args) == 2 and isinstance(args[1], list | tuple) else args[1:]
        terms, arrow, result = args[0].replace(" ", "").partition("->")
        written = [_read(term) for term in terms.split(",")]
        made = _read(result) if arrow else None
    else:
        factors, written = args[:-1:2] if len(args) % 2 else args[::2], [list(term) for term in args[1::2]]
        made = list(args[-1]) if len(args) % 2 else None
    if len(factors) != 2 or len(written) != 2 or not all(isinstance(factor, Tensor) for factor in factors):
        return None
    if made is None:
        every = [label for term in written for label in term if label is not ...]
        made = [*([...] if any(... in term for term in written) else [])]
        made += sorted(label for label in {*every} if every.count(label) == 1)
    pairs = list(zip(written, factors, strict=True))
    spare = max((factor.ndim - len(term) + 1 for term, factor in pairs if ... in term), default=0)
    one, other, result_ = (
        _spread(term, factor.ndim if factor is not None else None, spare) for term, factor in [*pairs, (made, None)]
    )
    if any(len({*term}) < len(term) for term in (one, other)):
        return None
    return Product((factors[0], factors[1]), (one, other), result_)


def _read(term: str) -> list[Any]:
    return [... if found == "..." else ord(found) for found in re.findall(r"\.\.\.|.", term)]


def _spread(term: Sequence[Any], dimensions: int | None, spare: int) -> Labels:
    """A term with labels in place of its dots, which stand for the last of `spare` dimensions."""
    dots = spare if dimensions is None else dimensions - len(term) + 1
    found: list[int] = []
    for label in term:
        found.extend([label] if label is not ... else range(-dots, 0))
    return tuple(found)


class Weighing(NamedTuple):
    """A product of weights with values: which label is that of the rows and the columns, and which come before.

    number: which of the factors are the weights.
    """

    product: Product
    number: int
    rows: int
    columns: int
    lead: Labels

    @classmethod
    def of(cls, product: Product, number: int, column: int) -> Weighing | None:
        """The reading of a product in which the weights are summed over this dimension; None if they are not."""
        weights, values = product.labels[number], product.labels[1 - number]
        columns = weights[column]
        sizes = product.sizes
        if (
            columns in product.result
            or columns not in values
            or sizes[columns] != product.factors[number].shape[column]
        ):
            return None
        if any(label not in product.result for label in weights if label != columns):
            return None
        rows = product.alone(number)
        alike = [label for label in rows if sizes[label] == sizes[columns]]
        if not rows:
            return None
        row = alike[0] if len(alike) == 1 else rows[-1]
        lead = tuple(label for label in weights if label not in (row, columns))
        return cls(product, number, row, columns, lead)

    @property
    def rest(self) -> Labels:
        """The labels of the values alone."""
        return tuple(label for label in self.product.labels[1 - self.number] if label not in (*self.lead, self.columns))

    def weights(self, tensor: Tensor) -> Tensor:
        """The factor of weights as (n, rows, columns)."""
        return self._laid(tensor, self.product.labels[self.number], (self.rows,), (self.columns,))

    def values(self, tensor: Tensor) -> Tensor:
        """The factor of values as (n, columns, e)."""
        return self._laid(tensor, self.product.labels[1 - self.number], (self.columns,), self.rest)

    def output(self, tensor: Tensor) -> Tensor:
        """What the product returned as (n, rows, e)."""
        return self._laid(tensor, self.product.result, (self.rows,), self.rest)

    def as_written(self, weights: Tensor) -> Tensor:
        """Weights (n, rows, columns) as the model has them."""
        sizes, labels = self.product.sizes, self.product.labels[self.number]
        order = (*self.lead, self.rows, self.columns)
        return weights.reshape([sizes[label] for label in order]).permute([order.index(label) for label in labels])

    def _laid(self, tensor: Tensor, labels: Labels, *last: Labels) -> Tensor:
        return laid_out(tensor, labels, self.product.sizes, self.lead, *last)


def laid_out(tensor: Tensor, labels: Labels, sizes: Mapping[int, int], *groups: Labels) -> Tensor:
    """A tensor with its dimensions in the order of these groups, each of them one; spread along those it has not."""
    order = [label for group in groups for label in group]
    there = [label for label in order if label in labels]
    tensor = tensor.permute([labels.index(label) for label in there])
    for place, label in enumerate(order):
        if label not in labels:
            tensor = tensor.unsqueeze(place)
    tensor = tensor.expand([sizes[label] for label in order])
    return tensor.reshape([math.prod(sizes[label] for label in group) for group in groups])
