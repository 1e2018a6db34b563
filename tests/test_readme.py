"""The README's Python runs as it stands, in order, from the repository's root."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    (tmp_path / "src").symlink_to(ROOT / "src")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the second model has random weights
        for block in blocks:
            exec(compile(block, "README.md", "exec"), names)
    assert Image.open("chelsea.png").size[0] > 1000
    assert names["explanation"].method == "grad_cam_plus_plus"


def test_the_readme_shows_rows_of_the_measured_table() -> None:
    section = (ROOT / "README.md").read_text().partition("## What it costs")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    measured = (ROOT / "benchmarks/results/cost-cpu.md").read_text().splitlines()
    assert len(rows) > 4
    assert [row for row in rows if row not in measured] == []
