"""What the tests notice: small changes to the engine's source, and whether a test fails for each.

    python -m tests.mutants                      # ten changes in each file, those that survive are printed
    python -m tests.mutants --only grid --count 3 --seed 1 --seed 2

A change that survives is either a gap in the tests or makes no difference that anybody could see. The tests run once
without a change, which has to pass, and tells which of them run which function: these are what a change in it is held
against. In each file one more change is made that nothing can overlook.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import multiprocessing
import os
import pickle
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
# by name: what is changed, and the tests that are to notice, the quickest first
FILES = {
    "tape": ("engine/tape.py", ("tests/engine/test_tape.py", "tests/engine", "tests/hooks")),
    "guard": ("engine/guard.py", ("tests/engine/test_guard.py", "tests/engine/test_session.py")),
    "replay": ("engine/replay.py", ("tests/engine/test_replay.py", "tests/methods/test_perturbation.py")),
    "grid": ("geometry/grid.py", ("tests/geometry/test_grid.py", "tests/geometry")),
    "classes": ("targets/classes.py", ("tests/targets/test_classes.py", "tests/targets")),
    "indices": ("targets/indices.py", ("tests/targets/test_classes.py", "tests/targets")),
    "regions": ("targets/regions.py", ("tests/targets/test_regions.py", "tests/targets")),
    "boxes": ("targets/boxes.py", ("tests/targets/test_boxes.py", "tests/targets", "tests/methods/test_d_rise.py")),
}
SHORT = "not slow and not all"  # the tests of `make test`
ELSEWHERE = ("", "")  # a test that starts a process may run anything in it
VOID = 77  # the exit code where another package than the copy would be imported

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.FloorDiv: ast.Mult,
}  # fmt: skip


class Mutant(NamedTuple):
    """One change: the text of a node, in lines and columns, and what stands there instead."""

    line: int
    old: str
    new: str
    start: int  # in characters from the beginning of the file
    end: int


def mutants(source: str) -> Iterator[Mutant]:
    """All changes of a file: operators exchanged, conditions turned, numbers and truths moved, calls left out."""
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def change(node: ast.expr | ast.stmt, new: str) -> Mutant:
        start = lines[node.lineno - 1] + node.col_offset
        end = lines[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        return Mutant(node.lineno, source[start:end], new, start, end)

    for node in _code(ast.parse(source)):
        if isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
            yield change(node, _with(node, "ops", [OPERATORS[type(node.ops[0])](), *node.ops[1:]]))
        elif isinstance(node, ast.BoolOp | ast.BinOp) and type(node.op) in OPERATORS:
            yield change(node, f"({_with(node, 'op', OPERATORS[type(node.op)]())})")
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield change(node, ast.unparse(node.operand))
        elif isinstance(node, ast.IfExp):
            yield change(
                node, f"({ast.unparse(node.orelse)} if {ast.unparse(node.test)} else {ast.unparse(node.body)})"
            )
        elif isinstance(node, ast.If) and not isinstance(node.test, ast.Compare | ast.BoolOp | ast.UnaryOp):
            yield change(node.test, f"(not ({ast.unparse(node.test)}))")
        elif isinstance(node, ast.Constant) and type(node.value) in (bool, int):
            yield change(node, str(not node.value if isinstance(node.value, bool) else node.value + 1))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield change(node, "pass")


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of what runs: no annotations, no messages, no decorators."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params") or isinstance(node, ast.Raise):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                yield child
                yield from _code(child)


def _with(node: ast.AST, field: str, value: object) -> str:
    kept = getattr(node, field)
    setattr(node, field, value)
    text = ast.unparse(node)
    setattr(node, field, kept)
    return text


class Reached:
    """A pytest plugin: which functions of `package` each test calls, what it lasts, and what starts a process."""

    def __init__(self, package: Path) -> None:
        self.package = str(package)
        self.functions: dict[str, set[tuple[str, str]]] = {}  # by test: (file, function); what is in it counts as it
        self.seconds: dict[str, float] = {}
        self.now: set[tuple[str, str]] = set()
        sys.addaudithook(self._started)

    def _started(self, event: str, _: Any) -> None:
        if event == "subprocess.Popen":
            self.now.add(ELSEWHERE)

    def _called(self, frame: FrameType, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if file.startswith(self.package):
            function = frame.f_code.co_qualname.partition(".<locals>")[0]
            self.now.add((file[len(self.package) + 1 :], function))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.now = self.functions[item.nodeid] = set()
        began = time.perf_counter()
        threading.settrace(self._called)
        sys.settrace(self._called)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            self.seconds[item.nodeid] = time.perf_counter() - began


class Chosen:
    """A pytest plugin: these tests and no others, in this order."""

    def __init__(self, tests: list[str]) -> None:
        self.places = {test: place for place, test in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        kept = [item for item in items if item.nodeid in self.places]
        items[:] = sorted(kept, key=lambda item: self.places[item.nodeid])


class Bench:
    """A copy of the package, to be changed, and the tests that run on it.

    They run in forks of this process, which imports all that they import, and nothing of the package.
    """

    def __init__(self, folder: Path, tests: list[str]) -> None:
        self.source = folder.resolve() / "src"
        self.package = self.source / "seewhy"
        shutil.copytree(ROOT / "src", self.source, ignore=shutil.ignore_patterns("__pycache__"))
        if self._run(tests, Reached(self.package), None):
            raise SystemExit("the tests fail without any change:\n" + (self.source / "out").read_text()[-3000:])
        self.functions, self.seconds, modules = pickle.loads((self.source / "reached").read_bytes())
        for module in modules:
            if module.partition(".")[0] not in ("seewhy", "tests", "conftest"):
                with suppress(Exception):  # made while the tests ran, or not importable twice: it is imported again
                    importlib.import_module(module)

    def is_noticed(self, path: str, mutant: Mutant, tests: tuple[str, ...]) -> bool:
        """Whether one of the tests that run the changed function fails."""
        file = self.package / path
        text = file.read_text()
        can = self._can_notice(path, _function(text, mutant.line))
        file.write_text(text[: mutant.start] + mutant.new + text[mutant.end :])
        try:
            return any(self._fails([test for test in can if _first(test, tests) == part]) for part in tests)
        finally:
            file.write_text(text)

    def _can_notice(self, path: str, function: str) -> list[str]:
        """The tests that run `function`, "" for what runs at import: the quickest files first, and tests in them."""
        found = [
            test for test, calls in self.functions.items() if not function or {(path, function), ELSEWHERE} & calls
        ]
        files: dict[str, float] = defaultdict(float)
        for test in found:
            files[test.partition("::")[0]] += self.seconds[test]
        return sorted(found, key=lambda test: (files[name := test.partition("::")[0]], name, self.seconds[test]))

    def _fails(self, tests: list[str]) -> bool:
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        limit = 60 + 5 * sum(self.seconds[test] for test in tests)  # a change that makes a test hang is noticed, too
        return bool(tests) and self._run(files, Chosen(tests), limit) != 0

    def _run(self, tests: list[str], plugin: Reached | Chosen, limit: float | None) -> int:
        process = multiprocessing.get_context("fork").Process(target=self._forked, args=(tests, plugin))
        process.start()
        process.join(limit)
        if process.is_alive():
            process.kill()
            process.join()
        if process.exitcode in (3, 4, 5, VOID):  # pytest's own errors, and no tests
            raise SystemExit("the tests did not run:\n" + (self.source / "out").read_text()[-3000:])
        return process.exitcode or 0

    def _forked(self, tests: list[str], plugin: Reached | Chosen) -> None:
        with (self.source / "out").open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        os.environ["PYTHONPATH"] = str(self.source)  # for processes that tests start
        sys.path.insert(0, str(self.source))
        sys.dont_write_bytecode = isinstance(plugin, Chosen)  # of changed code
        found = importlib.util.find_spec("seewhy")
        if found is None or found.origin != str(self.package / "__init__.py"):
            print("another seewhy than the copy would be imported:", found, flush=True)
            os._exit(VOID)
        code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-m", SHORT, *tests], [plugin])
        if isinstance(plugin, Reached):
            (self.source / "reached").write_bytes(pickle.dumps((plugin.functions, plugin.seconds, [*sys.modules])))
        sys.stdout.flush()
        os._exit(int(code))


def _first(test: str, parts: tuple[str, ...]) -> str | None:
    """The first of the folders and files that a test is in."""
    return next(filter(test.startswith, parts), None)


def _function(source: str, line: int) -> str:
    """The function or method that a line is in; "" outside of all."""
    for node in ast.parse(source).body:
        for inner in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(inner, ast.FunctionDef) and inner.lineno <= line <= (inner.end_lineno or 0):
                return f"{node.name}.{inner.name}" if isinstance(node, ast.ClassDef) else inner.name
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=FILES, action="append", help="one of the files; may be given again")
    parser.add_argument("--count", type=int, default=10, help="changes in each file")
    parser.add_argument("--seed", type=int, action="append", help="of the draw, 0 if none is given; may be given again")
    chosen = parser.parse_args()
    names = chosen.only or list(FILES)
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), list(dict.fromkeys(test for name in names for test in FILES[name][1])))
        for name in names:
            path, tests = FILES[name]
            source = (bench.package / path).read_text()
            # one that nobody can overlook: if it survived, the tests would not run on what is changed
            if not bench.is_noticed(path, Mutant(0, "", "raise RuntimeError\n", len(source), len(source)), tests):
                raise SystemExit(f"nothing at all is noticed in {path}")
            found = list(mutants(source))
            for seed in chosen.seed or [0]:
                drawn = random.Random(seed).sample(found, min(chosen.count, len(found)))
                survived = [mutant for mutant in sorted(drawn) if not bench.is_noticed(path, mutant, tests)]
                for mutant in survived:
                    print(f"survived: {path}:{mutant.line}: {mutant.old!r} as {mutant.new!r}")
                print(f"{name}, seed {seed}: {len(drawn) - len(survived)} of {len(drawn)} noticed", flush=True)


if __name__ == "__main__":
    main()
