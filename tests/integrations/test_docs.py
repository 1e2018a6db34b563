"""The snippets of docs/training.md run as they stand, and do what the text says."""

import re
import warnings
from pathlib import Path

import pytest

from tests.integrations.events import read

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
OWN_LOOP, LIGHTNING, TRANSFORMERS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def run(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "snippet"}
    exec(compile(snippet, str(PAGE), "exec"), namespace)
    return namespace


def test_own_loop(tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run(OWN_LOOP, tmp_path, monkeypatch)
    events = read(tmp_path / "runs" / "plain")
    assert [event.step for event in events.Scalars("seewhy/blank")] == [0, 10, 20]


@pytest.mark.parametrize(("snippet", "steps"), [(LIGHTNING, [0, 1, 2]), (TRANSFORMERS, [0, 2, 4])])
def test_frameworks(snippet, steps, tmp_path, monkeypatch, capsys):
    run(snippet, tmp_path, monkeypatch)
    printed = re.findall(r"^(\d+) (None|tensor)", capsys.readouterr().out, re.MULTILINE)
    assert [int(step) for step, _ in printed] == steps
    assert printed[0][1] == "None"
