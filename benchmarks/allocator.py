"""The same allocator for every row of a benchmark.

glibc gives large buffers back to the system after every forward and faults them in again, which costs up to 30%, more
or less as it happens. With these thresholds it keeps them, for whatever is compared.
"""

from __future__ import annotations

import os
import sys

KEEPS_BUFFERS = {"MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_MMAP_THRESHOLD_": "100000000000"}


def keep_buffers() -> None:
    """Start this script anew with them, unless it has been: glibc reads them when a process starts."""
    if not KEEPS_BUFFERS.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEPS_BUFFERS)
