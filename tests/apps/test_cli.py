"""The command line: what it writes and prints, its exit codes, and what it says of mistakes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import seewhy
from seewhy import Explanation, samples
from seewhy.apps.cli.commands import app
from seewhy.apps.cli.names import KEY, Naming, names_of, request_in
from seewhy.apps.cli.records import Failure
from seewhy.apps.cli.sources import photographs
from seewhy.apps.cli.terminal import CtrlC, cleaned

MAIN = "from seewhy.apps.cli.commands import main; main()"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def process(*arguments, **options):
    def heed():  # a shell's background job, which this may be part of, ignores it
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    command = [sys.executable, "-c", MAIN, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed, **options)


def records(result):
    """One JSON document per line."""
    return [json.loads(line) for line in result.stdout.splitlines()]


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
        f"{stem}-default{ending}" for stem in ("chelsea", "coffee") for ending in (".png", "-figure.png", ".npz")
    }
    overlay, photo = Image.open("out/coffee-default.png"), Image.open(samples.path("coffee.png"))
    assert overlay.size == (600, 400)
    changed = (np.asarray(overlay) != np.asarray(photo)).any(-1)
    assert not changed[:, :124].any()  # outside of what the model saw
    assert changed[25:375, 125:475].mean() > 0.95
    assert Image.open("out/coffee-default-figure.png").size[0] > 600
    assert np.load("out/coffee-default.npz")["heatmap"].shape == (1, 224, 224)


def test_without_photographs_the_sample_is_explained_and_json_is_all_that_is_printed(here):
    finished = process("explain", "--json", "--target", "Egyptian cat", "--method", "LayerCAM")
    out, err = finished.communicate()
    (entry,) = map(json.loads, out.splitlines())
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
    entries = records(result)
    assert [entry["image"] for entry in entries] == [*bad, "good.png"]
    assert ["error" in entry for entry in entries] == [True] * 5 + [False]
    assert sorted(file.name for file in Path("seewhy-out").iterdir()) == [
        "good-default-figure.png",
        "good-default.png",
    ]
    assert run("explain", "empty.png").exit_code == 1


@pytest.mark.few(9)
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
        (["--layer", "layer4"], "a layer with space, such as"),
        (["--method", "grad_cam", "--method", "layer_cam"], "for several: --methods grad_cam,layer_cam"),
        (["--method", "grad_cam", "--methods", "layer_cam"], "one of --method and --methods"),
        (["--methods", ","], "--methods names none"),
        (["--methods", "grad_cam,nope"], "there is no method 'nope'"),
        (["--signed", "--mode", "opacity"], "opacity has no sign"),
        (["--top-k", "0"], "--top-k"),
        (["--top-k", "2", "--target", "cat"], "--top-k ranks classes"),
        (["--size", "0"], "--size is no size"),
        (["--size", "12x"], "--size is no size"),
        (["--mean", "0.5,0.5"], "--mean does not fit"),
        (["--mean", "nan"], "--mean does not fit"),
        (["--std", "0"], "--std is not positive"),
        (["--labels", "missing.txt"], "--labels missing.txt: cannot be read (No such file"),
        (["--csv", "file/a.csv"], "--csv file/a.csv: cannot be written"),
        (["--batch-size", "0"], "--batch-size"),
        (["--skip-existing", "--no-figure", "--no-overlay"], "--skip-existing looks for files"),
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
def normed():
    head = [nn.InstanceNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
    return nn.Sequential(*list(build())[:2], nn.Conv2d(4, 4, 3), *head)
def dead():
    net = build()
    net[0].bias.data.fill_(-100)
    return net
"""

PLAIN = """
import torch
from torch import nn
from seewhy.models import Preprocess
CHANNELS = 3
preprocess = Preprocess(size=(32, 32), resize=32)
def build():
    return Net()
class Net(nn.Sequential):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, 2, 1, bias=False)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.conv.weight.data.zero_()
        self.conv.weight.data[:, 0, 0, 0] = torch.tensor([-1.0, 1.0])
"""
SEGMENTER = """
import torch
from torch import nn
from seewhy.models import Preprocess
preprocess = Preprocess(size=(32, 32), resize=32)
def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
"""
FRAGILE = """
import torch
from torch import nn
from seewhy.errors import GradientError
from seewhy.models import Preprocess
preprocess = Preprocess(size=(32, 32), resize=32, mean=(0.0,) * 3, std=(1.0,) * 3)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 3)
    def forward(self, image):
        if image.flatten(1).amax(1).min() < 0.1:
            raise GradientError("the model saw too little")
        return self.head(self.conv(image).relu().mean((-2, -1)))
build = Net
"""


