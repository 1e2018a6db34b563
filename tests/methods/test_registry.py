"""Methods are found by name, and a new one takes a function and a line."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

import seewhy
from seewhy import methods
from seewhy.errors import MethodError, SeewhyError
from seewhy.methods import registry


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("grad_cam", "grad_cam"),
        ("Grad-CAM", "grad_cam"),
        ("GradCAM", "grad_cam"),
        ("grad cam", "grad_cam"),
        ("GRADCAM", "grad_cam"),
        ("GradCAM++", "grad_cam_plus_plus"),
        ("Grad-CAM++", "grad_cam_plus_plus"),
        ("GradCAMPlusPlus", "grad_cam_plus_plus"),
        ("hirescam", "hires_cam"),
        ("HiResCAM", "hires_cam"),
        ("GradCAMElementWise", "grad_cam_elementwise"),
        ("LayerCAM", "layer_cam"),
        ("XGradCAM", "x_grad_cam"),
        ("XGrad-CAM", "x_grad_cam"),
        ("CAM", "cam"),
        ("Random-CAM", "random_cam"),
    ],
)
def test_look_up_ignores_case_and_separators(written, name):
    assert methods.get(written) is methods.available()[name]
    assert methods.get(written).name == name


def test_every_method_is_found_by_its_own_name_and_no_two_by_one():
    assert [methods.get(name).name for name in methods.available()] == list(methods.available())


def test_unknown_name_is_answered_with_near_ones():
    with pytest.raises(MethodError, match=r"no method 'grad_camm'") as caught:
        methods.get("grad_camm")
    assert "expected: grad_cam" in str(caught.value)
    assert "do: seewhy.methods.available()" in str(caught.value)
    with pytest.raises(MethodError, match="expected: layer_cam"):
        methods.get("Layer-CAN")


def test_name_near_to_none_is_answered_with_all():
    with pytest.raises(ValueError, match="no method 'quince'") as caught:
        methods.get("quince")
    assert all(name in str(caught.value) for name in methods.available())
    assert isinstance(caught.value, SeewhyError)


@pytest.mark.parametrize("name", ["", "++", "-"])
def test_empty_name_is_unknown(name):
    with pytest.raises(MethodError, match="there is no method"):
        methods.get(name)


def test_changing_what_available_returns_changes_nothing():
    methods.available().clear()
    assert "grad_cam" in methods.available()


@pytest.mark.parametrize("found", methods.available().values(), ids=lambda found: found.name)
def test_every_method_says_where_it_is_from_what_it_does_and_needs(found):
    published = found.source.startswith(("arXiv:", "doi:", "hal-", "CVPR"))
    assert published or "baseline" in found.source or "without a paper" in found.source
    assert len(found.summary) > 20
    assert found.summary[-1] in ".)"
    assert "\n" not in found.summary
    assert set(found.needs) <= set(get_args(registry.Need))
    assert found.cost.startswith(("1 ", "2 "))
    differentiated = any("gradients" in need or need == "curvatures" for need in found.needs)
    assert ("backward" in found.cost) is (differentiated or found.name == "opti_cam")
    assert found.family in {file.split(".")[0] for file in registry._FILES}


def test_methods_that_use_no_score_say_so():
    unscored = {name for name, found in methods.available().items() if not found.scored}
    assert unscored == {"eigen_cam", "kpca_cam", "fem", "lafam", "random_cam", "diff_cam"}
    assert methods.finer("eigen_cam").scored  # it asks for a target of its own
    assert not methods.get("kpca_cam", kernel="rbf").scored


@pytest.fixture
def toy():
    """A method of one function and one line, gone again afterwards."""

    @registry.method("toy_peak", needs=("activations", "gradients"), source="a test")
    def toy_peak(activations, gradients):
        """The first channel, times the largest gradient of the second."""
        return activations[:, 0] * gradients[:, 1].amax((1, 2), keepdim=True)

    yield toy_peak
    del registry._methods["toy_peak"]


def test_a_new_method_is_one_function_and_one_line(toy):
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(32, 3))
    model[0].weight.data = torch.tensor([2.0, -1.0]).reshape(2, 1, 1, 1)
    model[0].bias.data.zero_()
    images = torch.arange(32.0).reshape(2, 1, 4, 4)
    found = seewhy.explain(model, images, [0, 2], method="ToyPeak", layers="0")
    slopes = model[2].weight.detach()[[0, 2], 16:].amax(1)
    torch.testing.assert_close(found.maps["0"], 2 * images[:, 0] * slopes[:, None, None])
    assert found.method == "toy_peak"
    assert methods.get("toy-peak").summary == "The first channel, times the largest gradient of the second."


def test_a_method_without_weighted_activations_refuses_eigen_smooth(toy):
    with pytest.raises(MethodError, match="toy_peak has no weighted activations"):
        seewhy.Explainer(nn.Conv2d(1, 1, 1), "toy_peak", eigen_smooth=True)


def test_the_toy_is_gone_afterwards():
    assert "toy_peak" not in methods.available()
