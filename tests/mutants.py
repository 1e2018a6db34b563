"""What the tests notice: small changes to the engine's source, and whether a test fails for each.

    python -m tests.mutants                      # ten changes in each file, those that survive are printed
    python -m tests.mutants --only grid --count 3 --seed 1

A change that survives is either a gap in the tests or makes no difference that anybody could see.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
# by name: what is changed, and the tests that are to notice, the quickest first
FILES = {
    "tape": ("engine/tape.py", ("tests/engine", "tests/hooks", "tests/test_explainer.py")),
    "guard": ("engine/guard.py", ("tests/engine/test_guard.py", "tests/engine/test_session.py")),
    "replay": ("engine/replay.py", ("tests/engine/test_replay.py", "tests/methods/test_perturbation.py")),
    "grid": ("geometry/grid.py", ("tests/geometry", "tests/contracts/test_volumes.py", "tests/test_explainer.py")),
    "classes": ("targets/classes.py", ("tests/targets",)),
    "indices": ("targets/indices.py", ("tests/targets",)),
    "regions": ("targets/regions.py", ("tests/targets",)),
    "boxes": ("targets/boxes.py", ("tests/targets", "tests/methods/test_d_rise.py")),
}
SECONDS = 600  # a change that makes a test hang is noticed, too

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


def is_noticed(path: str, mutant: Mutant, tests: tuple[str, ...], source: str) -> bool:
    """Whether a test fails if the change is made, in a copy of the package."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "src", Path(folder) / "src", ignore=shutil.ignore_patterns("__pycache__"))
        changed = source[: mutant.start] + mutant.new + source[mutant.end :]
        (Path(folder) / "src" / "seewhy" / path).write_text(changed)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow and not all"]
        environment = {**os.environ, "PYTHONPATH": str(Path(folder) / "src"), "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                [*command, *tests], cwd=ROOT, env=environment, capture_output=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return True
        return done.returncode != 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=FILES, action="append", help="one of the files; may be given again")
    parser.add_argument("--count", type=int, default=10, help="changes in each file")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    for name in chosen.only or FILES:
        path, tests = FILES[name]
        source = (ROOT / "src" / "seewhy" / path).read_text()
        drawn = random.Random(chosen.seed).sample(found := list(mutants(source)), min(chosen.count, len(found)))
        survived = 0
        for mutant in sorted(drawn):
            if not is_noticed(path, mutant, tests, source):
                survived += 1
                print(f"survived: {path}:{mutant.line}: {mutant.old!r} as {mutant.new!r}", flush=True)
        print(f"{name}: {len(drawn) - survived} of {len(drawn)} noticed", flush=True)


if __name__ == "__main__":
    main()
