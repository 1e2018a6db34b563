"""Samples that are rows of a table: their keys, labels and further columns, without their content."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from seewhy.errors import InputError
from seewhy.jobs.sources.base import Box, Sample

_LABELS = ("label", "class", "target")
_SIDES = ("x0", "y0", "x1", "y1")


class Entries:
    """The base of sources that know all of their samples beforehand. A subclass says how one is read.

    Args:
        place: the name that the caller gave.
        kind: of the source, in a word.
        keys: of all samples; the second one of a kind gets "#2" behind it.
        table: of their further columns; among them may be the label and the object's box.
        classes: the names of classes that are given by number.
    """

    def __init__(
        self, place: str, kind: str, keys: Sequence[str], table: pa.Table, classes: Sequence[str] | None = None
    ) -> None:
        if not keys:
            raise InputError(f"{place}: there are no pictures.", got=f"an empty {kind}")
        self.place, self.kind, self.table = place, kind, table
        self.keys = pa.array(_unique(keys))
        self.count: int | None = len(keys)
        self._label = next((name for name in _LABELS if name in table.column_names), None)
        self.columns = pa.schema([field for field in table.schema if field.name != self._label])
        self.classes = classes or self._names()

    def described(self) -> Mapping[str, Any]:
        """The place, how many samples it has, and a digest of their keys and labels."""
        digest = hashlib.sha256("\n".join(self.keys.to_pylist()).encode("utf-8", "surrogatepass"))
        if self._label is not None:
            digest.update("\n".join(map(str, self.table[self._label].to_pylist())).encode("utf-8", "surrogatepass"))
        return {"place": self.place, "kind": self.kind, "samples": self.count, "keys": digest.hexdigest()[:16]}

    def samples(self, positions: Sequence[int]) -> list[Sample]:
        """See `Source`."""
        rows = self.table.take(list(positions)).to_pylist()
        return [self._sample(position, row) for position, row in zip(positions, rows, strict=True)]

    def _names(self) -> list[str] | None:
        """The names of the classes, where labels are names."""
        if self._label is None or not pa.types.is_string(self.table[self._label].type):
            return None
        names = self.table[self._label].unique().drop_null().to_pylist()
        return sorted(names) or None

    def _sample(self, position: int, row: Mapping[str, Any]) -> Sample:
        path = self.path(position)
        label, box = row.get(self._label or ""), _box(row)
        more = {name: row[name] for name in self.columns.names}
        content, error = None, ""
        try:
            content = self.content(position)
        except (OSError, ValueError, KeyError) as problem:
            missing = isinstance(problem, FileNotFoundError)
            error = f"{path}: " + ("there is no such file." if missing else f"cannot be read ({_words(problem)}).")
        return Sample(self.keys[position].as_py(), path, label, box, content, more, error)

    def path(self, position: int) -> str:
        """Where the sample can be read again."""
        raise NotImplementedError

    def content(self, position: int) -> Any:
        """The bytes of the sample's picture."""
        raise NotImplementedError


def _unique(keys: Sequence[str]) -> list[str]:
    seen: Counter[str] = Counter()
    found = []
    for key in keys:
        seen[key] += 1
        found.append(key if seen[key] == 1 else f"{key}#{seen[key]}")
    return found


def _box(row: Mapping[str, Any]) -> Box | None:
    """The object's box: a column "box", a list or "x0 y0 x1 y1", or four columns."""
    given = row.get("box")
    if given is None:
        given = [row.get(side) for side in _SIDES]
    if isinstance(given, str):
        given = given.replace(",", " ").strip("[]() ").split()
    try:
        x0, y0, x1, y1 = (float(side) for side in given)
    except (TypeError, ValueError):
        return None
    return x0, y0, x1, y1


def _words(problem: Exception) -> str:
    return " ".join(str(getattr(problem, "strerror", None) or problem).split())
