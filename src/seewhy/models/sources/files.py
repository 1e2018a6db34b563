"""Models from a Python file of the caller's own."""

from __future__ import annotations

import difflib
import importlib.util
import sys
import sysconfig
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from seewhy.errors import ModelError, warn
from seewhy.images.preprocess import Preprocess
from seewhy.inputs.expected import first_convolution
from seewhy.models.loaded import Loaded

_importing = threading.RLock()  # sys.path and sys.modules are the whole process's


def from_file(spec: str, _pretrained: bool) -> Loaded:
    """The model that a function in a file builds. What the file and the function raise comes through.

    Args:
        spec: "path/to/file.py:build". The file is run, then its function `build()`, which returns an `nn.Module`. It
            can import the modules beside it. It may define `preprocess`, a `Preprocess`, and `labels`, a list of str.

    Raises:
        ModelError: if there is no such file or function, or if what they define is of the wrong type.
    """
    path, _, name = spec.rpartition(":")
    with _neighbours(Path(path)):
        contents = _run(Path(path))
        build = getattr(contents, name, None)
        if not callable(build):
            functions = [key for key, value in vars(contents).items() if callable(value) and not key.startswith("_")]
            near = difflib.get_close_matches(name, functions, n=3) or functions[:5]
            raise ModelError(
                f"{path} has no function {name!r}.",
                expected="one of its functions: " + ", ".join(near) if near else "def build() -> torch.nn.Module",
            )
        module = build()
    if not isinstance(module, nn.Module):
        exported = type(module).__name__ == "ExportedProgram"
        raise ModelError(
            f"{spec} did not return a model.",
            got=type(module).__name__,
            expected="a torch.nn.Module",
            do="return program.module()" if exported else None,
        )
    labels = getattr(contents, "labels", None)
    if labels is not None and (isinstance(labels, str) or not all(isinstance(label, str) for label in labels)):
        raise ModelError(f"`labels` in {path} are of the wrong type.", got=repr(labels)[:80], expected="a list of str")
    preprocess = _preprocess(contents, module, path)
    return Loaded(module, preprocess, None if labels is None else tuple(labels), spec)


def _preprocess(contents: ModuleType, module: nn.Module, path: str) -> Preprocess:
    """The file's own, or ImageNet's with a warning."""
    found: Any = getattr(contents, "preprocess", None)
    if found is None:
        first = first_convolution(module)
        grey = first is not None and first[1].in_channels == 1
        found = Preprocess().gray() if grey else Preprocess()
        warn(
            f"{path} defines no `preprocess`, so ImageNet's is used{' in grey levels' if grey else ''}: {found.size} "
            f"of {found.resize} pixels, mean {found.mean}, std {found.std}. If the model was trained otherwise, its "
            "answers and maps are wrong; define preprocess = seewhy.models.Preprocess(...) in the file.",
            UserWarning,
        )
    if not isinstance(found, Preprocess):
        raise ModelError(
            f"`preprocess` in {path} is of the wrong type.",
            got=type(found).__name__,
            expected="a seewhy.models.Preprocess",
        )
    return found


def _run(path: Path) -> ModuleType:
    """The module in the file `path`, under a name of its own."""
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file.", expected="path/to/file.py:build")
    name = f"seewhy_model_{path.stem}_{uuid.uuid4().hex}"
    plan = importlib.util.spec_from_file_location(name, path)
    if plan is None or plan.loader is None:
        raise ModelError(f"{path}: is not a Python file.")
    contents = importlib.util.module_from_spec(plan)
    sys.modules[name] = contents  # dataclasses and pickles in the file look themselves up here
    try:
        plan.loader.exec_module(contents)
    except BaseException:
        del sys.modules[name]
        raise
    return contents


@contextmanager
def _neighbours(file: Path) -> Iterator[None]:
    """Inside the block the modules beside `file` can be imported by their names, as when it is run as a script.

    Afterwards `sys.path` and `sys.modules` are as before: the neighbours of another file may have the same names. A
    module of the caller's with the name of a neighbour is out of the way meanwhile; a library is not.
    """
    folder = file.resolve().parent
    beside = {entry.stem for entry in folder.glob("*.py")}
    beside |= {entry.parent.name for entry in folder.glob("*/__init__.py")}
    with _importing:
        beside -= {name for name in beside if _is_library(sys.modules.get(name))}
        before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in beside}
        for name, module in before.items():
            if not _lies_in(module, folder):
                del sys.modules[name]
        sys.path.insert(0, str(folder))
        try:
            yield
        finally:
            sys.path.remove(str(folder))
            for name in [name for name in sys.modules if name.partition(".")[0] in beside]:
                del sys.modules[name]
            sys.modules.update(before)


def _is_library(module: ModuleType | None) -> bool:
    """Whether a module is installed, or a part of Python or of seewhy."""
    if module is None:
        return False
    places = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return getattr(module, "__file__", None) is None or _lies_in(module, *map(Path, places), Path(__file__).parents[3])


def _lies_in(module: ModuleType, *folders: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and any(Path(file).resolve().is_relative_to(folder.resolve()) for folder in folders)
