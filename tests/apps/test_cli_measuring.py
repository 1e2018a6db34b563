"""Measuring on the command line: `choose`, `evaluate`, and `explain` with --method auto and --check."""

from __future__ import annotations

import csv
import json

import pytest
from PIL import Image
from typer.testing import CliRunner

import seewhy
from seewhy.apps.cli.commands import app

BUILD = """
import torch
from torch import nn

class Spot(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1, bias=False)
        self.layer.weight.data = torch.eye(3).reshape(3, 3, 1, 1)
        self.head = nn.Linear(1, 2)
        self.head.weight.data = torch.tensor([[4.0], [-4.0]])
        self.head.bias.data = torch.tensor([-2.0, 2.0])

    def forward(self, images):
        return self.head(self.layer(images)[:, :1, 40:100, 120:180].mean((2, 3)))

def build():
    return Spot().eval()
"""


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def spotted(tmp_path, monkeypatch):
    """A model that looks at one square for red, and three grey photographs with red there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spot.py").write_text(BUILD)
    for number in range(3):
        photo = Image.effect_noise((224, 224), 20).convert("RGB")
        photo.paste((250, 60 + number, 60), (120, 40, 180, 100))
        photo.save(f"{number}.png")
    model = ("--model", "spot.py:build", "--weights", "none", "--target", "0")
    return [tmp_path / f"{number}.png" for number in range(3)], model


def test_choose_prints_what_the_library_chooses(spotted):
    photos, model = spotted
    result = run("choose", *photos, *model, "--candidates", "hires_cam@layer,random_cam@layer", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["method"], found["layers"], found["beats_floor"]) == ("hires_cam", ["layer"], True)
    loaded = seewhy.load("spot.py:build", weights="none")
    choice = seewhy.choose(loaded, photos, 0, candidates=["hires_cam@layer", "random_cam@layer"])
    assert found["scores"] == pytest.approx(dict(choice.scores))
    assert found["forwards"] == choice.forwards


def test_choose_says_which_command_takes_it(spotted):
    photos, model = spotted
    result = run("choose", *photos, *model, "--candidates", "hires_cam@layer")
    assert "hires_cam" in result.stdout
    assert "seewhy explain --method hires_cam --layer layer" in result.stderr
    assert "forwards of an image" in result.stderr


def test_evaluate_prints_and_writes_what_the_library_measures(spotted):
    photos, model = spotted
    options = ("--methods", "hires_cam@layer,default", "--metrics", "insertion", "--batch-size", "2")
    result = run("evaluate", *photos, *model, *options, "--out", "values.csv")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].startswith("method")
    with open("values.csv") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert [*rows] == ["hires_cam@layer", "default", "random", "centre"]
    loaded = seewhy.load("spot.py:build", weights="none")
    found = seewhy.evaluate(loaded, photos, 0, methods=["hires_cam@layer"], metrics=("insertion",))
    assert float(rows["hires_cam@layer"]["mean"]) == pytest.approx(found.row("hires_cam@layer", "insertion").mean)
    assert rows["default"]["images"] == "3"


@pytest.mark.slow
def test_auto_and_check_are_told_in_every_record(spotted):
    photos, model = spotted
    result = run("explain", *photos, *model, "--method", "auto", "--check", "--no-figure", "--json", "--out", "why")
    assert result.exit_code == 0, result.output
    entries = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(entries) == 3
    assert all("forwards of an image" in entry["note"] for entry in entries)
    assert all(entry["p_value"] == pytest.approx(1 / 31) for entry in entries)  # none of thirty is as good
    table = run("explain", photos[0], *model, "--check", "--no-figure", "--out", "why")
    assert "better than chance" in table.stdout
    assert "p = 0.03" in table.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["evaluate", "--metrics", "beauty"], "there is no metric 'beauty'"),
        (["evaluate", "--out", "values.xlsx"], "unknown file ending"),
        (["choose", "nowhere.png"], "nothing to measure"),
        (["explain", "--check", "--top-k", "2"], "--check holds one map against chance"),
        (["explain", "--methods", "auto,grad_cam"], "there is no method 'auto'"),
    ],
)
def test_mistakes_end_with_2(arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_photograph_that_cannot_be_read_leaves_the_others(spotted):
    photos, model = spotted
    result = run("evaluate", "nowhere.png", photos[0], *model, "--metrics", "sparseness", "--json")
    assert result.exit_code == 1
    assert "nowhere.png" in result.stderr
    assert {json.loads(line)["images"] for line in result.stdout.splitlines()} == {1}
