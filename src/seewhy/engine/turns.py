"""Calls on models that share a module take turns."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from seewhy.errors import ConcurrencyError
from seewhy.hooks.undo import Process, Undo


class _Turn:
    """What one thread works on. `busy` is locked until the turn is over: who waits for it waits at this lock."""

    def __init__(self, things: Iterable[object]) -> None:
        self.thread = threading.get_ident()
        self.things = frozenset(map(id, things))
        self.busy = threading.Lock()


_turns: list[_Turn] = []  # under way
_waits: dict[int, _Turn] = {}  # by thread: the turn that it waits for


def has_turn(things: Iterable[object]) -> bool:
    """Whether all of `things` are this thread's by a turn that it has taken already."""
    wanted, thread = frozenset(map(id, things)), threading.get_ident()
    return any(turn.thread == thread and wanted <= turn.things for turn in list(_turns))


def take_turn(things: Iterable[object], undo: Undo) -> None:
    """Wait until no other thread works on any of `things`, which are then this thread's until `undo` ends.

    All are taken at once, or none, so that turns alone cannot lock each other out. A thread that has a turn may take
    another one.

    Raises:
        ConcurrencyError: if the thread to wait for waits, directly or through others, for this one.
    """
    turn = _Turn(things)
    undo.later(_end, turn)
    turn.busy.acquire()
    while (other := _begin(turn)) is not None:
        with other.busy:  # until it is over
            pass


def _begin(turn: _Turn) -> _Turn | None:
    """Begin the turn, or give the one to wait for."""
    with Process.lock:
        foreign = (other for other in _turns if other.thread != turn.thread)
        other = next((other for other in foreign if not turn.things.isdisjoint(other.things)), None)
        if other is None:
            _waits.pop(turn.thread, None)
            _turns.append(turn)
            return None
        _waits[turn.thread] = other
        awaited = other
        while (after := _waits.get(awaited.thread)) is not None and after in _turns:
            awaited = after
            if awaited.thread == turn.thread:
                raise ConcurrencyError(
                    "two threads wait for each other's models, and would wait for ever.",
                    got="an explanation of a model inside the explanation of another one, the other way round in the "
                    "other thread",
                    do="compute what the target needs from the other model before, or explain both in one thread",
                )
        return other


def _end(turn: _Turn) -> None:
    with Process.lock:
        _waits.pop(turn.thread, None)
        if turn in _turns:
            _turns.remove(turn)
        if turn.busy.locked():
            turn.busy.release()
