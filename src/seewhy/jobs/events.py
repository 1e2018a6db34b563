"""What a run says of itself: events for machines, a log in the folder, a line on the terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

Event = Mapping[str, Any]
Listener = Callable[[Event], None]


class Events:
    """Counts what is done and tells it to listeners.

    Args:
        total: how many samples the run has; None where that is not known.
        done: how many of them earlier runs have done.
        listeners: take each event: a dict with "event" and "time" (Unix, seconds).
    """

    def __init__(self, total: int | None, done: int, listeners: list[Listener]) -> None:
        self._total, self._listeners = total, listeners
        self._start, self._before = time.monotonic(), done
        self.done, self.errors = done, 0

    def tell(self, event: str, **content: Any) -> None:
        """Hand an event to all listeners."""
        told = {"event": event, "time": round(time.time(), 3), **content}
        for listener in self._listeners:
            listener(told)

    def batch(self, samples: int, errors: int) -> None:
        """A batch is done."""
        self.done, self.errors = self.done + samples, self.errors + errors
        rate = (self.done - self._before) / max(time.monotonic() - self._start, 1e-9)
        left = None if self._total is None else round((self._total - self.done) / rate, 1)
        self.tell(
            "batch",
            done=self.done,
            total=self._total,
            errors=self.errors,
            images_per_second=round(rate, 2),
            seconds_left=left,
        )


def log_in(out: Path) -> Listener:
    """Writes every event but those of batches into the folder, a JSON document in each line."""

    def write(event: Event) -> None:
        if event["event"] != "batch":
            with (out / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")

    return write


def line_on(stream: TextIO | None = None) -> Listener:
    """Keeps one line of a terminal up to date: how far, how fast, how long still, how many errors."""
    terminal = stream or sys.stderr

    def show(event: Event) -> None:
        if event["event"] == "batch":
            terminal.write(f"\r\x1b[K{line(event)}")
        elif event["event"] == "end":
            terminal.write("\n")
        terminal.flush()

    return show


def line(event: Event) -> str:
    """The event of a batch in words."""
    of = "" if event["total"] is None else f" of {event['total']:,}"
    left = "" if event["seconds_left"] is None else f", {_duration(event['seconds_left'])} left"
    errors = f"{event['errors']:,} error{'s'[: event['errors'] != 1]}"
    return f"{event['done']:,}{of} images, {event['images_per_second']:.1f}/s{left}, {errors}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
