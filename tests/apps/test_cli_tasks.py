"""The command line with segmenters and detectors: --target is a class there too."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import seewhy
from seewhy import samples
from seewhy.apps.cli.commands import app

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


@pytest.mark.slow
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
    (result,) = map(json.loads, run.stdout.splitlines())
    assert (result["label"], result["index"], result["probability"]) == (loaded.labels[seen], seen, None)
    assert result["score"] == pytest.approx(float(scores[seen][scores.argmax(0) == seen].mean()), rel=1e-4)
    run = explained(tmp_path, name)
    assert run.exit_code == 2
    assert "do: say which with --target" in run.stderr
    run = explained(tmp_path, name, "--target", "fork")
    assert (
        "no class is called 'fork'.\n  expected: one of the 3 labels, or a part of one: table, cup, spoon" in run.stderr
    )


def test_a_segmenter_is_asked_at_a_pixel_or_inside_a_mask_of_the_photograph(tmp_path):
    """The photograph is 600 x 400, the input 64 x 64, the output 16 x 16: pixel (400, 130) is place (5, 10) of it."""
    config = transformers.SegformerConfig(
        hidden_sizes=[16] * 4, depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=16,
        id2label={0: "table", 1: "cup", 2: "spoon"},
    )  # fmt: skip
    processor = transformers.SegformerImageProcessor(size={"height": 64, "width": 64})
    name = saved(tmp_path, transformers.SegformerForSemanticSegmentation, config, processor)
    loaded = seewhy.load(name)
    inputs, (photo,), _ = loaded.prepare([PHOTO])
    with torch.no_grad():
        cup = loaded.module(inputs).logits[0, 1]
    assert (photo.size, cup.shape) == ((600, 400), (16, 16))
    mask = Image.new("L", photo.size)
    mask.paste(255, (300, 0, 600, 100))  # columns 8 to 15, rows 0 to 3
    mask.save(tmp_path / "mask.png")
    for options, score in (
        (("--pixel", "400,130"), cup[5, 10]),
        (("--mask", str(tmp_path / "mask.png")), cup[:4, 8:].mean()),
    ):
        run = explained(tmp_path, name, "--target", "cup", *options)
        assert run.exit_code == 0, run.output
        (result,) = map(json.loads, run.stdout.splitlines())
        assert result["score"] == pytest.approx(float(score), rel=1e-4)
    for options, code, words in (
        (("--pixel", "600,10"), 1, "the model does not see this pixel.\n  got: 600,10\n  expected: 0,0 to 599,399"),
        (("--pixel", "10"), 2, "--pixel is no place.\n  got: 10\n  expected: X,Y"),
        (("--mask", str(samples.path("chelsea.png"))), 1, "got: 451 x 300\n  expected: 600 x 400"),
        (("--box", "1"), 2, "no boxes were found"),
    ):
        run = explained(tmp_path, name, "--target", "cup", *options)
        assert run.exit_code == code
        assert words in run.stderr


@pytest.mark.slow
def test_the_best_box_of_a_class_is_explained_or_the_one_of_a_number(tmp_path):
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
    run = explained(tmp_path, name, "--method", "layer_cam", "--target", "spoon", "--box", "3")
    assert json.loads(run.stdout)["score"] == pytest.approx(float(logits[3, 1]), rel=1e-4)
    run = explained(tmp_path, name, "--target", "spoon", "--box", "5")
    assert run.exit_code == 1  # another photograph may have it
    assert "there is no such box in image 0.\n  got: label 1, index 5" in run.stderr
    for target, column in (((), None), (("--target", "spoon"), 1)):
        run = explained(tmp_path, name, "--method", "layer_cam", *target)
        assert run.exit_code == 0, run.output
        (result,) = map(json.loads, run.stdout.splitlines())
        best = logits[:, :2].max() if column is None else logits[:, column].max()
        assert result["score"] == pytest.approx(float(best), rel=1e-4)
        assert column is None or (result["label"], result["index"]) == ("spoon", 1)


def test_of_several_places_none_is_dropped_in_silence(tmp_path):
    run = explained(tmp_path, "default", "--pixel", "3,4", "--box", "0")
    assert run.exit_code == 2
    assert "only one of these says where.\n  got: --box, --pixel\n  do: leave the others out" in run.stderr
