"""Undo what was done, whatever interrupts: Ctrl-C while it is done or undone, or a fork in the midst of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any
from weakref import ReferenceType, ref


class Undo:
    """A block at whose end every registered step runs, the latest first.

    A step is registered before what it undoes is done, so it may run where nothing was done. An exception inside a
    step, such as Ctrl-C, makes that step run once more; the other steps follow, and the exception is raised at the end.
    So a step must do no harm when it runs twice.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def later(self, step: Callable[..., object], *args: Any) -> None:
        """Register `step(*args)`. Call it before the deed."""
        self._steps.append((step, args))

    def __enter__(self) -> Undo:
        _watch_forks()
        self._steps.append((_open.pop, (id(self), None)))
        _open[id(self)] = threading.get_ident(), ref(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Run the steps that have not run."""
        try:
            while self._steps:
                step, args = self._steps[-1]
                step(*args)
                self._steps.pop()
        except BaseException:
            if self._steps:
                step, args = self._steps.pop()
                try:
                    step(*args)
                finally:
                    self.close()
            raise

    def __del__(self) -> None:
        """A signal that arrives as Python enters `__exit__` leaves the steps to be run when the block's frame goes."""
        self.close()


class Process:
    """What is process-wide and shared by all threads is read and written under this lock. A forked child gets a new one."""

    lock = threading.Lock()


_open: dict[int, tuple[int, ReferenceType[Undo]]] = {}  # by id: the thread of each block under way, and the block


@cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_end_lost_blocks)


def _end_lost_blocks() -> None:
    """Threads do not survive a fork: in the child their blocks end here, or the model would stay as they have it."""
    Process.lock = threading.Lock()
    lost = [block() for thread, block in reversed(_open.values()) if thread != threading.get_ident()]
    for block in lost:
        if block is not None:
            block.close()
