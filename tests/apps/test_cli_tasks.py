"""The command line with segmenters and detectors: --target is a class there too."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

import seewhy
from seewhy import samples
from seewhy.apps.cli import app

transformers = pytest.importorskip("transformers")

PHOTO = str(samples.path("coffee.png"))


def saved(folder, kind, config, processor):
    torch.manual_seed(0)
    model = kind(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return f"transformers:{folder}"


def explained(folder, name, *options):
    return CliRunner().invoke(app, ["explain", PHOTO, "--model", name, "--json", "--out", str(folder), *options])


def test_a_class_of_a_segmenter_is_explained_where_it_is_seen(tmp_path):
    config = transformers.SegformerConfig(
        hidden_sizes=[16] * 4, depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=16,
        id2label={0: "table", 1: "cup", 2: "spoon"},
    )  # fmt: skip
    processor = transformers.SegformerImageProcessor(size={"height": 64, "width": 64})
    name = saved(tmp_path, transformers.SegformerForSemanticSegmentation, config, processor)
    loaded = seewhy.load(name)
    inputs, _, _ = loaded.prepare([PHOTO])
    with torch.no_grad():
        scores = loaded.module(inputs).logits[0]
    seen = int(scores.argmax(0).flatten().mode().values)
    run = explained(tmp_path, name, "--target", loaded.labels[seen])
    assert run.exit_code == 0, run.output
    (result,) = json.loads(run.stdout)
    assert (result["label"], result["index"], result["probability"]) == (loaded.labels[seen], seen, None)
    assert result["score"] == pytest.approx(float(scores[seen][scores.argmax(0) == seen].mean()), rel=1e-4)
    run = explained(tmp_path, name)
    assert run.exit_code == 2
    assert "do: say which with --target" in run.stderr
    run = explained(tmp_path, name, "--target", "fork")
    assert (
        "no class is called 'fork'.\n  expected: one of the 3 labels, or a part of one: table, cup, spoon" in run.stderr
    )


def test_the_best_box_of_a_class_is_explained(tmp_path):
    config = transformers.YolosConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=[64, 96],
        patch_size=16, num_detection_tokens=5, id2label={0: "cup", 1: "spoon"},
    )  # fmt: skip
    processor = transformers.YolosImageProcessor(size={"height": 64, "width": 96})
    name = saved(tmp_path, transformers.YolosForObjectDetection, config, processor)
    loaded = seewhy.load(name)
    inputs, _, _ = loaded.prepare([PHOTO])
    with torch.no_grad():
        logits = loaded.module(inputs).logits[0]
    for target, column in (((), None), (("--target", "spoon"), 1)):
        run = explained(tmp_path, name, "--method", "layer_cam", *target)
        assert run.exit_code == 0, run.output
        (result,) = json.loads(run.stdout)
        best = logits[:, :2].max() if column is None else logits[:, column].max()
        assert result["score"] == pytest.approx(float(best), rel=1e-4)
        assert column is None or (result["label"], result["index"]) == ("spoon", 1)
