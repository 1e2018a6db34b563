"""Ray Data with two actors on this machine, one of which is killed: the same table. Ray listens on loopback only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import seewhy
from seewhy.errors import InputError
from tests.jobs.small import FILE, assert_same, photos, run
from tests.jobs.test_run import Shots

ROOT = Path(__file__).parents[2]

# the model is built in every actor; each notes its process, and takes its time so that a kill comes midway
SLOW = (
    FILE
    + """
import os, pathlib, time
from torch import nn

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, images):
        if NOTES:
            (pathlib.Path(NOTES) / str(os.getpid())).touch()
            time.sleep(0.1)
        return self.net(images)

def build():
    return Slow()
"""
)


def explained(source, out, model, **options):
    preprocess = {"batch_size": 4, "part_size": 8, "device": "cpu"}
    return seewhy.jobs.run(source, out, model=f"{model}:build", **preprocess, **options)


@pytest.mark.slow
def test_a_worker_is_killed_midway(tmp_path, monkeypatch, one_thread):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "src")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    source, model, notes = photos(tmp_path / "photos", 60, bad=True), tmp_path / "model.py", tmp_path / "notes"
    notes.mkdir()
    killed = []

    def kill(event):
        if event["event"] == "batch" and not killed:
            victim = next(int(path.name) for path in notes.iterdir() if int(path.name) != os.getpid())
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    try:
        model.write_text(f"NOTES = ''\n{SLOW}")
        whole = explained(source, tmp_path / "whole", model, workers=0).table
        model.write_text(f"NOTES = {str(notes)!r}\n{SLOW}")
        found = explained(source, tmp_path / "why", model, engine="ray", workers=2, listener=kill)
    finally:
        assert not ray.is_initialized()
    assert killed
    assert len({path.name for path in notes.iterdir()} - {str(os.getpid())}) >= 3  # two, and one in place of the killed
    assert (found.images, found.errors, found.table.complete) == (63, 3, True)
    assert_same(found.table, whole)


CLUSTER = """
import sys, time
import ray
from ray.util.client.server.server import serve
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
server = serve("127.0.0.1", int(sys.argv[1]))
print("ready", flush=True)
time.sleep(300)
"""


@pytest.mark.slow
def test_a_cluster_is_reached_by_its_address(tmp_path, monkeypatch, one_thread):
    """Another process has the cluster, and this one is Ray's client."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "src")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    source, model = photos(tmp_path / "photos", 12, bad=True), tmp_path / "model.py"
    model.write_text(FILE)
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    cluster = subprocess.Popen([sys.executable, "-c", CLUSTER, str(port)], stdout=subprocess.PIPE, text=True)
    try:
        assert any(line.strip() == "ready" for line in cluster.stdout)
        found = explained(source, tmp_path / "why", model, engine=f"ray://127.0.0.1:{port}", workers=2)
    finally:
        cluster.terminate()
        cluster.wait()
        assert not ray.is_initialized()
    assert (found.images, found.errors, found.table.complete) == (15, 3, True)
    assert_same(found.table, explained(source, tmp_path / "whole", model, workers=0).table)


def test_a_stream_is_refused(tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(InputError, match="can only be read from its beginning"):
        run(Shots(3), tmp_path / "why", engine="ray")


def test_importing_the_engine_does_not_import_ray():
    code = "import sys, seewhy.jobs; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
