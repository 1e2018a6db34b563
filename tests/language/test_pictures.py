"""Words with their maps as a strip and as a page, and the command line that asks a model from a folder."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
import torch
from typer.testing import CliRunner

import seewhy
from seewhy import samples
from seewhy.errors import InputError, ModelError
from seewhy.render import strip, words

transformers = pytest.importorskip("transformers")

from tests.language.families import IMAGE, TEXT, TOWER, made, photo  # noqa: E402

SPOKEN = ["<unk>", "<s>", "</s>", "a", "small", "cat", "lies", "here", "&", "What", "is", "this", "?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A LLaVA of random weights with a processor, whose tokenizer is made on the spot."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: number for number, word in enumerate(SPOKEN)} | {f"w{n}": n for n in range(len(SPOKEN), IMAGE)}
    tokens = Tokenizer(models.WordLevel({**vocabulary, "<image>": IMAGE}, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokens, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    images = transformers.CLIPImageProcessor(
        size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32}, do_center_crop=False
    )
    processor = transformers.LlavaProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        image_token="<image>",
    )  # fmt: skip
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**TOWER, image_size=32, patch_size=8),
        text_config=transformers.LlamaConfig(**TEXT),
        image_token_index=IMAGE,
        vision_feature_layer=-1,
    )
    place = tmp_path_factory.mktemp("llava")
    made(transformers.LlavaForConditionalGeneration, config).save_pretrained(place)
    processor.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def explanation(folder):
    loaded = seewhy.load(f"transformers:{folder}")
    inputs = loaded.ask(samples.path("chelsea.png"), "What is this ?")
    assert inputs["input_ids"].tolist()[0] == [IMAGE] * 16 + [9, 10, 11, 12]
    return seewhy.explain(loaded, inputs, seewhy.Token(of="a small & cat", per="word"), method="hires_cam")


def test_a_loaded_model_answers_and_brings_its_tokenizer(explanation):
    assert [explanation.name(0, n) for n in range(4)] == ["a", "small", "&", "cat"]
    assert explanation.heatmap.shape == (1, 4, 32, 32)
    assert explanation.photos[0].size == (32, 32)


def test_a_classifier_answers_no_prompt():
    with pytest.raises(ModelError, match="does not answer prompts"):
        seewhy.load("torchvision:resnet18", weights=None).ask(samples.path("chelsea.png"), "What is this ?")


def test_the_figure_is_a_strip_of_words(explanation):
    figure = explanation.figure()
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    chances = explanation.probabilities[0].tolist()
    names = ["a", "small", "&", "cat"]
    assert titles == [f"{name} ({chance:.2f})" for name, chance in zip(names, chances, strict=True)]
    assert len(strip(explanation, max_words=2).axes) == 2
    with pytest.raises(InputError, match="no words"):
        strip(dataclasses.replace(explanation, scores=explanation.scores[:, 0]))


def test_the_page_holds_all_that_it_shows(explanation):
    page = words(explanation)
    assert "http" not in page
    assert page.count('src="data:image/png;base64,') == 5  # the picture, and a map for each of four words
    assert re.findall(r'<button class="word" title="([^"]*) \(', page) == ["a", "small", "&amp;", "cat"]
    assert len({*re.findall(r"base64,([^\"]*)", page)}) > 2  # the maps differ


def test_the_command_line_asks_and_explains_every_word(folder, tmp_path):
    from seewhy.apps.cli.commands import app

    asked = [
        "explain",
        str(samples.path("chelsea.png")),
        "--model",
        f"transformers:{folder}",
        "--prompt",
        "What is this ?",
    ]
    result = CliRunner().invoke(app, [*asked, "--methods", "tam,grad_cam", "--out", str(tmp_path), "--json", "--raw"])
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert [record["method"] for record in records] == ["tam", "grad_cam"]
    loaded = seewhy.load(f"transformers:{folder}")
    inputs = loaded.ask(samples.path("chelsea.png"), "What is this ?")
    answer = loaded.module.generate(**inputs, max_new_tokens=32, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert records[0]["words"] == loaded.processor.tokenizer.decode(answer, skip_special_tokens=True).split()
    assert {path.suffix for path in tmp_path.iterdir()} == {".html", ".png", ".npz"}
    assert seewhy.Explanation.load(tmp_path / "chelsea-tam-words.npz").scores.shape[1] == len(records[0]["words"])
    wrong = CliRunner().invoke(app, [*asked, "--target", "cat", "--out", str(tmp_path)])
    assert wrong.exit_code == 2
    assert "leave --target out" in wrong.output


def test_several_rows_of_photos_have_their_own_words(folder):
    loaded = seewhy.load(f"transformers:{folder}")
    pictures = [photo(32, 32, seed).movedim(0, -1).numpy() for seed in (1, 2)]
    both = [loaded.ask(picture, "What is this ?") for picture in pictures]
    inputs = {key: torch.cat([each[key] for each in both]) for key in both[0]}
    found = seewhy.explain(loaded, inputs, seewhy.Token([0, 1], of=torch.tensor([[3, 4], [4, 5]])), method="hires_cam")
    assert [found.name(row, n) for row in range(2) for n in range(2)] == ["a", "small", "small", "cat"]
    assert [found[1].name(0, n) for n in range(2)] == ["small", "cat"]
