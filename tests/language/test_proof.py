"""A small LLaVA that was trained to say what lies where: the heat of a word lies on the thing that it names.

`python -m tests.language.train` made the model. Its answers are its own; only scenes that it describes right count.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch

import seewhy

pytest.importorskip("transformers")

from tests.language.scenes import SIDES, WORDS, batch
from tests.language.train import saved

FIGURES = [2, 7]  # the places of "ring" and the like in the sentence: of the first thing, and of the second
CASES = {  # options, the least mean average precision on the thing named, and how often that on the other thing
    "attention_relevance": ({}, 0.45, 3),
    "hires_cam": ({"layers": "model.language_model.layers.0"}, 0.28, 1.5),
    "occlusion": ({"window": 12, "stride": 6}, 0.35, 3),
}


@cache
def scenes(count: int = 24):
    """A model, and the prompts, answers and masks of scenes that it describes right."""
    model = saved()
    inputs, _, made = batch(3 * count, 5)
    with torch.no_grad():
        spoken = model.generate(**inputs, max_new_tokens=9, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    told = []
    for one, words in zip(made, spoken.tolist(), strict=True):
        parts = [tuple(WORDS[token] for token in half) for half in (words[:4], words[5:9])]
        own = {one.words[:4]: one.masks[0], one.words[5:]: one.masks[1]}
        told.append([own.get(part) for part in parts])
    right = [row for row, masks in enumerate(told) if all(mask is not None for mask in masks)]
    right = [row for row in right if told[row][0] is not told[row][1]][:count]
    masks = torch.stack([torch.stack(told[row]) for row in right])
    return model, {key: value[right] for key, value in inputs.items()}, spoken[right], masks, len(right) / count


def precision(heat, mask):
    """The average precision of the pixels' heat against a mask, at the grid that the tokens have."""
    order = heat.flatten().argsort(descending=True, stable=True)
    hit = mask.flatten()[order].double()
    return float((hit.cumsum(0) / torch.arange(1, len(hit) + 1) * hit).sum() / hit.sum())


def test_the_model_describes_most_scenes_right():
    _, _, answers, _, share = scenes()
    assert share == 1.0
    assert {WORDS[token] for token in answers[:, 3].tolist()} == set(SIDES)


@pytest.mark.parametrize(
    "method", ["attention_relevance", "hires_cam", pytest.param("occlusion", marks=pytest.mark.slow)]
)
def test_the_heat_of_a_figures_name_lies_on_it_and_moves_with_the_word(method):
    model, inputs, answers, masks, _ = scenes()
    options, least, times = CASES[method]
    heat = seewhy.explain(model, inputs, seewhy.Token(FIGURES, of=answers), method=method, **options).heatmap
    pairs = [(row, word) for row in range(len(heat)) for word in (0, 1)]
    named = sum(precision(heat[row, word], masks[row, word]) for row, word in pairs) / len(pairs)
    other = sum(precision(heat[row, word], masks[row, 1 - word]) for row, word in pairs) / len(pairs)
    assert named > least > 5 * float(masks.float().mean())  # what chance would give
    assert named > times * other
    chance = masks.float().mean((2, 3))
    mass = (heat * masks).sum((2, 3)) / heat.sum((2, 3)).clamp(min=1e-6)
    assert float(mass.mean()) > 3 * float(chance.mean())
