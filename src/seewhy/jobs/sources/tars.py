"""Pictures in tar files, as WebDataset lays them out: the files of a sample have one name and several endings."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Sequence
from typing import Any

import fsspec
import pyarrow as pa

from seewhy.errors import InputError
from seewhy.images.files import PICTURES
from seewhy.jobs.sources.entries import Entries

_LABELS = ("cls", "txt")  # the endings of the files that a label is in


class Tars(Entries):
    """The samples of tar files.

    Args:
        place: the name that the caller gave.
        paths: of the files, in order.

    Raises:
        InputError: for a file that is no tar, or a compressed one, in which nothing can be looked up.
    """

    def __init__(self, place: str, paths: Sequence[str]) -> None:
        self._members: list[tuple[str, str, int, int]] = []  # file, name in it, first byte, number of bytes
        keys: list[str] = []
        rows: list[dict[str, Any]] = []
        for path in paths:
            shard = f"{os.path.splitext(os.path.basename(path))[0]}/" if len(paths) > 1 else ""
            for key, (picture, row) in _samples(path).items():
                if picture is not None:
                    self._members.append((path, picture.name, picture.offset_data, picture.size))
                    keys.append(shard + key)
                    rows.append(row)
        columns = dict.fromkeys(["label", *(name for row in rows for name in row)])
        table = pa.table({name: _array([row.get(name) for row in rows]) for name in columns})
        super().__init__(place, "tar", keys, table)

    def path(self, position: int) -> str:
        """See `Entries`."""
        path, name, _, _ = self._members[position]
        return f"tar://{name}::{path}"

    def content(self, position: int) -> bytes:
        """See `Entries`."""
        path, _, start, size = self._members[position]
        filesystem, name = fsspec.core.url_to_fs(path)
        content: bytes = filesystem.cat_file(name, start=start, end=start + size)
        if len(content) < size:
            raise OSError("the tar file ends too early")
        return content


def _samples(path: str) -> dict[str, tuple[tarfile.TarInfo | None, dict[str, Any]]]:
    """By key the member that is the picture, and the row of the label and what a .json file says."""
    found: dict[str, tuple[tarfile.TarInfo | None, dict[str, Any]]] = {}
    try:
        with fsspec.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                folder, name = os.path.split(member.name)
                stem, _, ending = name.partition(".")
                if not member.isfile() or not stem:
                    continue
                picture, row = found.get(key := os.path.join(folder, stem), (None, {}))
                if f".{ending.lower()}" in PICTURES:
                    picture = member
                elif ending in (*_LABELS, "json"):
                    content = tar.extractfile(member)
                    assert content is not None
                    row |= _read(content.read(), ending)
                found[key] = picture, row
    except tarfile.TarError as error:
        raise InputError(f"{path}: is no tar file that is not compressed ({error}).") from error
    return found


def _read(content: bytes, ending: str) -> dict[str, Any]:
    text = content.decode("utf-8", "replace").strip()
    if ending == "json":
        row = json.loads(text)
        return row if isinstance(row, dict) else {}
    return {"label": int(text) if text.isdecimal() else text}


def _array(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except pa.ArrowInvalid:  # of different types
        return pa.array([None if value is None else str(value) for value in values])
