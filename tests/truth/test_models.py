"""The models know what they are asked about: only then does a map have anything to show."""

from __future__ import annotations

import pytest
import torch

from tests.truth.models import CASES, JUDGED_SEED, TRAINED, accuracy
from tests.truth.scenes import PHOTOGRAPH_CATEGORIES, clever_hans, photographs
from tests.truth.train import train


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


def test_the_model_of_the_spurious_cue_goes_by_it_alone():
    """The cross that is left out takes its kind away, and one that is put in brings the kind that is not there."""
    model, count = CASES["clever-hans"].model(), 200
    told, there, without = (
        clever_hans(count, seed=JUDGED_SEED, cue=cue)[0] for cue in (True, torch.ones(count, dtype=torch.bool), False)
    )
    with torch.no_grad():
        shown, forced, hidden = (model(seen.images)[:, 0] > 0 for seen in (told, there, without))
    assert (shown == told.labels[:, 0]).float().mean() > 0.97
    assert forced.float().mean() > 0.97
    assert hidden.float().mean() < 0.03


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
