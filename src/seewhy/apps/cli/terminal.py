"""What the command line prints: tables to stdout, words and warnings to stderr, and what Ctrl-C does."""

from __future__ import annotations

import signal
import sys
import threading
import time
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from rich.console import Console

_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they reorder what is read


def cleaned(text: str) -> str:
    """`text` with control characters written out, so that a label or a file name cannot steer the terminal."""
    return "".join(
        character.encode("unicode_escape", "surrogatepass").decode()
        if (unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") and character != "\n")
        or character in _DIRECTIONS
        else character
        for character in text
    )


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """On a terminal as wide as that is; into a file or pipe as wide as the table needs."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cleaned(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(80, console.measure(table, options=console.options.update(width=10_000)).maximum))
    console.print(table)


def say(text: str, console: Console | None = None) -> None:
    """Write to stderr: no markup, no wrapping; above the progress bar where there is one."""
    from rich.console import Console
    from rich.text import Text

    (console or Console(stderr=True)).print(Text(cleaned(text)), soft_wrap=True)


def any_character() -> None:
    """Let stdout and stderr write out, as escapes, the characters that their encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


@contextmanager
def warnings_shown(show: Callable[[str], Any]) -> Iterator[None]:
    """Each different warning in the block goes to `show`, once, without the line of code it came from."""
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            yield
    finally:
        for text in dict.fromkeys(str(warning.message) for warning in caught):
            show(f"warning: {text}")


class CtrlC:
    """Ctrl-C in a block: it raises KeyboardInterrupt, is not forgotten, and waits while a result is handed over.

    Python drops an exception that a signal raises inside a callback of its own, such as a weak reference's. So the
    signal is remembered, and `check` raises again. Pressed twice, it always raises.
    """

    def __init__(self) -> None:
        self._pressed = False
        self._held = False

    def __enter__(self) -> CtrlC:
        self._handler = signal.getsignal(signal.SIGINT)
        self._hook = sys.unraisablehook
        # a shell's background job ignores the signal, and only the main thread may change that
        self._ours = self._handler is signal.default_int_handler and _in_main_thread()
        if self._ours:
            signal.signal(signal.SIGINT, self._press)
            sys.unraisablehook = self._unraisable
        return self

    def __exit__(self, *_: object) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, self._handler)
            sys.unraisablehook = self._hook

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed."""
        if self._pressed:
            raise KeyboardInterrupt

    def wait(self) -> NoReturn:
        """Do nothing until Ctrl-C raises."""
        while True:
            self.check()
            time.sleep(0.2)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the block end before Ctrl-C raises."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before

    def _press(self, *_: object) -> None:
        again, self._pressed = self._pressed, True
        if again or not self._held:
            raise KeyboardInterrupt

    def _unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is not KeyboardInterrupt:
            self._hook(unraisable)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
