"""Pictures in files: a folder, a pattern, a manifest. Places go through fsspec: local, s3://, gs:// and others."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from seewhy.errors import InputError
from seewhy.images.files import PICTURES
from seewhy.jobs.sources.entries import Entries

_PATHS = ("path", "file", "filename", "file_name", "filepath", "image")


class Files(Entries):
    """Pictures that are files of their own.

    Args:
        place: the name that the caller gave.
        kind: "folder", "pattern", "files" or "manifest".
        paths: of all files, as `fsspec.open` takes them.
        keys: of them.
        table: their further columns.
    """

    def __init__(self, place: str, kind: str, paths: Sequence[str], keys: Sequence[str], table: pa.Table) -> None:
        super().__init__(place, kind, keys, table)
        self.paths = pa.array(paths, pa.string())

    def path(self, position: int) -> str:
        """See `Entries`."""
        return str(self.paths[position].as_py())

    def content(self, position: int) -> bytes:
        """See `Entries`."""
        return opened_path(self.path(position))


def opened_path(path: str) -> bytes:
    """The bytes of the file at `path`, a name or a URL of any file system that fsspec knows."""
    filesystem, name = fsspec.core.url_to_fs(path)
    content: bytes = filesystem.cat_file(name)
    return content


def full_path(filesystem: Any, name: str) -> str:
    """The name by which `fsspec.open` finds the file: plain for a local one."""
    return name if isinstance(filesystem, LocalFileSystem) else str(filesystem.unstrip_protocol(name))


def folder(place: str, out: str = "") -> Files:
    """The pictures in a folder and in its folders; the first of these on the way is the label.

    Args:
        place: the folder.
        out: the folder of the results, which is left out.

    Raises:
        InputError: if there are no pictures.
    """
    filesystem, root = fsspec.core.url_to_fs(place)
    own = os.path.abspath(out) if out and isinstance(filesystem, LocalFileSystem) else None
    names = [name for name in filesystem.find(root) if own is None or not name.startswith(own + "/")]
    return _in(place, "folder", filesystem, root, [name for name in names if _is_picture(_below(name, root))])


def pattern(place: str) -> Files:
    """The files that match a pattern such as "photos/**/*.jpg"; labels as in a folder, below its fixed part.

    Raises:
        InputError: if there are none.
    """
    filesystem, root = fsspec.core.url_to_fs(place)
    fixed = root
    while glob.has_magic(fixed):
        fixed = os.path.dirname(fixed)
    return _in(place, "pattern", filesystem, fixed, sorted(filesystem.glob(root)))


def files(places: Sequence[str]) -> Files:
    """Files one by one."""
    paths = [full_path(*fsspec.core.url_to_fs(place)) for place in places]
    return Files("", "files", paths, [str(place) for place in places], _no_columns(len(paths)))


def manifest(place: str, table: pa.Table) -> Files:
    """The files that a table names in one of its columns, below the folder that the table is in.

    Args:
        place: the table's file.
        table: with a column path, file, filename, file_name, filepath or image; a column key names the samples.

    Raises:
        InputError: if no column names files.
    """
    column = next((name for name in _PATHS if name in table.column_names), None)
    if column is None:
        raise InputError(
            f"{place}: no column names the pictures.", got=", ".join(table.column_names), expected=", ".join(_PATHS)
        )
    names = [str(name) for name in table[column].to_pylist()]
    keys = [str(key) for key in table["key"].to_pylist()] if "key" in table.column_names else names
    filesystem, path = fsspec.core.url_to_fs(place)
    home = os.path.dirname(path)
    paths = [
        name if "://" in name else full_path(filesystem, name if name.startswith("/") else os.path.join(home, name))
        for name in names
    ]
    return Files(place, "manifest", paths, keys, table.drop_columns([column]))


def read_table(place: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The table in a CSV, TSV or Parquet file anywhere.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        with fsspec.open(place, "rb") as file:
            if place.endswith(".parquet"):
                return pq.read_table(file, columns=columns)
            delimiter = "\t" if place.endswith(".tsv") else ","
            return pyarrow.csv.read_csv(file, parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter))
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{place}: is no table that can be read.", got=str(error).splitlines()[0]) from error


def _in(place: str, kind: str, filesystem: Any, root: str, names: Sequence[str]) -> Files:
    keys = [_below(name, root) for name in names]
    labels = [parts[0] if len(parts := PurePosixPath(key).parts) > 1 else None for key in keys]
    table = pa.table({"label": pa.array(labels, pa.string())}) if any(labels) else _no_columns(len(keys))
    return Files(place, kind, [full_path(filesystem, name) for name in names], keys, table)


def _no_columns(count: int) -> pa.Table:
    return pa.table({"label": pa.nulls(count, pa.string())})


def _below(name: str, root: str) -> str:
    return name.removeprefix(root.rstrip("/")).lstrip("/") if root else name


def _is_picture(key: str) -> bool:
    parts = PurePosixPath(key)
    return parts.suffix.lower() in PICTURES and not any(part.startswith(".") for part in parts.parts)
