"""The code blocks of a documentation page run, one after the other, in one namespace."""

import re
from pathlib import Path

import pytest

from seewhy import methods

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("page", ["hooks.md", "metrics.md", "migration.md", "signals.md", "tasks.md", "volumes.md"])
def test_the_code_on_the_page_runs(page: str) -> None:
    text = (DOCS / page).read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    assert len(blocks) == text.count("```python") > 0
    namespace: dict[str, object] = {}
    for block in blocks:
        line = text[: block.start(1)].count("\n")
        exec(compile("\n" * line + block[1], str(DOCS / page), "exec"), namespace)


def test_the_table_of_methods_has_a_row_for_each() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", (DOCS / "methods.md").read_text(), re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(methods.available())
    assert {cells.count("|") for _, cells in rows} == {3}


def test_a_row_tells_of_backward_passes_as_the_registry_does() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(?:[^|]*)\|([^|]*)\|", (DOCS / "methods.md").read_text(), re.MULTILINE)
    for name, cost in rows:
        assert ("B" in cost) is ("backward" in methods.get(name).cost), name
