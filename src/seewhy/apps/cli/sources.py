"""Which photographs are meant: files, folders with all that is in them, and patterns in quotes."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from seewhy.apps.cli.records import Failure
from seewhy.images.files import PICTURES


def photographs(arguments: Sequence[Path], out: Path) -> list[Path | Failure]:
    """The files that `arguments` mean, in order, each once.

    Args:
        arguments: files; folders, which stand for the pictures in them and in their folders; and patterns such as
            "photos/**/*.jpg", where no file is called so. What is hidden is left out of folders.
        out: the folder of the results. What lies in it is no photograph, unless a file in it is named.

    Returns:
        Paths, and a failure for each folder without pictures and each pattern that nothing matches. A name that does
        not exist is returned as it is.
    """
    found: dict[str, Path | Failure] = {}
    for argument in arguments:
        for entry in _meant(argument, out):
            key = entry.image + entry.error if isinstance(entry, Failure) else os.path.abspath(entry)
            found.setdefault(key, entry)
    return list(found.values())


def _meant(argument: Path, out: Path) -> Iterator[Path | Failure]:
    if argument.is_dir():
        inside: list[Path | Failure] = [*_pictures(argument, out)]
        yield from inside or [Failure(str(argument), f"{argument}: the folder holds no pictures.")]
    elif not argument.exists() and glob.has_magic(str(argument)):
        matching = sorted(map(Path, glob.glob(str(argument), recursive=True)))
        files: list[Path | Failure] = [path for path in matching if path.is_file() and not _within(path, out)]
        files += [picture for path in matching if path.is_dir() for picture in _pictures(path, out)]
        yield from files or [Failure(str(argument), f"{argument}: there is no such file.")]
    else:
        yield argument


def _pictures(folder: Path, out: Path) -> Iterator[Path]:
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not _within(Path(path, name), out))
        for name in sorted(names):
            if Path(name).suffix.lower() in PICTURES and not name.startswith("."):
                yield Path(path, name)


def _within(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
