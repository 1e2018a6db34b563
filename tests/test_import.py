"""What importing costs, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pkgutil import iter_modules, walk_packages
from types import ModuleType

import seewhy


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout


def test_import_brings_only_what_the_core_needs() -> None:
    """With every public name reached, so that nothing hides behind the lazy table. Counted, not timed."""
    code = """
import json, sys, torch, numpy, PIL.Image, jaxtyping, tqdm
before = set(sys.modules)
import seewhy
for name in seewhy.__all__:
    getattr(seewhy, name)
new = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
print(json.dumps(sorted(new)))
"""
    found = {name for name in json.loads(run(code)) if not name.startswith("_cython")}  # comes with a part of numpy
    assert found <= {"seewhy", "torch", "numpy", "PIL", "jaxtyping", "tqdm"}


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


def test_no_module_has_the_name_of_what_its_package_offers() -> None:
    """Else `from package import name` gives the module or the function, whichever was imported last."""
    for found in [seewhy, *(import_module(entry.name) for entry in walk_packages(seewhy.__path__, "seewhy."))]:
        if not hasattr(found, "__path__") or ".compat" in found.__name__:
            continue
        modules = {entry.name for entry in iter_modules(found.__path__)}
        offered = {name for name in getattr(found, "__all__", ()) if not isinstance(getattr(found, name), ModuleType)}
        assert not modules & offered, found.__name__


def test_an_unknown_name_is_an_attribute_error() -> None:
    code = "import seewhy\ntry:\n    seewhy.nothing\nexcept AttributeError as error:\n    print(error)"
    assert "has no attribute 'nothing'" in run(code)
