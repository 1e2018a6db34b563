"""A run in a process of its own, to be killed: `python -m tests.jobs.working SOURCE OUT [SECONDS]`."""

from __future__ import annotations

import sys
import time

import torch

from tests.jobs.small import run

if __name__ == "__main__":
    torch.set_num_threads(1)
    source, out, *pause = sys.argv[1:]
    run(source, out, workers=1, listener=lambda _: time.sleep(float(pause[0]) if pause else 0))
