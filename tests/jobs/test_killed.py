"""Runs that are killed with `kill -9`, again and again: the finished table is that of a run that was left alone."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import seewhy
from tests.jobs.small import assert_same, photos, run

ROOT = Path(__file__).parents[2]


def start(source, out, pause):
    command = [sys.executable, "-m", "tests.jobs.working", str(source), str(out), str(pause)]
    return subprocess.Popen(command, cwd=ROOT)


def parts(out):
    return len(list(out.glob("parts/part-*.parquet")))


def killed_again_and_again(tmp_path, *, times, draws):
    source, out = photos(tmp_path / "photos", 12 * (times + 2), bad=True), tmp_path / "why"
    whole = run(source, tmp_path / "whole").table
    interrupted = 0
    for _ in range(times):
        before = parts(out)
        process = start(source, out, 0.03)
        try:
            while parts(out) == before and process.poll() is None:
                time.sleep(0.005)
            time.sleep(draws.random() * 0.25)  # while it reads, explains, writes or renames
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        table = seewhy.jobs.open(out)
        interrupted += not table.complete
        if table.complete:  # on a fast machine, before it was killed as often as wished
            break
        assert parts(out) > before  # a lock that outlived the one before would have stopped it
    assert interrupted >= times // 2
    found = run(source, out)
    assert found.table.complete
    assert_same(found.table, whole)


def test_killed_twice(tmp_path, one_thread):
    killed_again_and_again(tmp_path, times=2, draws=random.Random(0))


@pytest.mark.slow
def test_killed_twenty_times(tmp_path, one_thread):
    killed_again_and_again(tmp_path, times=20, draws=random.Random(1))
