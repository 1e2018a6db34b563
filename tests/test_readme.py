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
    """Each row's AP, to two digits, from the committed table."""
    section = (ROOT / "README.md").read_text().partition("## Which map to believe")[2].partition("\n## ")[0]
    shown = [line.split("|") for line in section.splitlines() if line.startswith("| ")][2:]
    measured = (ROOT / "benchmarks/results/choosing.md").read_text().splitlines()
    rows = [
        line.split("|") for line in measured if line.startswith(("| resnet ", "| plain ", "| mobilenet ", "| vit "))
    ]
    first = {row[1].strip(): row for row in reversed(rows)}
    expected = [first[name] for name in ("resnet", "plain", "mobilenet", "vit")]
    assert [(float(row[3]), float(row[4])) for row in shown] == [
        (pytest.approx(float(row[3]), abs=0.005), pytest.approx(float(row[4]), abs=0.005)) for row in expected
    ]


def test_the_readme_shows_rows_of_the_measured_table() -> None:
    section = (ROOT / "README.md").read_text().partition("## What it costs")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    measured = (ROOT / "benchmarks/results/cost-cpu.md").read_text().splitlines()
    assert len(rows) > 4
    assert [row for row in rows if row not in measured] == []
