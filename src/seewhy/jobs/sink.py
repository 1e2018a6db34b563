"""Where the rows go: a folder of Parquet files, each whole or not there. Which ones are there is the state."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from seewhy.images.files import written_whole

_SAMPLES = b"seewhy.samples"
_COLUMNS = pa.schema(
    [
        ("key", pa.string()),
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("label", pa.string()),
        ("predicted", pa.string()),
        ("probability", pa.float32()),
        ("target", pa.string()),
        ("score", pa.float32()),
        ("layers", pa.list_(pa.string())),
        ("method", pa.string()),
        ("map", pa.list_(pa.float16())),
        ("map_shape", pa.list_(pa.int32())),
        ("boxes", pa.list_(pa.list_(pa.int32()))),
        ("entropy", pa.float32()),
        ("in_box", pa.float32()),
        ("check", pa.float32()),
        ("seconds", pa.float32()),
        ("status", pa.string()),
        ("error", pa.string()),
    ]
)


def columns(more: pa.Schema) -> pa.Schema:
    """The columns of a run's table: the ones that every run has, then those of the manifest."""
    return pa.schema([*_COLUMNS, *(field.with_name(name_of_more(field.name)) for field in more)])


def name_of_more(name: str) -> str:
    """What a manifest's column is called in the table: its own name, if no other column has it."""
    return f"manifest_{name}" if name in _COLUMNS.names else name


def folder_of_parts(out: Path) -> Path:
    """The folder of the Parquet files."""
    return out / "parts"


def parts(out: Path) -> dict[int, Path]:
    """The parts that are there, by number."""
    found = {}
    for path in sorted(folder_of_parts(out).glob("part-*.parquet")):
        if named := re.fullmatch(r"part-(\d+)\.parquet", path.name):
            found[int(named[1])] = path
    return found


def write_part(out: Path, number: int, tables: Sequence[pa.Table], samples: int) -> Path:
    """Write one part.

    Args:
        out: the folder of the run.
        number: of the part.
        tables: its rows, batch by batch.
        samples: how many samples they are of.

    Raises:
        OSError: if it cannot be written. Nothing is left of it then.
    """
    path = folder_of_parts(out) / f"part-{number:06d}.parquet"
    table = (
        pa.concat_tables(tables or [_COLUMNS.empty_table()])
        .combine_chunks()
        .replace_schema_metadata({_SAMPLES: str(samples)})
    )
    with written_whole(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
        with temporary.open("rb") as file:  # on the disk before it gets its name
            os.fsync(file.fileno())
    return path


def counts(path: Path) -> tuple[int, int]:
    """How many rows a part has, and how many samples they are of."""
    found = pq.read_metadata(path)
    return found.num_rows, int(found.metadata[_SAMPLES])


def remove_unfinished(out: Path) -> None:
    """Remove what a run that was killed has begun to write."""
    for path in folder_of_parts(out).glob(".*.parquet"):
        path.unlink(missing_ok=True)
