"""The command line: what it writes and prints, its exit codes, and what it says of mistakes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from seewhy.apps.cli.photographs import names_of
from typer.testing import CliRunner

from seewhy import samples
from seewhy.apps.cli.commands import app

MAIN = "from seewhy.apps.cli.commands import main; main()"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def process(*arguments, **options):
    def heed():  # a shell's background job, which this may be part of, ignores it
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    command = [sys.executable, "-c", MAIN, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed, **options)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_samples_are_explained(here):
    result = run("explain", samples.path("chelsea.png"), samples.path("coffee.png"), "--out", "out", "--raw")
    assert result.exit_code == 0, result.output
    assert "tiger cat" in result.stdout
    assert "espresso" in result.stdout
    assert "0.951" in result.stdout
    assert {file.name for file in Path("out").iterdir()} == {
        f"{stem}-grad_cam{ending}" for stem in ("chelsea", "coffee") for ending in (".png", "-figure.png", ".npz")
    }
    overlay, photo = Image.open("out/coffee-grad_cam.png"), Image.open(samples.path("coffee.png"))
    assert overlay.size == (600, 400)
    changed = (np.asarray(overlay) != np.asarray(photo)).any(-1)
    assert not changed[:, :124].any()  # outside of what the model saw
    assert changed[25:375, 125:475].mean() > 0.95
    assert Image.open("out/coffee-grad_cam-figure.png").size[0] > 600
    assert np.load("out/coffee-grad_cam.npz")["heatmap"].shape == (1, 224, 224)


def test_without_photographs_the_sample_is_explained_and_json_is_all_that_is_printed(here):
    finished = process("explain", "--json", "--target", "Egyptian cat", "--method", "LayerCAM")
    out, err = finished.communicate()
    (entry,) = json.loads(out)
    assert finished.returncode == 0, err
    assert err == b""
    assert entry["label"] == "Egyptian cat"
    assert entry["index"] == 285
    assert entry["probability"] == pytest.approx(0.355, abs=0.01)
    assert entry["method"] == "layer_cam"
    assert entry["layers"] == ["bn2"]
    assert Image.open(entry["overlay"]).size == (451, 300)
    assert Path(entry["figure"]).is_file()
    assert entry["raw"] is None


def test_bad_files_are_told_and_the_others_done(here):
    shutil.copy(samples.path("coffee.png"), "good.png")
    Path("empty.png").touch()
    Path("text[bold].png").write_text("hello")
    Path("cut.png").write_bytes(samples.path("coffee.png").read_bytes()[:9000])
    Path("folder.png").mkdir()
    bad = ["empty.png", "text[bold].png", "cut.png", "folder.png", "missing.png"]
    result = run("explain", *bad, "good.png", "--json")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == bad
    assert all(line.startswith("error: ") for line in lines)
    entries = json.loads(result.stdout)
    assert [entry["image"] for entry in entries] == [*bad, "good.png"]
    assert ["error" in entry for entry in entries] == [True] * 5 + [False]
    assert sorted(file.name for file in Path("seewhy-out").iterdir()) == [
        "good-grad_cam-figure.png",
        "good-grad_cam.png",
    ]
    assert run("explain", "empty.png").exit_code == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "grad_kam"], "grad_cam"),
        (["--colormap", "jett"], "'jet'"),
        (["--alpha", "1.5"], "--alpha"),
        (["--alpha", "nan"], "alpha"),
        (["--target", "zebraa"], "no class is called 'zebraa'"),
        (["--target", "cat"], "fits several classes"),
        (["--target", "1000"], "class 1000 is out of range"),
        (["--target", "-1"], "class -1 is out of range"),
        (["--layer", "nope"], "there is no layer 'nope'"),
        (["--layer", "classifier"], "does not lie over the input"),
        (["--model", "nope"], "there is no model 'nope'"),
        (["--model", "missing.py:build"], "missing.py: there is no such file"),
        (["--weights", "missing.pth"], "missing.pth: there is no such file"),
        (["--device", "cuda:99"], "the device 'cuda:99' cannot be used"),
        (["--out", "file"], "--out file: is no folder"),
        (["--bogus"], "--bogus"),
    ],
)
def test_a_wrong_option_ends_with_2_before_anything_is_written(here, options, said):
    Path("file").touch()
    result = run("explain", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert not list(here.rglob("*.png"))


def test_a_real_bug_keeps_its_traceback(here):
    Path("net.py").write_text("def build():\n    return {}['bug']\n")
    finished = process("explain", "--model", "net.py:build")
    _, err = finished.communicate()
    assert finished.returncode == 1
    assert b"Traceback" in err
    assert b"KeyError: 'bug'" in err


NET = """
import torch
from torch import nn
from seewhy.models import Preprocess
preprocess = Preprocess(size=(32, 32), resize=32)
labels = ["no", "yes"]
def build(*end):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1), *end)
def closed():
    return build(nn.Sigmoid())
