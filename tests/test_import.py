"""What importing costs, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout


def test_import_adds_little_to_torch() -> None:
    """The bound is 0.3 s, with every public name reached, so that nothing hides behind the lazy table.

    The least of five is what importing takes; the others tell what else the machine does, such as the other tests.
    """
    code = """
import json, time, torch
start = time.perf_counter()
import seewhy
for name in seewhy.__all__:
    getattr(seewhy, name)
print(json.dumps(time.perf_counter() - start))
"""
    assert min(json.loads(run(code)) for _ in range(5)) < 0.3


def test_import_brings_nothing_heavy() -> None:
    code = """
import json, sys, seewhy
for name in seewhy.__all__:
    getattr(seewhy, name)
print(json.dumps([name for name in ("matplotlib", "timm", "torchvision", "typer", "rich") if name in sys.modules]))
"""
    assert json.loads(run(code)) == []


def test_import_alone_brings_not_even_torch() -> None:
    assert run("import sys, seewhy; print('torch' in sys.modules)").strip() == "False"


@pytest.mark.parametrize("first", ["import seewhy.explain", "from seewhy.explain import Explainer", "import seewhy"])
def test_functions_are_not_hidden_by_their_modules(first: str) -> None:
    code = f"{first}\nimport seewhy\nprint(seewhy.explain.__name__, callable(seewhy.explain))"
    assert run(code).strip() == "explain True"


def test_an_unknown_name_is_an_attribute_error() -> None:
    code = "import seewhy\ntry:\n    seewhy.nothing\nexcept AttributeError as error:\n    print(error)"
    assert "has no attribute 'nothing'" in run(code)
