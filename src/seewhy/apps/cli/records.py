"""What is known of each photograph once it is done: as a row of a table, a line of JSON, or a row of a CSV file."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from seewhy.errors import InputError

HEADS = ("label", "probability", "layer", "method", "file")
CHANCE = "better than chance"  # the head of one more column, with --check


@dataclass(frozen=True)
class Record:
    """One map of one photograph.

    Attributes:
        image: the photograph's file.
        label: the class, or the prompt.
        index: the class's number; None for a prompt.
        probability: None where the model's output gives none.
        score: what was explained; None where it is not finite.
        rank: with --top-k the place of the class, from 1; else None.
        layers: the layers that were looked at.
        method: the method's name.
        overlay: the overlay's file; None where none was asked for. So are figure and raw.
        figure: the figure's file.
        raw: the file of numbers.
        note: why this layer, or this method, was chosen.
        warnings: what is to be known of the map.
        p_value: with --check how likely chance makes a map as good, from 0 to 1; else None.
    """

    image: str
    label: str
    index: int | None
    probability: float | None
    score: float | None
    rank: int | None
    layers: tuple[str, ...]
    method: str
    overlay: str | None
    figure: str | None
    raw: str | None
    note: str
    warnings: tuple[str, ...]
    p_value: float | None = None

    def cells(self, *, checked: bool) -> tuple[str, ...]:
        """The row of a table under `HEADS`, and where maps are checked `CHANCE`."""
        chance = "" if self.p_value is None else f"p = {self.p_value:.2f}"
        return (
            self.label,
            "" if self.probability is None else f"{self.probability:.3f}",
            "\n".join(self.layers),
            self.method,
            "\n".join(filter(None, (self.overlay, self.figure, self.raw))) or self.image,
            *((chance,) if checked else ()),
        )


@dataclass(frozen=True)
class Failure:
    """A photograph that could not be explained, and why."""

    image: str
    error: str


class Sink(Protocol):
    """Takes each record when it is done."""

    def __call__(self, record: Record | Failure) -> None: ...


def json_line(content: Mapping[str, Any]) -> str:
    """One JSON document in one line, of ASCII characters only. What is not finite is null."""
    return json.dumps({key: _finite(value) for key, value in content.items()}, allow_nan=False)


def finite(value: float) -> float | None:
    """The number, None for infinity and NaN."""
    return value if math.isfinite(value) else None


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return finite(value)
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value


@contextmanager
def csv_file(path: Path | None) -> Iterator[Sink]:
    """Add a row for each record to a CSV file, at once, with a header where the file is new.

    Args:
        path: the file; None writes nothing.

    Raises:
        InputError: if the file holds something else, or cannot be written.
    """
    if path is None:
        yield lambda _: None
        return
    columns = [*(field.name for field in fields(Record)), "error"]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", newline="", encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"--csv {path}: cannot be written ({error.strerror}).") from error
    with file:
        file.seek(0)
        header = next(csv.reader(file), None)
        if header not in (None, columns):
            raise InputError(
                f"--csv {path}: holds something else, and nothing is overwritten.",
                got=", ".join(header or ()),
                expected=", ".join(columns),
                do="name another file",
            )
        file.seek(0, 2)
        writer = csv.DictWriter(file, columns, restval="")
        if header is None:
            writer.writeheader()

        def add(record: Record | Failure) -> None:
            row = asdict(record)
            for key in ("layers", "warnings"):
                if key in row:
                    row[key] = " | ".join(row[key])
            writer.writerow(row)
            file.flush()

        yield add
