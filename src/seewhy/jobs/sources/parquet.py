"""Pictures whose bytes are in Parquet files, as Hugging Face writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from seewhy.jobs.sources.entries import Entries

_KEYS = ("key", "__key__", "id", "image_id")


class ParquetImages(Entries):
    """The rows of Parquet files with a column of bytes, or of structs with a field "bytes".

    Args:
        place: the name that the caller gave.
        paths: of the files.
        column: of the pictures.
    """

    def __init__(self, place: str, paths: Sequence[str], column: str) -> None:
        tables, groups = [], []
        for path in paths:
            with fsspec.open(path, "rb") as file:
                found = pq.ParquetFile(file)
                schema = found.schema_arrow
                tables.append(found.read([name for name in schema.names if name != column]))
                groups += [
                    (path, group, found.metadata.row_group(group).num_rows) for group in range(found.num_row_groups)
                ]
        # (file, number of the row group, row in it) of each sample
        self._places = [(path, group, row) for path, group, count in groups for row in range(count)]
        self._starts: dict[str, int] = {}  # the first sample of each file
        for position, (path, _, _) in enumerate(self._places):
            self._starts.setdefault(path, position)
        self._column = column
        self._kept: tuple[tuple[str, int], pa.Array] | None = None
        table = pa.concat_tables(tables).replace_schema_metadata()
        named = next((name for name in _KEYS if name in table.column_names), None)
        keys = [str(key) for key in table[named].to_pylist()] if named else [f"{row:08d}" for row in range(len(table))]
        super().__init__(place, "parquet", keys, table, _class_names(schema))

    def path(self, position: int) -> str:
        """See `Entries`."""
        path, _, _ = self._places[position]
        return f"{path}#{position - self._starts[path]}"

    def content(self, position: int) -> bytes:
        """See `Entries`. The last row group stays in memory."""
        path, group, row = self._places[position]
        if self._kept is None or self._kept[0] != (path, group):
            with fsspec.open(path, "rb") as file:
                read = pq.ParquetFile(file).read_row_group(group, [self._column])
            self._kept = (path, group), read[self._column]
        found = self._kept[1][row].as_py()
        content: bytes | None = found["bytes"] if isinstance(found, dict) else found
        if content is None:
            raise ValueError("the row has no bytes")
        return content

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}


def image_column(schema: pa.Schema) -> str | None:
    """The column that holds the bytes of pictures; None if there is none."""
    for field in schema:
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            return str(field.name)
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            return str(field.name)
    return None


def _class_names(schema: pa.Schema) -> list[str] | None:
    """The names of the classes, where Hugging Face has noted them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return next(list(features[name]["names"]) for name in ("label", "labels") if "names" in features.get(name, {}))
    except (KeyError, ValueError, StopIteration):
        return None
