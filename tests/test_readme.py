"""The README's Python runs as it stands, in order, from the repository's root."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    (tmp_path / "src").symlink_to(ROOT / "src")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the second model has random weights
        for block in blocks:
            exec(compile(block, "README.md", "exec"), names)
    assert Image.open("chelsea.png").size[0] > 1000
    assert names["explanation"].name() == "tiger cat"


def test_the_readme_shows_what_the_choice_was_measured_to_gain() -> None:
    """Each row's method and average precisions, from the committed table of what lies on the evidence."""
    section = (ROOT / "README.md").read_text().partition("## Which map to believe")[2].partition("\n## ")[0]
    shown = [_cells(line) for line in section.splitlines() if line.startswith("| ")][2:]
    report = (ROOT / "benchmarks/results/truth.md").read_text().partition("## Beside the other libraries")[2]
    measured = {cells[0]: cells[1:] for cells in map(_cells, report.partition("\n## ")[0].splitlines()[4:]) if cells}
    models = ("resnet", "plain", "mobilenet", "convnext", "vit", "mosaics")
    assert len(shown) == len(models)
    for (_, method, *shares), name in zip(shown, models, strict=True):
        grad_cam, _, auto, _, *others = measured[name]
        assert method.split("`")[1] == auto.split()[1].rstrip(",")
        assert shares == [cell.partition(" ")[0] for cell in (auto, grad_cam, *others)]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []


def test_the_readme_shows_rows_of_the_measured_table() -> None:
    section = (ROOT / "README.md").read_text().partition("## What it costs")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    measured = (ROOT / "benchmarks/results/cost-cpu.md").read_text().splitlines()
    assert len(rows) > 4
    assert [row for row in rows if row not in measured] == []
