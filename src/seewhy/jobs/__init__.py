"""Whole datasets: a run that can be stopped at any instant and goes on, and the table that it leaves."""

from seewhy.errors import MissingExtra

try:
    import fsspec as _fsspec  # noqa: F401
    import pyarrow as _pyarrow  # noqa: F401
except ImportError as error:
    raise MissingExtra.of(error.name or "pyarrow", "jobs") from error

from seewhy.jobs.running import Run, run
from seewhy.jobs.table import Table

open = Table.of  # noqa: A001  # as in seewhy.jobs.open("why/")

__all__ = ["Run", "Table", "open", "run"]
