"""The docstrings of what is public: each parameter is named, what is returned is said, and what is raised."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from seewhy import errors

# What the reference of the site shows, and what its pages import. The callbacks of `integrations.lightning` and
# `integrations.transformers` are left out: their libraries take seconds to import.
MODULES = (
    "seewhy",
    "seewhy.errors",
    "seewhy.evaluation",
    "seewhy.exporting",
    "seewhy.hooks",
    "seewhy.inspect",
    "seewhy.integrations",
    "seewhy.integrations.tensorboard",
    "seewhy.jobs",
    "seewhy.jobs.analysis",
    "seewhy.methods",
    "seewhy.metrics",
    "seewhy.models",
    "seewhy.render",
    "seewhy.render.grids",
    "seewhy.results",
    "seewhy.samples",
    "seewhy.targets",
)
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Warns|Example):$")
ENTRY = re.compile(r"^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*): \S")
NOTHING = (None, "None", "Iterator[None]", inspect.Signature.empty)  # of a block that hands nothing out


def offered(module: ModuleType) -> list[str]:
    """The names in `__all__`, or the functions and classes that a module without it defines."""
    own = (name for name, found in vars(module).items() if getattr(found, "__module__", None) == module.__name__)
    return list(getattr(module, "__all__", None) or (name for name in own if not name.startswith("_")))


def members(found: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class defines."""
    for name, member in vars(found).items():
        if name != "__call__" and name.startswith("_"):
            continue
        if isinstance(member, property | cached_property):
            yield name, member
        elif inspect.isfunction(member) or isinstance(member, classmethod | staticmethod):
            yield name, getattr(found, name)


def public() -> Iterator[tuple[str, Any]]:
    """Functions, classes and the members that these define, each by the first name that it has."""
    seen: set[int] = set()
    for place in MODULES:
        module = import_module(place)
        for name in offered(module):
            found = getattr(module, name)
            if id(found) in seen or not (inspect.isclass(found) or inspect.isfunction(found)):
                continue
            seen.add(id(found))
            yield f"{place}.{name}", found
            for own, member in members(found) if inspect.isclass(found) else ():
                yield f"{place}.{name}.{own}", member


def sections(text: str) -> dict[str, list[str]]:
    """The lines of each section of a docstring."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if heading := SECTION.match(line):
            lines = found.setdefault(heading[1], [])
        elif line and not line.startswith(" "):
            lines = []
        elif line:
            lines.append(line)
    return found


def named(lines: list[str]) -> set[str]:
    """The entries of a section."""
    entries = (entry[1] for line in lines if (entry := ENTRY.match(line)))
    return {name.lstrip("*") for entry in entries for name in entry.split(", ")}


def raised(thing: Any) -> set[str]:
    """The errors of the library that a function's own body raises, or that of what makes a class's instances."""
    if inspect.isclass(thing):
        thing = vars(thing).get("__post_init__") or vars(thing).get("__init__")
    if not hasattr(thing, "__code__") or thing.__code__.co_filename == "<string>":  # none, or a dataclass's
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(thing))))
    made = [node.exc.func for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
    return {part for call in made for part in ast.unparse(call).split(".") if isinstance(vars(errors).get(part), type)}


def gaps(thing: Any) -> list[str]:
    """What a docstring does not say, or says of a parameter that there is not."""
    text = inspect.getdoc(thing) or ""
    if not text:
        return ["no docstring"]
    if isinstance(thing, property | cached_property):
        return []
    said = sections(text)
    makes_itself = inspect.isclass(thing) and not {"__init__", "__new__"} & vars(thing).keys()
    parameters = {} if makes_itself else dict(inspect.signature(thing).parameters)
    wanted = [name for name in parameters if name != "self" and not name.startswith("_")]
    known = named(said.get("Args", []))
    fields = named(said.get("Attributes", [])) if inspect.isclass(thing) else set()
    found = [f"{name} is not under Args" for name in wanted if name not in known | fields]
    found += [f"there is no parameter {name}" for name in sorted(known - parameters.keys())]
    found += [f"{name} is not under Raises" for name in sorted(raised(thing) - named(said.get("Raises", [])))]
    if not inspect.isclass(thing) and inspect.signature(thing).return_annotation not in NOTHING:
        found += [] if said.get("Returns") or said.get("Yields") else ["no Returns"]
    return found


PUBLIC = dict(public())


@pytest.mark.parametrize("name", PUBLIC)
def test_the_docstring_says_what_goes_in_and_what_comes_out(name: str) -> None:
    assert gaps(PUBLIC[name]) == [], name


def test_a_gap_is_found() -> None:
    def whole(one: int, *rest: int, **options: int) -> int:
        """Whole.

        Args:
            one: what it is,
                in: two lines.
            *rest: others.
            **options: more.

        Returns:
            A number.
        """

    def wrong(one: int) -> int:
        """Wrong.

        Args:
            other: no parameter.
        """

    def raising() -> None:
        """Raises.

        Raises:
            MethodError: always.
        """
        if raising:
            raise errors.MethodError("no.")
        raise errors.InputError("no.")

    def bare() -> None:
        pass

    class Child(int):
        """Made as its parent is."""

    assert gaps(whole) == gaps(Child) == []
    assert gaps(wrong) == ["one is not under Args", "there is no parameter other", "no Returns"]
    assert gaps(raising) == ["InputError is not under Raises"]
    assert gaps(bare) == ["no docstring"]
