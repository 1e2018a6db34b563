"""What the maps are worth where the evidence is known: the numbers that methods and layers are chosen by.

Average precision against the marks that were asked for. A map that knows nothing has the marks' share of the image.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch

import seewhy
from seewhy.metrics import average_precision, pointing_game, relevance_mass
from tests.truth.models import CASES

CHEAP = {
    "rise": {"masks": 60, "cells": 8},
    "occlusion": {"window": 8, "stride": 4},
    "poly_cam": {"variant": "+"},
    "ss_cam": {"samples": 2},
    "is_cam": {"steps": 2},
    "opti_cam": {"steps": 10},
    "group_cam": {"groups": 8},
    "integrated_gradients": {"steps": 8},
    "guided_integrated_gradients": {"steps": 8},
    **{name: {"samples": 8} for name in ("expected_gradients", "smooth_grad", "smooth_grad_squared", "var_grad")},
    **{name: {"samples": 80, "regions": 36} for name in ("lime", "kernel_shap")},
    "sobol": {"designs": 4, "cells": 4},
    "hsic": {"samples": 80, "cells": 4},
}
LAST_BLOCK = "encoder.layers.encoder_layer_3.ln_1"
# What is largest in the last block is the same in every image and for every class: tokens of plain background.
BELOW_CHANCE_IN_A_VIT = {"eigen_cam"}
# In the last block one patch hardly moves a neutral picture's class token, nor does a blurred picture differ by place.
NEAR_CHANCE_IN_A_VIT = {"caap", "diff_cam"}
FLOOR = {"random_cam"}
ELSEWHERE = {"d_rise", "tam"}  # of detections alone, and of words
SLOW = {
    "score_cam",
    "ss_cam",
    "is_cam",
    "poly_cam",
    "gscore_cam",
    "group_cam",
    "opti_cam",
    "vit_cx",
    "rise",
    "occlusion",
    "eagle",
    "lime",
    "kernel_shap",
    "sobol",
    "hsic",
    "guided_integrated_gradients",
}
ATTENTION = {name for name, found in seewhy.methods.available().items() if found.attends}
POOLED = {"cam"}  # asks for a linear head behind the mean of the layer


@cache
def setting(name, count=8):
    case = CASES[name]
    return case, case.model(), case.scenes(count)


def heat(name, method, layers=None, count=8):
    case, model, seen = setting(name, count)
    where = {} if layers is None or not seewhy.methods.get(method).layered else {"layers": layers}
    options = CHEAP.get(method, {})
    return seewhy.explain(model, case.inputs(seen), case.target(seen), method=method, **where, **options).heatmap


def worth(name, method, layers=None, count=8):
    return float(average_precision(heat(name, method, layers, count), setting(name, count)[2].truth).mean())


def chance(name, count=8):
    return float(setting(name, count)[2].truth.float().mean())


@pytest.mark.few(17)
@pytest.mark.parametrize("method", sorted(seewhy.methods.available().keys() - FLOOR - ELSEWHERE - ATTENTION))
@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_every_method_is_better_than_chance_on_a_resnet(method):
    layers = ["layer1", "layer2", "layer3", "layer4"] if method in ("refine_cam", "poly_cam") else "layer4"
    assert worth("resnet", method, layers) > 1.5 * chance("resnet")


@pytest.mark.few(4)
@pytest.mark.parametrize("method", sorted(seewhy.methods.available().keys() - FLOOR - ELSEWHERE - POOLED))
@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_every_method_on_a_transformer(method):
    """Twice chance at least in the last block, or listed above with the reason and below chance."""
    count = 8 if method in SLOW else 24
    found = worth("vit", method, LAST_BLOCK, count)
    if method in BELOW_CHANCE_IN_A_VIT:
        assert found < chance("vit", count)
    elif method in NEAR_CHANCE_IN_A_VIT:
        assert found < 2 * chance("vit", count)
    else:
        assert found > 2 * chance("vit", count)


def test_the_layer_counts_for_more_than_the_method():
    """resnet: everyone's default, the same method two resolutions further up, and four resolutions together."""
    last, finer = worth("resnet", "x_grad_cam", "layer4", 24), worth("resnet", "x_grad_cam", "layer2", 24)
    together = worth("resnet", "refine_cam", ["layer1", "layer2", "layer3", "layer4"], 24)
    assert worth("resnet", "grad_cam", "layer4", 24) == pytest.approx(last, abs=0.02)
    assert finer > last + 0.15
    assert together > 0.9


