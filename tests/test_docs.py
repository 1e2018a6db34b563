"""The documentation: its code and its tutorials run, its lists are whole, its versions agree."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import seewhy
from docs import notebooks
from seewhy import errors, methods

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

PAGES = [
    *(
        pytest.param("asking.md", marks=pytest.mark.slow),
        "export.md",
        "hooks.md",
        "jobs.md",
        "metrics.md",
        "migration.md",
        "pictures.md",
        "show.md",
        "signals.md",
        pytest.param("tasks.md", marks=pytest.mark.slow),
        "vlm.md",
        "volumes.md",
    ),
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


SLOW = ("first", "wrong", "dataset", "detector")  # those of the pretrained network, and the detector


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])
        for path in sorted(notebooks.TUTORIALS.glob("*.ipynb"))
    ],
)
def test_a_tutorial_runs_and_is_kept_without_outputs(name: str) -> None:
    path = notebooks.TUTORIALS / f"{name}.ipynb"
    cells = notebooks.run(path)
    assert any(cell.picture or cell.printed for cell in cells)
    kept = json.loads(path.read_text())["cells"]
    assert [cell for cell in kept if cell.get("outputs") or cell.get("execution_count")] == []
    text, _ = notebooks.plain(path)
    assert text.startswith("# ")
    assert text.count("```python") == sum(cell.kind == "code" for cell in cells)


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["version"]["path"] == "src/seewhy/__init__.py"
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    newest = re.search(r"^## \[(\d[\w.]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert cited is not None
    assert newest is not None
    assert seewhy.__version__ == cited[1] == newest[1]


@pytest.mark.slow
def test_the_site_builds_from_the_repository_alone(tmp_path: Path) -> None:
    """Errors are a link that leads nowhere, a page outside the navigation, a docstring that cannot be read."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert "insertion_minus_deletion" in (tmp_path / "reference" / "metrics" / "index.html").read_text()
    assert "(tutorials/first/)" in (tmp_path / "llms.txt").read_text()
    drawn = {path.stem: path.read_bytes() for path in (tmp_path / "methods" / "maps").glob("*.jpg")}
    assert sorted(drawn) == sorted(methods.available())
    assert len({*drawn.values()}) > len(drawn) / 2  # at the last layer some methods are one formula
    for name in ("gallery", "cards"):
        shown = re.findall(r'src="\.\./maps/(\w+)\.jpg"', (tmp_path / "methods" / name / "index.html").read_text())
        assert shown == list(methods.available())


def test_every_error_has_a_page_where_its_note_points() -> None:
    kinds = [
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.SeewhyError | Warning) and kind is not errors.SeewhyError
    ]
    listed = re.findall(r"^\| \[(\w+)\]\(\1\.md\)", (DOCS / "errors" / "index.md").read_text(), re.MULTILINE)
    assert listed == kinds
    for kind in kinds:
        page = (DOCS / "errors" / f"{kind}.md").read_text()
        assert re.findall(r"^#+ (.+)$", page, re.MULTILINE) == [kind, "Symptom", "Cause", "Cure"]
    assert errors.LayerError("no such layer.").__notes__ == ["docs/errors/LayerError.md tells more."]


def test_every_method_has_a_card_with_what_was_measured() -> None:
    cards = dict(
        re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", (DOCS / "methods/cards.md").read_text(), re.DOTALL | re.MULTILINE)
    )
    assert list(cards) == list(methods.available())
    rows = json.loads((ROOT / "benchmarks/results/truth.json").read_text())["rows"]
    (vit,) = [row for row in rows if (row["model"], row["method"], row["layer"]) == ("vit", "le_grad", "default")]
    assert f"ViT {vit['ap']:.2f}" in cards["le_grad"]
    assert "ResNet" not in cards["le_grad"].partition("On the evidence")[2]


def test_the_table_of_methods_has_a_row_for_each() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", (DOCS / "methods.md").read_text(), re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(methods.available())
    assert {cells.count("|") for _, cells in rows} == {3}


def test_a_row_tells_of_backward_passes_as_the_registry_does() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(?:[^|]*)\|([^|]*)\|", (DOCS / "methods.md").read_text(), re.MULTILINE)
    for name, cost in rows:
        assert ("B" in cost) is ("backward" in methods.get(name).cost), name
