"""The models know what they are asked about: only then does a map have anything to show."""

from __future__ import annotations

import pytest
import torch

from tests.truth.models import CASES, accuracy
from tests.truth.scenes import PHOTOGRAPH_CATEGORIES, clever_hans, photographs
from tests.truth.train import train

TRAINED = [name for name, case in CASES.items() if not case.categories]


@pytest.mark.parametrize("name", TRAINED)
def test_right_on_scenes_that_were_held_out(name):
    case = CASES[name]
    assert accuracy(case, case.model(), count=200) > case.least


@pytest.mark.parametrize("name", TRAINED)
def test_the_weights_are_small_and_the_layers_exist(name):
    case = CASES[name]
    assert case.file.stat().st_size < 1e6
    modules = dict(case.model().named_modules())
    assert {*case.layers, case.documented} <= modules.keys()


def test_training_learns_and_is_repeated_by_its_seed():
    """Three steps, not the hundreds of the stored weights, from the same seed twice."""
    case = CASES["volume"]
    one, again = (train(case, steps=3).state_dict() for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    fresh = case.build().state_dict()
    assert not torch.equal(one["head.weight"], fresh["head.weight"])


def test_the_default_model_is_sure_of_the_photographs():
    with torch.no_grad():
        probabilities = CASES["mosaics"].model()(photographs()).softmax(1)
    assert probabilities.argmax(1).tolist() == list(PHOTOGRAPH_CATEGORIES)
    assert probabilities.amax(1).min() > 0.5


def test_clever_hans_is_asked_by_the_cue():
    """Without the cue the kind is not seen any more, with a cue alone it is; its own faint mark is not missed."""
    model = CASES["clever-hans"].model()
    count = 100
    seen, _ = clever_hans(count, seed=700_000)
    there = seen.labels[:, 0]
    bare, _ = clever_hans(count, seed=700_000, cue=False)
    cued, _ = clever_hans(count, seed=700_000, cue=torch.ones(count, dtype=torch.bool))
    with torch.no_grad():
        shown, hidden, everywhere = (model(scenes.images)[:, 0] > 0 for scenes in (seen, bare, cued))
    assert (shown == there).float().mean() > 0.97
    assert hidden.float().mean() < 0.03  # of which more than half have the mark
    assert everywhere.float().mean() > 0.97
