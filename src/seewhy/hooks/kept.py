"""Hooks as they were found, whatever code from outside attaches and leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from seewhy.hooks.undo import undoing


@contextmanager
def keeping_hooks(model: nn.Module) -> Iterator[None]:
    """After the block each module of `model` has the hooks that it had before."""
    with undoing() as undo:
        for module in model.modules():
            for name, table in vars(module).items():
                if "_hooks" in name and isinstance(table, dict):
                    undo.later(_put_back, table, dict(table))
        yield


def _put_back(table: dict[Any, Any], found: dict[Any, Any]) -> None:
    table.clear()
    table.update(found)