def test_all_resolutions_of_a_resnet_lie_as_they_are():
    case, model, seen = setting("resnet", 24)
    found = seewhy.explain(model, case.inputs(seen), case.target(seen), method="refine_cam")
    assert found.layers == case.layers
    assert found.placements == {}
    assert average_precision(found.heatmap, seen.truth).mean() > 0.9


@pytest.mark.parametrize(("name", "least"), [("vit", 0.9), ("convnext", 0.88)])
def test_the_default_is_of_the_neighbourhood_behind_layer_norms(name, least):
    """0.95 and 0.91, against 0.24 and 0.40 for grad_cam where seewhy looks, and 0.62 for attention on the former."""
    case, model, seen = setting(name, 24)
    found = seewhy.explain(model, case.inputs(seen), case.target(seen))
    assert found.method == "local_libra_grad"
    assert "layer norms" in found.note
    better = average_precision(found.heatmap, seen.truth).mean()
    assert better > least
    assert better > 2 * worth(name, "grad_cam", count=24)


@pytest.mark.few(2)
@pytest.mark.parametrize("name", ["resnet", "mosaics", "volume", "segmenter", "detector"])
def test_the_default_is_grad_cam_elsewhere(name):
    case, model, seen = setting(name, 2)
    found = seewhy.explain(model, case.inputs(seen), case.target(seen))
    named = seewhy.explain(model, case.inputs(seen), case.target(seen), method="grad_cam")
    assert found.method == "grad_cam"
    assert found.note.startswith("grad_cam, the default")
    assert found.heatmap.equal(named.heatmap)


@pytest.mark.slow
def test_all_resolutions_together_lose_the_class_in_photographs():
    """refine_cam is no default: 0.84 of the mosaic for grad_cam, and hardly more than a quarter for this."""
    case, model, seen = setting("mosaics", 4)
    assert relevance_mass(heat("mosaics", "grad_cam", count=4), seen.truth).mean() > 0.7
    found = seewhy.explain(model, case.inputs(seen), case.target(seen), method="refine_cam")
    assert relevance_mass(found.heatmap, seen.truth).mean() < 0.45


def test_the_spurious_cue_is_shown_where_the_model_uses_it():
    """0.06 by chance is the share of a cross; the disguised marks, which do not count, are not shown."""
    case, model, seen = setting("clever-hans", 16)
    found = seewhy.explain(model, case.inputs(seen), case.target(seen), method="refine_cam")
    assert average_precision(found.heatmap, seen.truth).mean() > 10 * chance("clever-hans", 16)


@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_a_transformer_is_explained_by_attention_through_all_blocks():
    """0.62, against 0.22 for everyone's default."""
    attention = worth("vit", "attention_relevance", count=24)
    assert attention > 0.55
    assert attention > 2.5 * worth("vit", "grad_cam", LAST_BLOCK, 24)


def test_marks_of_a_volume():
    assert worth("volume", "hires_cam") > 5 * chance("volume")


@pytest.mark.slow
def test_the_grid_pointing_game():
    """A quarter of the mosaic shows what was asked for; the share of the heat there is 1 / 4 by chance."""
    _, _, seen = setting("mosaics", 4)
    found = heat("mosaics", "grad_cam", count=4)
    assert relevance_mass(found, seen.truth).mean() > 0.6
    assert pointing_game(found, seen.truth).mean() == 1
    blind = heat("mosaics", "eigen_cam", count=4)  # of no class: it shows the same wherever is asked
    assert relevance_mass(blind, seen.truth).mean() < 0.5


def test_a_map_of_another_class_lies_on_other_marks():
    _, model, seen = setting("resnet", 24)
    others = seen.labels.clone()
    others[torch.arange(len(seen)), seen.target] = False
    other = others.int().argmax(1)
    assert others.any(1).all()
    found = seewhy.explain(model, seen.images, other, method="refine_cam").heatmap
    asked = average_precision(found, seen.masks[torch.arange(len(seen)), other]).mean()
    assert asked > 0.8
    assert average_precision(found, seen.truth).mean() < 0.2
