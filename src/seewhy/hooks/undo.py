"""Undo what was done, whatever interrupts: Ctrl-C while it is done or undone, or a fork in the midst of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from traceback import walk_tb
from types import TracebackType
from typing import Any
from weakref import ReferenceType, ref


class Undo:
    """What there is to undo at the end of a block."""

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def later(self, step: Callable[..., object], *args: Any) -> None:
        """Register `step(*args)`. Call it before the deed: the step may run where nothing was done, and twice."""
        self._steps.append((step, args))

    def close(self) -> None:
        """Run the steps that have not run, the latest first.

        An exception inside a step, such as Ctrl-C, makes that step run once more; the other steps follow, and the
        exception is raised at the end.
        """
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


@contextmanager
def undoing() -> Iterator[Undo]:
    """A block at whose end everything registered is undone.

    Ctrl-C that arrives just as Python enters or leaves a `with` block ends nothing: then Python closes this generator
    when the frame of the block goes, and that ends it. A class with `__del__` would do the same, and swallow those
    that arrive in the thousands of times when there is nothing to do.
    """
    undo = Undo()
    try:
        undo.later(_open.pop, id(undo), None)
        _watch_forks()
        _open[id(undo)] = threading.get_ident(), ref(undo)
        yield undo
    except KeyboardInterrupt as interruption:
        _end_abandoned_blocks(interruption.__traceback__)
        raise
    finally:
        try:
            undo.close()
        except BaseException:
            undo.close()
            raise


def _end_abandoned_blocks(trace: TracebackType | None) -> None:
    """End the blocks inside this one that Ctrl-C kept from ending, torch's own too, before this one ends.

    Python would do so when it drops the exception: too late, as it would then undo what came before this block's deeds.
    """
    for frame, _ in walk_tb(trace):
        if frame.f_globals.get("__name__") == "contextlib":
            with suppress(RuntimeError):  # it is still running
                frame.clear()


class Process:
    """What all threads of the process share is read and written under this lock. A forked child gets a new one."""

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
