"""The code blocks of a documentation page run, one after the other, in one namespace."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from seewhy import errors, methods

DOCS = Path(__file__).parent.parent / "docs"


PAGES = [
    *(
        "export.md",
        "hooks.md",
        "jobs.md",
        "metrics.md",
        "migration.md",
        "signals.md",
        "tasks.md",
        "vlm.md",
        "volumes.md",
    ),
    *("tutorials/first.md", "tutorials/wrong.md"),
]


@pytest.mark.few(4)
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_the_code_on_the_page_runs(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # the pages save pictures
    text = (DOCS / page).read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    assert len(blocks) == text.count("```python") > 0
    namespace: dict[str, object] = {}
    for block in blocks:
        line = text[: block.start(1)].count("\n")
        exec(compile("\n" * line + block[1], str(DOCS / page), "exec"), namespace)


@pytest.mark.slow
def test_the_site_builds_from_the_repository_alone(tmp_path: Path) -> None:
    """Errors are a link that leads nowhere, a page outside the navigation, a docstring that cannot be read."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert "insertion_minus_deletion" in (tmp_path / "reference" / "metrics" / "index.html").read_text()
    assert "(tutorials/first/)" in (tmp_path / "llms.txt").read_text()


def test_every_error_has_a_heading_where_its_note_points() -> None:
    headings = re.findall(r"^## (\w+)$", (DOCS / "errors.md").read_text(), re.MULTILINE)
    kinds = [
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.SeewhyError | Warning) and kind is not errors.SeewhyError
    ]
    assert headings == kinds
    assert errors.LayerError("no such layer.").__notes__ == ["docs/errors.md#layererror tells more."]


def test_the_table_of_methods_has_a_row_for_each() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", (DOCS / "methods.md").read_text(), re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(methods.available())
    assert {cells.count("|") for _, cells in rows} == {3}


def test_a_row_tells_of_backward_passes_as_the_registry_does() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(?:[^|]*)\|([^|]*)\|", (DOCS / "methods.md").read_text(), re.MULTILINE)
    for name, cost in rows:
        assert ("B" in cost) is ("backward" in methods.get(name).cost), name
