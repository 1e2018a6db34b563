"""Whole datasets: a run that can be stopped at any instant and goes on, and the table that it leaves.

run = seewhy.jobs.run("photos/", out="why/", model="timm:resnet50")
table = seewhy.jobs.open("why/")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from seewhy.errors import MissingExtra

if TYPE_CHECKING:
    from seewhy.jobs.running import Run, run
    from seewhy.jobs.table import Table
    from seewhy.jobs.table import opened as open  # noqa: A004

# Imported when they are first used (PEP 562): pyarrow and fsspec are an extra.
_HOMES = {"Run": "running.Run", "run": "running.run", "Table": "table.Table", "open": "table.opened"}

__all__ = ["Run", "Table", "open", "run"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'seewhy.jobs' has no attribute {name!r}")
    module, _, own = _HOMES[name].partition(".")
    try:
        value = globals()[name] = getattr(import_module(f"seewhy.jobs.{module}"), own)
    except ModuleNotFoundError as error:
        if error.name not in ("pyarrow", "fsspec"):
            raise
        raise MissingExtra.of(error.name, "jobs") from error
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
