"""The tutorials: notebooks without outputs, which tests and the site run from top to bottom."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

TUTORIALS = Path(__file__).parent / "tutorials"


class Cell(NamedTuple):
    """One cell, and what running it gave.

    Attributes:
        kind: "markdown" or "code".
        source: its text.
        printed: what it wrote, and the text of its last expression.
        picture: the PNG of its last expression, where that is drawn.
    """

    kind: str
    source: str
    printed: str = ""
    picture: bytes | None = None


def run(path: Path) -> list[Cell]:
    """The cells of a notebook, run in one namespace in an empty folder. What they raise comes through."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = []
    with tempfile.TemporaryDirectory() as folder, _inside(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, cell in enumerate(json.loads(path.read_text())["cells"]):
            source = "".join(cell["source"])
            if cell["cell_type"] != "code":
                cells.append(Cell("markdown", source))
                continue
            written = io.StringIO()
            with contextlib.redirect_stdout(written), contextlib.redirect_stderr(io.StringIO()):
                value = _value(source, f"{path}, cell {number}", names)
            drawn = getattr(value, "_repr_png_", lambda: None)()
            text = "" if value is None or drawn else repr(value)
            cells.append(Cell("code", source, written.getvalue() + text, drawn))
    return cells


def _value(source: str, name: str, names: dict[str, Any]) -> Any:
    """Runs a cell; the value of its last expression, if it ends in one."""
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), name, "eval"), names)


@contextlib.contextmanager
def _inside(folder: str) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def plain(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, not run."""
    read = json.loads(path.read_text())["cells"]
    return _told(path, [Cell(cell["cell_type"], "".join(cell["source"])) for cell in read])


def page(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown with its outputs, and the pictures by the names that it calls them."""
    return _told(path, run(path))


def _told(path: Path, cells: list[Cell]) -> tuple[str, dict[str, bytes]]:
    text, pictures = [f"[This page as a notebook]({path.name}){{ .md-button }}"], {}
    for cell in cells:
        text.append(f"```python\n{cell.source}\n```" if cell.kind == "code" else cell.source)
        if cell.printed.strip():
            text.append(f"```text\n{cell.printed.rstrip()}\n```")
        if cell.picture:
            name = f"{path.stem}-{len(pictures)}.png"
            pictures[name] = cell.picture
            text.append(f"![What the cell shows]({name})")
    first = text[1].partition("\n")
    return "\n\n".join([first[0], text[0], first[2].strip(), *text[2:]]) + "\n", pictures
