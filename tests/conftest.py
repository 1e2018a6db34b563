"""Which of many alike cases `make test` runs."""

from __future__ import annotations

import math
from collections import defaultdict

import pytest


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test marked `few(n)`, some n of its cases, spread over all of them, stay; the others are marked `all`."""
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("few"):
            cases[item.nodeid.partition("[")[0]].append(item)
    for alike in cases.values():
        (count,) = alike[0].get_closest_marker("few").args
        step = math.ceil(len(alike) / count)
        for number, item in enumerate(alike):
            if number % step:
                item.add_marker(pytest.mark.all)
