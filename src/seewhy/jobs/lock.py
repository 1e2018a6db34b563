"""One run at a time in a folder. The lock goes with its process, whatever ends that."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seewhy.errors import InputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_here: set[str] = set()  # a process may lock a file again that it has locked itself
_adding = threading.Lock()


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the lock of a folder.

    It is a lock of POSIX records: data workers, which are forked, do not inherit it and so cannot outlive it.

    Raises:
        InputError: if another run has it, of this process or another one.
    """
    path = os.path.realpath(out / "lock")
    with _adding:
        if path in _here:
            raise _refused(out)
        _here.add(path)
    try:
        with open(path, "a+") as file:
            try:
                _lock(file.fileno())
            except OSError as error:
                raise _refused(out) from error
            yield
    finally:
        _here.discard(path)


def _lock(number: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _refused(out: Path) -> InputError:
    return InputError(f"{out}: another run is writing here.", do="wait for it, or name another folder")
