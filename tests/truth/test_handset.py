"""Networks that were built by hand: the map is exactly what the network does, or the reason why not is shown."""

from __future__ import annotations

import pytest
import torch

import seewhy
from tests.truth.handset import SIZE, SQUARES, Colours, Placed, Saturated, pictures

OPTIONS = {"occlusion": {"window": 1, "stride": 1}}
LINEAR = ("grad_cam", "hires_cam", "x_grad_cam", "shapley_cam", "zoom_cam", "odam", "seg_xres_cam", "occlusion")
POSITIVE = ("grad_cam_elementwise", "layer_cam", "recipro_cam")  # drop what speaks against the score, by definition
PLACED = ("hires_cam", "x_grad_cam", "zoom_cam", "seg_xres_cam", "occlusion", *POSITIVE)


def maps(model, target, method):
    layered = seewhy.methods.get(method).layered
    where = {"layers": "features"} if layered else {}
    explanation = seewhy.explain(model, pictures(), target, method=method, **where, **OPTIONS.get(method, {}))
    (found,) = explanation.maps.values()
    return found


def test_what_the_networks_do_adds_up_to_their_scores():
    for model in (Colours(), Placed()):
        scores = model(pictures())
        for target in range(3):
            added = model.truth(pictures(), target).sum((1, 2))
            torch.testing.assert_close(added, scores[:, target], rtol=1e-5, atol=1e-6)
    # 16 pixels of red by 1/2, in the second picture by 0.4 and right of the middle: by hand
    torch.testing.assert_close(Placed()(pictures())[:, 0], torch.tensor([8.0, 0.0]))


@pytest.mark.parametrize("target", [0, 1, 2])
@pytest.mark.parametrize("method", LINEAR)
def test_linear_behind_a_mean(method, target):
    model = Colours().eval()
    torch.testing.assert_close(maps(model, target, method), model.truth(pictures(), target), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("target", [0, 2])
@pytest.mark.parametrize("method", POSITIVE)
def test_linear_where_nothing_speaks_against(method, target):
    model = Colours().eval()
    torch.testing.assert_close(maps(model, target, method), model.truth(pictures(), target), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("target", [0, 1, 2])
@pytest.mark.parametrize("method", PLACED)
@pytest.mark.filterwarnings("ignore:.*is zero everywhere")  # red alone, in the picture without any on the left
def test_a_head_that_knows_each_place(method, target):
    model = Placed().eval()  # occlusion is the difference of two scores of up to 26 in float32
    torch.testing.assert_close(maps(model, target, method), model.truth(pictures(), target), rtol=1e-4, atol=1e-5)


def test_grad_cam_averages_places_that_differ():
    """Its weight of red is that of half of the places: 1/2, so 1/2 x 0.4 where red is and does not count."""
    model = Placed().eval()
    rows, columns = SQUARES["red"]
    there = (1, rows, slice(SIZE - columns.stop, SIZE - columns.start))
    torch.testing.assert_close(maps(model, 2, "grad_cam")[there], torch.full((4, 4), 0.2))
    assert not maps(model, 2, "hires_cam")[there].any()


def test_activations_alone_follow_what_is_large():
    """Blue has the most pixels, and no weight: the first principal component is blue and nothing else."""
    heat = seewhy.explain(Colours().eval(), pictures(), 0, method="eigen_cam", layers="features").heatmap
    assert heat[0][SQUARES["red"]].max() < 1e-3
    assert heat[0][SQUARES["blue"]].min() > 0.999


def test_a_saturated_score_has_no_gradient():
    with pytest.warns(UserWarning, match="is zero everywhere"):
        assert not maps(Saturated().eval(), 0, "grad_cam").any()
    with pytest.warns(UserWarning, match="is zero everywhere"):  # one pixel less of red changes nothing either
        assert not maps(Saturated().eval(), 0, "occlusion").any()
    # a window over all of the red does: by hand the score falls from 1 to 0
    fallen = seewhy.explain(Saturated().eval(), pictures()[:1], 0, method="occlusion", window=8, stride=8)
    assert (next(iter(fallen.maps.values()))[0, 2, 3] == 1).all()
