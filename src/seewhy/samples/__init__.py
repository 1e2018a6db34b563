"""The photographs that ship with the package: SOURCES.md says where they come from."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from seewhy.errors import InputError


def path(name: str) -> Path:
    """The file of a sample photograph.

    Args:
        name: such as "chelsea.png" (a cat) or "coffee.png".

    Returns:
        The path of the file.

    Raises:
        InputError: if there is no such sample; the message names those that there are.
    """
    folder = Path(str(files(__name__)))
    samples = sorted(file.name for file in folder.glob("*.png"))
    if name not in samples:
        raise InputError("there is no such sample photograph.", got=repr(name), expected=", ".join(samples))
    return folder / name
