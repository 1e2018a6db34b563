"""Files: which of them are pictures by their names, and how they are written whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# the endings of what is taken for a picture in a folder
PICTURES = frozenset(
    {
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic"),
        *(".heif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".tga", ".qoi"),
    }
)


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to. It becomes `path` if nothing is raised in the block.

    What stood at `path` stays until then. The folder is made if it is missing. On an error, Ctrl-C included, the
    temporary file is removed.

    Args:
        path: the name of the finished file.

    Yields:
        A path in the same folder, with the same ending.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
