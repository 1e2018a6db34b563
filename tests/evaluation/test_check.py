"""Whether one map can be told from chance."""

from __future__ import annotations

import copy
import gc
import pickle
from dataclasses import replace

import pytest
import torch

import seewhy
from seewhy.errors import InputError, MapWarning, TargetError
from seewhy.images import arrays
from tests.evaluation.planted import Spot, right, shifted, spotted


def made(maps, images, model):
    """An explanation with these maps."""
    explanation = seewhy.explain(model, images, 0, method="hires_cam", layers="layer")
    return replace(explanation, maps={"layer": maps})


def test_a_right_map_is_told_from_chance():
    """Removing the spot takes the red from about 1 to less than a half: of a logit of 2 more than 2 are lost."""
    model, images = Spot().eval(), spotted(3)
    found = seewhy.check(made(right(3), images, model), model, images)
    assert found.p_value.tolist() == pytest.approx([1 / 31] * 3)
    assert float(found.lost.min()) > 1
    assert float(found.by_chance.max()) < 0.5


def test_a_shifted_map_is_not_and_says_so():
    model, images = Spot().eval(), spotted(3)
    explanation = made(shifted(3), images, model)
    with pytest.warns(MapWarning, match="cannot be told from chance"):
        found = seewhy.check(explanation, model, images)
    assert float(found.p_value.min()) > 0.2
    assert float(found.lost.abs().max()) < 0.1


def test_what_is_lost_is_the_score_of_the_image_less_that_without_its_hottest_tenth():
    model, images = Spot().eval(), spotted(1)
    maps = right(1)
    found = seewhy.check(made(maps, images, model), model, images, redraw=False)
    order = maps.flatten().argsort(descending=True, stable=True)
    assert round(0.1 * 32 * 32) == 102
    absent = torch.zeros(32 * 32, dtype=torch.bool)
    absent[order[:102]] = True
    blurred = images
    for dim in (2, 3):
        blurred = arrays.blur(blurred, 4.0, (dim,))
    changed = torch.where(absent.reshape(32, 32), blurred, images)
    with torch.no_grad():
        expected = model(images)[:, 0] - model(changed)[:, 0]
    torch.testing.assert_close(found.lost, expected, atol=1e-5, rtol=1e-5)  # the spot alone counts


def test_the_cost_is_told():
    """Each image itself, its blurred version, its map and 30 others."""
    model, images = Spot().eval(), spotted(3)
    found = seewhy.check(made(right(3), images, model), model, images, redraw=False)
    assert found.forwards == 3 * (2 + 1 + 30)
    assert "99 forwards of an image" in str(found)
    assert found.redrawn is None


def test_the_map_of_a_redrawn_head_is_compared_and_the_model_is_left_alone():
    """The map is the gradient times the colours: another weight of the head only scales it, or turns its sign."""
    model, images = Spot().eval(), spotted(2)
    before = copy.deepcopy(model.state_dict())
    explanation = seewhy.explain(model, images, 0, method="hires_cam", layers="layer")
    found = seewhy.check(explanation, model, images)
    assert [abs(value) for value in found.redrawn.tolist()] == pytest.approx([1.0, 1.0], abs=1e-3)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_other_inputs_and_no_others_are_refused():
    model, images = Spot().eval(), spotted(3)
    explanation = made(right(3), images, model)
    with pytest.raises(TargetError, match="does not match the batch"):
        seewhy.check(explanation, model, images[:2])
    with pytest.raises(InputError, match="other inputs"):
        seewhy.check(replace(explanation, targets=seewhy.targets.Category(0)), model, images[:2])
    with pytest.raises(InputError, match="compared with others"):
        seewhy.check(explanation, model, images, others=0)


def test_an_explanation_checks_itself_and_its_parts():
    model, images = Spot().eval(), spotted(4)
    explanation = made(right(4), images, model)
    whole = explanation.check(redraw=False)
    assert whole.p_value.equal(seewhy.check(explanation, model, images, redraw=False).p_value)
    part = explanation[1:3].check(redraw=False)
    torch.testing.assert_close(part.lost, whole.lost[1:3])
    torch.testing.assert_close(explanation[1:][1].check(redraw=False).lost, whole.lost[2:3])


def test_an_explanation_does_not_keep_its_inputs_or_model():
    model, images = Spot().eval(), spotted(2)
    explanation = made(right(2), images, model)
    with pytest.raises(InputError, match=r"explanation.check\(model, inputs\)"):
        pickle.loads(pickle.dumps(explanation)).check()
    kept = images.clone()
    del images
    gc.collect()
    with pytest.raises(InputError, match=r"explanation.check\(inputs=inputs\)"):
        explanation.check()
    assert explanation.check(inputs=kept, redraw=False).p_value.shape == (2,)
    del model
    gc.collect()
    with pytest.raises(InputError, match=r"explanation.check\(model=model\)"):
        explanation.check(inputs=kept)
    assert explanation.check(Spot().eval(), kept, redraw=False).p_value.shape == (2,)
