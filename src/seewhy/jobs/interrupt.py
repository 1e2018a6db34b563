"""Ctrl-C in a run: the part in hand is finished first."""

from __future__ import annotations

import signal
import threading


class Interrupt:
    """In this block Ctrl-C is noted. Pressed again, it raises at once."""

    def __init__(self) -> None:
        self.pressed = False

    def __enter__(self) -> Interrupt:
        self._before = signal.getsignal(signal.SIGINT)
        # a shell's background job ignores the signal, and only the main thread may change that
        self._ours = self._before is not signal.SIG_IGN and threading.current_thread() is threading.main_thread()
        if self._ours:
            signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *_: object) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, self._before)

    def _press(self, *_: object) -> None:
        again, self.pressed = self.pressed, True
        if again:
            raise KeyboardInterrupt
