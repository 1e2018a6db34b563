"""A sample, and what every source is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Sample:
    """One picture of a source.

    Attributes:
        key: unique in the source, and the same in every run.
        path: where it can be read again; "" where it has no place of its own.
        label: its class, by name or by index; None where it is not known.
        box: (x0, y0, x1, y1) of the object, in pixels of the photograph.
        content: the file's bytes, a photograph, or a floating point tensor that is a model's input as it is.
        more: further columns of a manifest.
        error: why there is no content.
    """

    key: str
    path: str = ""
    label: str | int | None = None
    box: Box | None = None
    content: Any = None
    more: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


class Source(Protocol):
    """Samples in an order that is the same in every run.

    Attributes:
        columns: the further columns that its samples have.
        classes: the names of its classes, in the order of their numbers; None where they are not known.
        count: how many samples there are; None for a stream.
    """

    columns: pa.Schema
    classes: Sequence[str] | None
    count: int | None

    def described(self) -> Mapping[str, Any]:
        """What the plan says of it. Another description is another source."""

    def samples(self, positions: Sequence[int]) -> list[Sample]:
        """The samples at these positions. What cannot be read is a sample with an error."""
