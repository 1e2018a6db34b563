"""Where the pictures of each photograph go: a name that tells what they show, and that nothing else has."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEY = "seewhy"  # the metadata of a file that tells which request it answers


@dataclass(frozen=True)
class Files:
    """The files of one photograph and one method.

    Attributes:
        overlays: one, or with --top-k one for each class; none where they are not wanted.
        figure: None where it is not wanted.
        raw: None where it is not wanted.
        request: the digest of everything that the files depend on, which they hold.
    """

    overlays: tuple[Path, ...]
    figure: Path | None
    raw: Path | None
    request: str

    @property
    def all(self) -> tuple[Path, ...]:
        """All files that are wanted."""
        return (*self.overlays, *(path for path in (self.figure, self.raw) if path is not None))

    @property
    def done(self) -> bool:
        """Whether all files are there, from the same request."""
        return bool(self.all) and all(path.exists() and request_in(path) == self.request for path in self.all)


@dataclass(frozen=True)
class Naming:
    """How names are made.

    Attributes:
        out: the folder.
        suffix: what is asked for, as part of a name: "grad_cam-tabby".
        request: everything besides the photograph that the files depend on.
        top: how many overlays there are with --top-k; 0 without.
        overlay: whether overlays are wanted.
        figure: whether a figure is wanted.
        raw: whether numbers are wanted.
    """

    out: Path
    suffix: str
    request: Mapping[str, Any]
    top: int = 0
    overlay: bool = True
    figure: bool = True
    raw: bool = False

    def files(self, name: str, photo: Path) -> Files:
        """The files of the photograph `photo` if they are called after `name`."""
        base = f"{name}-{self.suffix}"
        ranks = [f"-{rank}" for rank in range(1, self.top + 1)] or [""]
        content = json.dumps({**self.request, "image": str(photo.resolve())}, sort_keys=True)
        return Files(
            tuple(self.out / f"{base}{rank}.png" for rank in ranks) if self.overlay else (),
            self.out / f"{base}-figure.png" if self.figure else None,
            self.out / f"{base}.npz" if self.raw else None,
            hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32],
        )


def names_of(paths: Sequence[Path], naming: Naming, inputs: frozenset[Path]) -> list[Files]:
    """Files for each of `paths`: no two alike, whatever their case, none an input, none that holds something else.

    A file that the same request wrote before is taken again: what it holds does not change.

    Args:
        paths: the photographs.
        naming: how names are made.
        inputs: files that are read, and so never written, resolved.

    Returns:
        The files of each photograph, in order.
    """
    natural = Counter(path.stem.casefold() for path in paths)
    taken: set[str] = set()
    found = []
    for path in paths:
        for name in _candidates(path.stem):
            key = name.casefold()
            if key in taken or (name != path.stem and natural[key]):
                continue
            files = naming.files(name, path)
            if not {file.resolve() for file in files.all} & inputs and not _others(files):
                break
        taken.add(key)
        found.append(files)
    return found


def _candidates(stem: str) -> Iterator[str]:
    yield stem
    for number in itertools.count(2):
        yield f"{stem}-{number}"


def _others(files: Files) -> bool:
    """Whether one of the files is there already and is not from the same request."""
    return any(path.exists() and request_in(path) != files.request for path in files.all)


def request_in(path: Path) -> str | None:
    """The digest of the request that a .png or .npz file answers; None if the command line did not write it."""
    import zipfile

    import numpy as np
    from PIL import Image

    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return str(file[f"metadata/{KEY}"])
        with Image.open(path, formats=("PNG",)) as picture:
            return picture.info.get(KEY)
    except (OSError, ValueError, KeyError, SyntaxError, ImportError, zipfile.BadZipFile):
        return None  # whatever it is, it is not ours


def part_of_name(text: str) -> str:
    """`text` as a part of a file name: letters, digits and dots of any script, everything else an underscore."""
    return re.sub(r"[^\w.]+", "_", text).strip("_.")[:60]
