"""The command line with a text-image model: --target is a prompt."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

import seewhy
from seewhy import samples
from seewhy.apps.cli.commands import app

open_clip = pytest.importorskip("open_clip")


@pytest.fixture
def model(tmp_path):
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (tmp_path / "cli-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    torch.manual_seed(0)
    torch.save(open_clip.create_model("cli-clip").state_dict(), tmp_path / "weights.pt")
    return ["--model", "open_clip:cli-clip", "--weights", str(tmp_path / "weights.pt")]


def test_a_prompt_is_explained(model, tmp_path):
    photo = str(samples.path("coffee.png"))
    options = ["--target", "a cup", "--layer", "visual.layer3", "--json", "--out", str(tmp_path / "out")]
    run = CliRunner().invoke(app, ["explain", photo, *model, *options])
    assert run.exit_code == 0, run.output
    (result,) = map(json.loads, run.stdout.splitlines())
    assert (result["label"], result["index"], result["probability"]) == ("a cup", None, None)
    loaded = seewhy.load(model[1], weights=model[3])
    inputs, _, _ = loaded.prepare([photo])
    with torch.no_grad():
        image, text, _ = loaded.module(inputs, open_clip.get_tokenizer("cli-clip")(["a cup"]))
    assert result["score"] == pytest.approx(float(image[0] @ text[0]), abs=1e-5)


def test_without_a_prompt_it_says_what_to_pass(model, tmp_path):
    run = CliRunner().invoke(app, ["explain", *model, "--out", str(tmp_path / "out")])
    assert run.exit_code == 2
    assert 'do: say which, as in --target "a cat"' in run.stderr


def test_a_place_in_the_picture_is_refused(model, tmp_path):
    options = ["--target", "a cup", "--pixel", "3,4", "--out", str(tmp_path / "out")]
    run = CliRunner().invoke(app, ["explain", *model, *options])
    assert run.exit_code == 2
    assert "with words.\n  got: --pixel\n  do: leave --pixel out" in run.stderr