def test_probabilities_of_one_logit_of_a_sigmoid_and_of_a_softmax(here):
    """The same net with and without its sigmoid gives the same probability; both sides add up to one."""
    Path("net.py").write_text(NET)
    found = {}
    for name in ("build", "closed", "shares"):
        for side in ("no", "yes"):
            result = run("explain", "--model", f"net.py:{name}", "--target", side, "--layer", "1", "--json")
            assert result.exit_code == 0, result.stderr
            (entry,) = records(result)
            found[name, side] = entry["probability"]
        assert found[name, "no"] + found[name, "yes"] == pytest.approx(1, abs=1e-6)
    assert found["build", "yes"] == pytest.approx(found["closed", "yes"], abs=1e-6)
    assert abs(found["build", "yes"] - 0.5) > 0.01
    assert records(result)[0]["score"] == pytest.approx(found["shares", "yes"], abs=1e-6)


def test_warnings_name_the_photograph_and_stand_in_the_json(here):
    Path("net.py").write_text(NET)
    shutil.copy(samples.path("coffee.png"), "cup.png")
    result = run("explain", "cup.png", "--model", "net.py:dead", "--layer", "1", "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith("cup.png: warning: ")
    (warning,) = records(result)[0]["warnings"]
    assert "zero everywhere" in warning


def test_a_map_of_rounding_is_told_of_once(here):
    """The mean of a normalised map is 0 whatever the image: the gradient before is rounding, and the map is blanked."""
    Path("net.py").write_text(NET)
    shutil.copy(samples.path("coffee.png"), "cup.png")
    result = run("explain", "cup.png", "--model", "net.py:normed", "--layer", "2", "--json")
    assert result.exit_code == 0, result.stderr
    (warning,) = records(result)[0]["warnings"]
    assert "is rounding: its gradient is zero" in warning
    assert result.stderr.count("warning:") == 1


def test_two_photographs_of_one_name_are_both_kept(here):
    for folder, sample in (("a", "chelsea.png"), ("b", "coffee.png")):
        Path(folder).mkdir()
        shutil.copy(samples.path(sample), f"{folder}/photo.png")
    result = run("explain", "a/photo.png", "b/photo.png", "--no-figure", "--json")
    first, second = records(result)
    assert Image.open(first["overlay"]).size == (451, 300)
    assert Image.open(second["overlay"]).size == (600, 400)


def test_names_by_hand(tmp_path):
    def names(*paths):
        found = names_of([Path(path) for path in paths], Naming(tmp_path, "m", {}), inputs(paths))
        return [files.overlays[0].stem for files in found]

    def inputs(paths):
        return frozenset(Path(path).resolve() for path in paths)

    assert names("a/x.png", "b/x.jpg", "X.png") == ["x-m", "x-2-m", "X-3-m"]
    assert names("x.png", "b/x.png", "x-2.png") == ["x-m", "x-3-m", "x-2-m"]
    assert names("x.png", tmp_path / "x-m.png") == ["x-2-m", "x-m-m"]
    assert names("x.png", tmp_path / "x-m-figure.png") == ["x-2-m", "x-m-figure-m"]
    (tmp_path / "y-m-figure.png").mkdir()
    (tmp_path / "y-2-m.png").touch()
    assert names("y.png") == ["y-3-m"]


@pytest.mark.slow
def test_nothing_is_overwritten_but_what_the_same_command_wrote(here):
    """Another folder, class, layer, method, colour or model: its own file. The same again: the same file."""
    for folder, sample in (("a", "chelsea.png"), ("b", "coffee.png")):
        Path(folder).mkdir()
        shutil.copy(samples.path(sample), f"{folder}/photo.png")
    Path("net.py").write_text(NET)
    common = ("--no-figure", "--raw", "--json")
    commands = [
        ("a/photo.png",),
        ("b/photo.png",),
        ("a/photo.png", "--target", "Egyptian cat"),
        ("a/photo.png", "--target", "tabby"),
        ("a/photo.png", "--layer", "blocks.4"),
        ("a/photo.png", "--layer", "blocks.5"),
        ("a/photo.png", "--method", "layer_cam"),
        ("a/photo.png", "--colormap", "gray"),
        ("a/photo.png", "--alpha", "0.7"),
        ("a/photo.png", "--signed"),
        ("a/photo.png", "--mode", "opacity"),
        ("a/photo.png", "--model", "net.py:build", "--layer", "1"),
    ]
    written = [records(run("explain", *command, *common))[0] for command in commands]
    files = [entry[what] for entry in written for what in ("overlay", "raw")]
    assert len({*files}) == 2 * len(commands)
    contents = [Path(file).read_bytes() for file in files]
    again = [records(run("explain", *command, *common))[0] for command in commands]
    assert [(entry["overlay"], entry["raw"]) for entry in again] == [
        (entry["overlay"], entry["raw"]) for entry in written
    ]
    pictures = [content for file, content in zip(files, contents, strict=True) if file.endswith(".png")]
    assert [Path(file).read_bytes() for file in files if file.endswith(".png")] == pictures
    assert Path(written[2]["overlay"]).name == "photo-default-Egyptian_cat.png"
    assert Path(written[4]["overlay"]).name == "photo-default-blocks.4.png"


def test_a_picture_of_somebody_else_s_stays(here):
    Path("seewhy-out").mkdir()
    for name in ("chelsea-default.png", "chelsea-default-2.png"):
        Path("seewhy-out", name).write_text("mine")
    (entry,) = records(run("explain", "--json"))
    assert Path(entry["overlay"]).name == "chelsea-2-default.png"
    assert Path("seewhy-out/chelsea-default.png").read_text() == "mine"
    assert request_in(Path("seewhy-out/chelsea-default.png")) is None
    assert request_in(Path(entry["overlay"])) == request_in(Path(entry["figure"])) is not None
    assert Image.open(entry["overlay"]).info[KEY] == request_in(Path(entry["overlay"]))


def test_inputs_are_not_written_to(here):
    """The mask and the photographs lie where the output would go."""
    Path("net.py").write_text(SEGMENTER)
    Path("why").mkdir()
    shutil.copy(samples.path("coffee.png"), "cup.png")
    Image.new("L", (600, 400), 255).save("why/cup-default-mask.png")
    before = Path("why/cup-default-mask.png").read_bytes()
    common = ("--model", "net.py:build", "--layer", "1", "--target", "1", "--out", "why", "--json")
    result = run("explain", "cup.png", "--mask", "why/cup-default-mask.png", *common)
    assert result.exit_code == 0, result.stderr
    (entry,) = records(result)
    assert Path("why/cup-default-mask.png").read_bytes() == before
    assert Image.open(entry["overlay"]).size == (600, 400)


def test_folders_and_patterns_are_taken(here):
    for name in ("in/b.JPG", "in/sub/a.png", "in/sub/notes.txt", "in/.hidden/c.png", "in/.d.png", "in/out/e.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("in/odd[1].png").touch()
    Path("empty").mkdir()

    def found(*arguments):
        return [
            entry.error if isinstance(entry, Failure) else entry.as_posix()
            for entry in photographs([Path(argument) for argument in arguments], Path("in/out"))
        ]

    assert found("in") == ["in/b.JPG", "in/odd[1].png", "in/sub/a.png"]
    assert found("in/*/*.png") == ["in/sub/a.png"]
    assert found("in/**/*.png") == ["in/odd[1].png", "in/sub/a.png"]
    assert found("in/s*") == ["in/sub/a.png"]
    assert found("in/odd[1].png", "in/out/e.png", "missing.png") == ["in/odd[1].png", "in/out/e.png", "missing.png"]
    assert found("in/b.JPG", "in/*.JPG", "./in/b.JPG") == ["in/b.JPG"]
    assert found("empty", "no*pe") == ["empty: the folder holds no pictures.", "no*pe: there is no such file."]


def test_a_folder_is_explained_in_batches_as_one_by_one(here):
    """The same answers, whatever the batch; each photograph its own picture."""
    Path("net.py").write_text(NET)
    Path("in").mkdir()
    for number in range(5):
        photo = Image.open(samples.path("coffee.png")).convert("RGB").rotate(40 * number)
        photo.crop((0, 0, 300 + 10 * number, 200)).save(f"in/{number}.png")
    Path("in/3x.png").write_text("no picture")
    found = {}
    for size in (1, 2, 8):
        options = ("--model", "net.py:build", "--layer", "1", "--no-figure", "--batch-size", size, "--json")
        result = run("explain", "in", "--out", f"out{size}", *options)
        assert result.exit_code == 1
        entries = records(result)
        assert [entry["image"] for entry in entries] == [f"in/{n}.png" for n in (0, 1, 2, 3, "3x", 4)]
        found[size] = [entry["score"] for entry in entries if "error" not in entry]
        sizes = [Image.open(entry["overlay"]).size for entry in entries if "error" not in entry]
        assert sizes == [(300 + 10 * number, 200) for number in range(5)]
    assert found[2] == pytest.approx(found[1], abs=1e-5)
    assert found[8] == pytest.approx(found[1], abs=1e-5)
    assert len({*found[1]}) == 5


@pytest.mark.slow
def test_several_methods_and_the_most_likely_classes(here):
    options = ("--methods", "grad_cam, LayerCAM", "--top-k", "3", "--raw", "--csv", "all.csv", "--json")
    result = run("explain", "--no-figure", *options)
    assert result.exit_code == 0, result.stderr
    entries = records(result)
    assert [(entry["method"], entry["rank"]) for entry in entries] == [
        (method, rank) for method in ("grad_cam", "layer_cam") for rank in (1, 2, 3)
    ]
    assert [entry["label"] for entry in entries[:3]] == ["tiger cat", "Egyptian cat", "tabby, tabby cat"]
    probabilities = [entry["probability"] for entry in entries[:3]]
    assert probabilities == sorted(probabilities, reverse=True)
    read = Explanation.load(entries[0]["raw"])
    assert read.index.tolist() == [[entry["index"] for entry in entries[:3]]]
    assert read.files == (str(samples.path("chelsea.png")),)
    assert [read.name(0, rank) for rank in range(3)] == [entry["label"] for entry in entries[:3]]
    photo = Image.open(samples.path("chelsea.png"))
    for rank, entry in enumerate(entries[:3]):
        (drawn,) = read.overlay(photo, target=rank)
        assert np.array_equal(Image.open(entry["overlay"]), drawn)
    with open("all.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["rank"], row["label"]) for row in rows] == [
        (entry["method"], str(entry["rank"]), entry["label"]) for entry in entries
    ]
    assert [float(row["score"]) for row in rows] == [entry["score"] for entry in entries]


def test_csv_grows_and_nothing_else_is_overwritten(here):
    Path("net.py").write_text(NET)
    options = ("--model", "net.py:build", "--layer", "1", "--no-figure", "--no-overlay")
    assert run("explain", *options, "--csv", "new/all.csv").exit_code == 0
    assert run("explain", "missing.png", *options, "--csv", "new/all.csv").exit_code == 1
    with open("new/all.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [str(samples.path("chelsea.png")), "missing.png"]
    assert rows[1]["error"] == "missing.png: there is no such file."
    assert not list(here.rglob("*.png"))
    Path("other.csv").write_text("name,age\n")
    result = run("explain", *options, "--csv", "other.csv")
    assert result.exit_code == 2
    assert "--csv other.csv: holds something else" in result.stderr
    assert Path("other.csv").read_text() == "name,age\n"


def test_skip_existing_does_what_is_left(here):
    """What was written by another command, or in part, is no reason to skip."""
    Path("net.py").write_text(NET)
    Path("in").mkdir()
    for number in range(3):
        shutil.copy(samples.path("coffee.png"), f"in/{number}.png")
    common = ("--model", "net.py:build", "--layer", "1", "--no-figure", "--json")
    run("explain", "in/0.png", "in/2.png", *common)
    result = run("explain", "in", *common, "--skip-existing")
    assert [entry["image"] for entry in records(result)] == ["in/1.png"]
    assert "2 of 3 photographs were explained before and are skipped" in result.stderr
    assert records(run("explain", "in", *common, "--skip-existing")) == []
    assert len(records(run("explain", "in", *common, "--skip-existing", "--raw"))) == 3
    assert len(records(run("explain", "in", *common, "--skip-existing", "--target", "yes"))) == 3


def test_labels_size_mean_and_std_are_the_callers(here):
    """By hand: a photograph of one grey, 0.4, seen as (0.4 - 0.2) / 0.5 through a convolution that is the identity."""
    Path("net.py").write_text(PLAIN)
    Image.new("RGB", (50, 40), (102, 102, 102)).save("grey.png")
    Path("names.txt").write_text("dark\nlight\n\n", encoding="utf-8")
    Path("names.json").write_text('{"1": "hell", "0": "dunkel"}')
    common = ("grey.png", "--model", "net.py:build", "--layer", "conv", "--no-figure", "--json")
    (entry,) = records(run("explain", *common, "--labels", "names.txt", "--mean", "0.2", "--std", "0.5,0.5,0.5"))
    assert (entry["label"], entry["score"]) == ("light", pytest.approx(0.4, abs=1e-6))
    (entry,) = records(run("explain", *common, "--labels", "names.json", "--mean", "0.6", "--std", "1"))
    assert (entry["label"], entry["score"]) == ("dunkel", pytest.approx(0.2, abs=1e-6))
    result = run("explain", *common, "--size", "16x24", "--raw")
    assert np.load(records(result)[0]["raw"])["heatmap"].shape == (1, 16, 24)
    for name, text in (("a.json", '["a", 1]'), ("b.json", "{"), ("c.json", '{"0": "a", "2": "b"}')):
        Path(name).write_text(text)
        assert f"--labels {name}: " in run("explain", *common, "--labels", name).stderr


def test_a_model_of_one_channel(here):
    """By hand: grey 0.4, mean 0.2 and deviation 0.5, one channel."""
    Path("net.py").write_text(PLAIN.replace("CHANNELS = 3", "CHANNELS = 1"))
    Image.new("RGB", (50, 40), (102, 102, 102)).save("grey.png")
    common = ("grey.png", "--model", "net.py:build", "--layer", "conv", "--no-figure", "--json", "--gray")
    (entry,) = records(run("explain", *common, "--mean", "0.2", "--std", "0.5"))
    assert entry["score"] == pytest.approx(0.4, abs=1e-6)
    assert Image.open(entry["overlay"]).size == (50, 40)


def test_one_photograph_without_a_gradient_does_not_end_the_run(here):
    """The net is dead for photographs that are dark."""
    Path("net.py").write_text(FRAGILE)
    for name, level in (("a", 200), ("b", 0), ("c", 200), ("d", 0)):
        Image.new("RGB", (40, 40), (level,) * 3).save(f"{name}.png")
    result = run("explain", "a.png", "b.png", "c.png", "d.png", "--model", "net.py:build", "--no-figure", "--json")
    assert result.exit_code == 1
    entries = records(result)
    assert [entry["image"] for entry in entries] == ["a.png", "b.png", "c.png", "d.png"]
    assert ["error" in entry for entry in entries] == [False, True, False, True]
    assert entries[1]["error"].startswith("b.png: the model saw too little")
    assert "error: d.png: the model saw too little" in result.stderr


def test_json_has_no_nan(here):
    Path("net.py").write_text(PLAIN + "\n        self.conv.weight.data.fill_(float('nan'))\n")
    result = run("explain", "--model", "net.py:build", "--layer", "conv", "--no-figure", "--json")
    assert result.exit_code == 0, result.stderr

    def refuse(constant):
        raise AssertionError(constant)

    (entry,) = (json.loads(line, parse_constant=refuse) for line in result.stdout.splitlines())
    assert entry["score"] is None
    assert entry["probability"] is None
    assert "is not finite" in entry["warnings"][0]


def test_escape_sequences_do_not_reach_the_terminal(here):
    bell, colour = "a\x07b", "\x1b[31mred\x9b\u202e"
    assert cleaned(f"{bell} {colour}\n猫 é") == "a\\x07b \\x1b[31mred\\x9b\\u202e\n猫 é"
    Path("net.py").write_text(NET.replace('"yes"', repr(colour)))
    shutil.copy(samples.path("coffee.png"), "evil\x1b[2Jname.png")
    for options in ((), ("--json",)):
        command = ("evil\x1b[2Jname.png", "gone\x1b.png", "--model", "net.py:build", "--layer", "1", *options)
        result = run("explain", *command, "--target", "1")
        assert result.exit_code == 1
        assert "\x1b" not in result.output + result.stderr
        assert "\x9b" not in result.output + result.stderr


@pytest.mark.slow
def test_names_that_the_console_cannot_show(here):
    shutil.copy(samples.path("coffee.png"), "猫.png")
    shutil.copy(samples.path("coffee.png"), os.fsdecode(b"\xff.png"))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for options in ((), ("--json",)):
        command = ("explain", "猫.png", os.fsdecode(b"\xff.png"), "missing猫.png", "--no-figure", *options)
        out, err = process(*command, env=environment).communicate()
        assert b"Traceback" not in err
        assert b"missing\\u732b.png: there is no such file" in err
        assert (b"\\u732b" in out) or options
    assert Path("seewhy-out/猫-default.png").is_file()


def test_errors_and_warnings_of_a_file_name_it(here):
    """Floats and 16 bits with a sign have no known range; of several pages the first is taken."""
    pages = [Image.new("RGB", (20, 20), (level, 0, 0)) for level in (10, 200, 250)]
    pages[0].save("pages.tif", save_all=True, append_images=pages[1:])
    Image.fromarray(np.full((20, 20), 700.0, np.float32)).save("float.tif")
    Path("net.py").write_text(NET)
    common = ("--model", "net.py:build", "--layer", "1", "--no-figure", "--json")
    result = run("explain", "pages.tif", "float.tif", *common)
    assert result.exit_code == 1
    assert "pages.tif: holds 3 pictures, and the first one is taken" in result.stderr
    (problem,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert "float.tif" in problem


def test_a_postscript_file_is_no_picture(here, monkeypatch):
    """Pillow would start Ghostscript for it."""

    def start(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "check_call", start)
    Path("evil.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    result = run("explain", "evil.png")
    assert result.exit_code == 1
    assert "evil.png: is not a picture" in result.stderr


def test_methods_are_listed():
    from seewhy.methods import available

    result = run("methods")
    assert result.exit_code == 0
    for name, method in available().items():
        (line,) = [line for line in result.stdout.splitlines() if line.split()[:1] == [name]]
        assert method.source in line
        assert method.cost in line


def test_methods_and_layers_as_json(here):
    from seewhy.methods import available

    entries = records(run("methods", "--json"))
    assert [entry["name"] for entry in entries] == list(available())
    assert entries[0]["needs"] == list(available()[entries[0]["name"]].needs)
    Path("net.py").write_text(NET)
    rows = records(run("layers", "--model", "net.py:build", "--json"))
    assert [row["label"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [row["chosen"] for row in rows] == [False, True, False, False, False]
    assert rows[0]["shape"] == [1, 4, 30, 30]
    assert rows[0]["parameters"] == 3 * 4 * 9 + 4
    assert rows[4]["grid"] is None


@pytest.mark.slow
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


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_leaves_whole_files_and_records(here):
    """Every record that is printed is whole, and its files are there."""
    Path("in").mkdir()
    for number in range(60):
        shutil.copy(samples.path("chelsea.png"), f"in/{number}.png")
    running = process("explain", "in", "--out", "out", "--no-figure", "--json", "--csv", "all.csv")
    first = running.stdout.readline()
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert err.decode().splitlines()[-1] == "stopped"
    assert b"Traceback" not in err
    entries = [json.loads(line) for line in (first + out).splitlines()]
    assert 0 < len(entries) < 60
    assert all(Path(entry["overlay"]).is_file() for entry in entries)
    with open("all.csv", newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [entry["image"] for entry in entries]
    written = list(Path("out").iterdir())
    assert len(written) < 60
    for file in written:
        assert not file.name.startswith(".")
        Image.open(file).load()


def test_ctrl_c_that_python_drops_is_not_forgotten(capsys):
    """In a weak reference's callback an exception is only printed; the next check raises it again."""

    class Kept:
        pass

    def press(_):
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with CtrlC() as stop:
            kept = Kept()
            reference = weakref.ref(kept, press)
            del kept
            assert reference() is None
            with pytest.raises(KeyboardInterrupt):
                stop.check()
        assert capsys.readouterr().err == ""
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with CtrlC() as stop:
            with stop.held():
                signal.raise_signal(signal.SIGINT)  # waits
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)  # pressed twice it does not
            with pytest.raises(KeyboardInterrupt):
                stop.check()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("option", "said"), [("--help", "explain"), ("--version", f"seewhy {seewhy.__version__}\n")])
def test_help_and_version_start_without_what_takes_long_to_import(option, said):
    code = (
        f"import atexit, sys; sys.argv = ['seewhy', {option!r}]\n"
        "slow = {'torch', 'numpy', 'matplotlib', 'timm'}\n"
        "atexit.register(lambda: print(sorted(slow & {*sys.modules}), file=sys.stderr))\n" + MAIN
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said in finished.stdout
    assert finished.stderr == "[]\n"
