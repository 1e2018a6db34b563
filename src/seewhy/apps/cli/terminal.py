"""What the command line prints: tables to stdout, words and warnings to stderr."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


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
        table.add_row(*map(Text, row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(80, console.measure(table, options=console.options.update(width=10_000)).maximum))
    console.print(table)


def say(text: str, console: Console | None = None) -> None:
    """To stderr, as it is: no markup, no wrapping; above the progress bar where there is one."""
    from rich.console import Console
    from rich.text import Text

    (console or Console(stderr=True)).print(Text(text), soft_wrap=True)


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