def shares():
    return nn.Sequential(*list(build())[:-1], nn.Linear(4, 2), nn.Softmax(1))
def dead():
    net = build()
    net[0].bias.data.fill_(-100)
    return net
"""


def test_probabilities_of_one_logit_of_a_sigmoid_and_of_a_softmax(here):
    """The same net with and without its sigmoid gives the same probability; both sides add up to one."""
    Path("net.py").write_text(NET)
    found = {}
    for name in ("build", "closed", "shares"):
        for side in ("no", "yes"):
            result = run("explain", "--model", f"net.py:{name}", "--target", side, "--layer", "1", "--json")
            assert result.exit_code == 0, result.stderr
            (entry,) = json.loads(result.stdout)
            found[name, side] = entry["probability"]
        assert found[name, "no"] + found[name, "yes"] == pytest.approx(1, abs=1e-6)
    assert found["build", "yes"] == pytest.approx(found["closed", "yes"], abs=1e-6)
    assert abs(found["build", "yes"] - 0.5) > 0.01
    assert json.loads(result.stdout)[0]["score"] == pytest.approx(found["shares", "yes"], abs=1e-6)


def test_warnings_name_the_photograph_and_stand_in_the_json(here):
    Path("net.py").write_text(NET)
    shutil.copy(samples.path("coffee.png"), "cup.png")
    result = run("explain", "cup.png", "--model", "net.py:dead", "--layer", "1", "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith("cup.png: warning: ")
    (warning,) = json.loads(result.stdout)[0]["warnings"]
    assert "zero everywhere" in warning


def test_two_photographs_of_one_name_are_both_kept(here):
    for folder, sample in (("a", "chelsea.png"), ("b", "coffee.png")):
        Path(folder).mkdir()
        shutil.copy(samples.path(sample), f"{folder}/photo.png")
    result = run("explain", "a/photo.png", "b/photo.png", "--json")
    first, second = json.loads(result.stdout)
    assert Image.open(first["overlay"]).size == (451, 300)
    assert Image.open(second["overlay"]).size == (600, 400)


def test_names_by_hand():
    def names(*paths):
        return [name.name for name in names_of([Path(path) for path in paths], Path("out"), "m")]

    assert names("a/x.png", "b/x.jpg", "X.png") == ["x-m", "x-2-m", "X-3-m"]
    assert names("x.png", "b/x.png", "x-2.png") == ["x-m", "x-3-m", "x-2-m"]
    assert names("x.png", "out/x-m.png") == ["x-2-m", "x-m-m"]
    assert names("x.png", "out/x-m-figure.png") == ["x-2-m", "x-m-figure-m"]


def test_methods_are_listed():
    from seewhy.methods import available

    result = run("methods")
    assert result.exit_code == 0
    for name, method in available().items():
        (line,) = [line for line in result.stdout.splitlines() if line.split()[:1] == [name]]
        assert method.source in line
        assert method.cost in line


def test_layers_are_listed_in_order_and_the_choice_is_marked():
    result = run("layers", "--model", "default")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    (marked,) = [line for line in lines if "->" in line]
    assert marked[:3] == ["->", "bn2", "BatchNormAct2d"]
    assert "1 x 1280 x 7 x 7" in " ".join(marked)
    order = [
        next(i for i, line in enumerate(lines) if line[:1] == [name]) for name in ("conv_stem", "blocks", "classifier")
    ]
    assert order == sorted(order)
    assert run("layers", "--model", "nope").exit_code == 2


def test_ctrl_c_ends_with_130_and_leaves_whole_files(here):
    for number in range(60):
        shutil.copy(samples.path("chelsea.png"), f"{number}.png")
    running = process("explain", *sorted(here.glob("*.png")), "--out", "out")
    until = time.monotonic() + 60
    while not list(here.glob("out/*-figure.png")) and time.monotonic() < until:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert b"Traceback" not in err
    written = list(Path("out").iterdir())
    assert 0 < len(written) < 120
    for file in written:
        assert not file.name.startswith(".")
        Image.open(file).load()


def test_help_and_version_start_within_a_second_and_without_torch():
    environment = {**os.environ, "TERM": "dumb"}
    for option in ("--help", "--version"):
        took = []
        for _ in range(3):
            start = time.perf_counter()
            finished = process(option, env=environment)
            out, err = finished.communicate()
            took.append(time.perf_counter() - start)
            assert finished.returncode == 0, err
            assert b"seewhy" in out or b"explain" in out
        assert min(took) < 1.0
    code = "import sys, seewhy.apps.cli; print(sorted({'torch', 'numpy', 'matplotlib', 'timm'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
