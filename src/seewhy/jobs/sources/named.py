"""Which source a caller means."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from torch.utils.data import DataLoader, Dataset, IterableDataset

from seewhy.errors import InputError, InputTypeError
from seewhy.jobs.sources.base import Source
from seewhy.jobs.sources.datasets import Items, Stream, of_hugging_face, of_loader
from seewhy.jobs.sources.files import files, folder, full_path, manifest, opened_path, pattern, read_table
from seewhy.jobs.sources.parquet import ParquetImages, image_column
from seewhy.jobs.sources.tars import Tars

_EXPECTED = "a folder, a pattern, a .csv or .parquet file, .tar files, a list of files, or a torch dataset or loader"


def source_of(given: Any, out: str = "") -> Source:
    """The source that `given` means.

    Args:
        given: the name of a folder, a pattern, a .csv, .tsv or .parquet file, or tar files ("shards/*.tar"), anywhere
            that fsspec reaches; a list of files; a torch `Dataset` or `DataLoader`; a dataset of Hugging Face.
        out: the folder of the results, which is no part of the source.

    Raises:
        InputError: if there is nothing of this name, or nothing in it.
        InputTypeError: for anything else.
    """
    if isinstance(given, str | Path):
        return _named(os.fspath(given), out)
    if isinstance(given, list | tuple) and all(isinstance(each, str | Path) for each in given):
        return files([os.fspath(each) for each in given])
    if isinstance(given, DataLoader):
        return of_loader(given)
    if hasattr(given, "cast_column"):
        return of_hugging_face(given)
    if isinstance(given, IterableDataset) or (isinstance(given, Dataset) and not hasattr(given, "__len__")):
        return Stream(given)  # type: ignore[arg-type]  # it has no other use than to be gone through
    if hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        return Items(given, getattr(given, "classes", None))
    raise InputTypeError("this is no source of pictures.", got=type(given).__name__, expected=_EXPECTED)


def picture_at(path: str) -> bytes:
    """The bytes of the picture at the `path` of a sample: a file, a member of a tar file, a row of a Parquet file."""
    place, mark, row = path.rpartition("#")
    if mark and place.endswith(".parquet") and row.isdecimal() and (column := _column(place)) is not None:
        return ParquetImages(place, [place], column).content(int(row))
    return opened_path(path)


def _named(place: str, out: str) -> Source:
    place = place if "://" in place else os.path.abspath(place)
    filesystem, root = fsspec.core.url_to_fs(place)
    if glob.has_magic(root) and not filesystem.exists(root):
        if place.endswith((".tar", ".parquet")):
            return _tables_or_tars(place, _matching(place, filesystem, root))
        return pattern(place)
    if not filesystem.exists(root):
        raise InputError(f"{place}: there is no such place.", expected=_EXPECTED)
    if filesystem.isdir(root):
        inside = sorted(name for name in filesystem.ls(root, detail=False) if name.endswith((".tar", ".parquet")))
        if inside and len({os.path.splitext(name)[1] for name in inside}) == 1:
            return _tables_or_tars(place, [full_path(filesystem, name) for name in inside])
        return folder(place, out)
    if place.endswith((".tar", ".parquet")):
        return _tables_or_tars(place, [place])
    if place.endswith((".csv", ".tsv")):
        return manifest(place, read_table(place))
    return files([place])


def _tables_or_tars(place: str, paths: Sequence[str]) -> Source:
    if paths[0].endswith(".tar"):
        return Tars(place, paths)
    column = _column(paths[0])
    if column is not None:
        return ParquetImages(place, paths, column)
    return manifest(paths[0], pa.concat_tables([read_table(path) for path in paths]))


def _column(path: str) -> str | None:
    try:
        with fsspec.open(path, "rb") as file:
            return image_column(pq.read_schema(file))
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: is no Parquet file.", got=str(error).splitlines()[0]) from error


def _matching(place: str, filesystem: Any, root: str) -> list[str]:
    found = sorted(filesystem.glob(root))
    if not found:
        raise InputError(f"{place}: there is no such file.")
    return [full_path(filesystem, name) for name in found]
