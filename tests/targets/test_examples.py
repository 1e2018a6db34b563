"""The examples in the docstrings of the targets give what they say."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("name", ["base", "boxes", "classes", "indices", "outputs", "regions", "text"])
def test_examples(name):
    found = doctest.testmod(import_module(f"seewhy.targets.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
