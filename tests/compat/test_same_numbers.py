"""The numbers of grad-cam 1.5.7, over its classes and what they are called with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import seewhy
from tests.compat.models import OURS, UPSTREAM, cam, cnn, difference, images, vit, volumes

# What differs only in rounding, whatever the call. In eigen_cam and its like the sign is grad-cam's by chance.
SAME = ["GradCAM", "HiResCAM", "GradCAMElementWise", "XGradCAM", "LayerCAM", "SegEigenCAM", "AblationCAM", "FEM",
        "ScoreCAM"]  # fmt: skip
EXACT = [*SAME, "GradCAMPlusPlus", "EigenCAM", "EigenGradCAM", "KPCA_CAM", "FullGrad"]
CLOSE = 1e-4  # the issue's; scikit-learn's solver stops at some 1e-5, and maps of faint layers are divided by 1e-7 more

every_call = pytest.mark.parametrize("call", [{}, {"aug_smooth": True}], ids=["plain", "augmented"])
every_target = pytest.mark.parametrize("targets", [{}, {"targets": None}], ids=["targets", "predicted"])
every_layer = pytest.mark.parametrize("layers", [("4",), ("2", "6")], ids=["one layer", "two layers"])


@pytest.mark.few(24)
@every_call
@every_target
@every_layer
@pytest.mark.parametrize("name", SAME)
def test_by_default(name, layers, targets, call):
    assert difference(name, layers=layers, **targets, **call) < CLOSE


@every_target
@every_layer
@pytest.mark.parametrize(
    ("name", "options"),
    [("FinerCAM", {}), ("SESS", {}), ("RefineCAM", {"base_method": "LayerCAM"})],
)
def test_around_another_class_by_default(name, options, layers, targets):
    assert difference(name, layers=layers, options=options, **targets) < CLOSE


@pytest.mark.parametrize("name", ["EigenCAM", "EigenGradCAM", "KPCA_CAM"])
def test_components_by_default(name):
    """Of centred activations as grad-cam's, but for the sign, which is a rule's and not chance's: see there."""
    draw = torch.Generator().manual_seed(0)
    activations, slopes = (torch.randn(2, 6, 4, 5, generator=draw).numpy() for _ in range(2))
    model = cnn()
    found, theirs = (
        getattr(package, name)(model, [model[4]]).get_cam_image(None, None, None, activations, slopes, False)
        for package in (OURS, UPSTREAM)
    )
    signs = np.sign((found * theirs).sum((1, 2), keepdims=True))
    np.testing.assert_allclose(found, signs * theirs, atol=CLOSE)


# with two layers, which sign LAPACK gives the first component turns on the last bit of what goes in, and so on the
# processor: 0.65 off on one with AVX-512 at unchanged code, equal on one with AVX2
BY_CHANCE = ("GradCAMElementWise", "LayerCAM")


@pytest.mark.few(56)
@every_target
@every_layer
@pytest.mark.parametrize("call", [{}, {"aug_smooth": True}, {"eigen_smooth": True}], ids=str)
@pytest.mark.parametrize("name", EXACT)
def test_on_request(name, layers, targets, call):
    """With the same sign, too, where that is not left to rounding: it comes from the same LAPACK."""
    if call == {"eigen_smooth": True} and name in BY_CHANCE:
        layers = ("4",)
    assert difference(name, exact=True, layers=layers, **targets, **call) < CLOSE


@pytest.mark.parametrize("call", [{}, {"aug_smooth": True}, {"eigen_smooth": True}], ids=str)
@every_target
def test_shapley_cam(targets, call):
    """Of one layer: of two grad-cam's frees the graph after the first, and fails."""
    assert difference("ShapleyCAM", exact="eigen_smooth" in call, **targets, **call) < CLOSE
    with pytest.raises(RuntimeError, match="a second time"):
        cam(UPSTREAM, "ShapleyCAM", layers=("2", "6"))
    assert cam(OURS, "ShapleyCAM", layers=("2", "6")).max() > 0.99


@every_target
@every_layer
@pytest.mark.parametrize("name", ["FinerCAM", "SESS"])
def test_around_another_class(name, layers, targets):
    assert difference(name, exact=True, layers=layers, **targets) < CLOSE


@pytest.mark.parametrize(
    "call", [{"alpha": 0.4}, {"comparison_categories": [2, 9]}, {"target_idx": 3}, {"eigen_smooth": True}], ids=str
)
def test_finer_cam_of_chosen_classes(call):
    assert difference("FinerCAM", exact=True, targets=None, **call) < CLOSE


@pytest.mark.parametrize(
    "options",
    [
        {"scales": [32, 40], "step_size": 16},
        {"pre_filter_ratio": 0.5, "theta": 0.2},
        {"pool": "max", "smooth": False, "num_scales": 3},
        {"use_softmax_scores": False, "window_size": 20, "batch_size": 5, "num_scales": 2},
    ],
    ids=str,
)
def test_sess_with_options(options):
    """Of images that are not square, by a model that takes windows of any size."""

    def build() -> nn.Sequential:
        return nn.Sequential(*cnn()[:7], nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5)).eval()

    assert difference("SESS", options=options, inputs=images()[..., :24], build=build) < CLOSE


@every_layer
@pytest.mark.parametrize("name", ["RefineCAM", "FinerCAM", "SESS"])
def test_around_a_class_of_choice(name, layers):
    """SESS by its maximum: in its mean a place counts if it is above 0, which rounding decides where a map is flat."""
    options = {"base_method": "LayerCAM", **({"pool": "max"} if name == "SESS" else {})}
    assert difference(name, exact=True, layers=layers, options=options) < CLOSE


def test_refine_cam():
    assert difference("RefineCAM", exact=True, layers=("2", "6")) < CLOSE


@pytest.mark.parametrize("kernel", ["sigmoid", "linear", "poly", "rbf", "cosine"])
@pytest.mark.parametrize("gamma", [None, 0.3])
def test_kernels(kernel, gamma):
    assert difference("KPCA_CAM", exact=True, options={"kernel": kernel, "gamma": gamma}) < CLOSE


@pytest.mark.parametrize("k", [1, 1.5])
def test_deviations(k):
    assert difference("FEM", exact=True, options={"k": k}) < CLOSE


@pytest.mark.parametrize("name", ["ScoreCAM", "AblationCAM", "FullGrad"])
def test_volumes_that_grad_cam_does_not_take(name):
    """It masks and scales images only; the Explainer's map, of which ScoreCAM's is enlarged in the same way."""
    inputs = torch.randn(2, 2, 4, 6, 8, generator=torch.Generator().manual_seed(1))
    case = {"build": volumes, "layers": ("3",), "inputs": inputs}
    with pytest.raises((RuntimeError, ValueError, IndexError, NotImplementedError, TypeError)):
        cam(UPSTREAM, name, **case)
    method = {"ScoreCAM": "score_cam", "AblationCAM": "ablation_cam", "FullGrad": "full_grad"}[name]
    layers = None if name == "FullGrad" else "3"
    right = seewhy.explain(volumes(), inputs, [1, 2], method=method, layers=layers).heatmap.numpy()
    torch.testing.assert_close(torch.from_numpy(cam(OURS, name, **case)), torch.from_numpy(right), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["GradCAM", "HiResCAM", "GradCAMElementWise", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "ShapleyCAM",
             "SegEigenCAM", "EigenCAM", "EigenGradCAM", "KPCA_CAM", "FEM"]
)  # fmt: skip
def test_volumes(name):
    """Where the layer is of the input's size: grad-cam resizes volumes by corner-aligned cubics, see there."""
    inputs = torch.randn(2, 2, 4, 6, 8, generator=torch.Generator().manual_seed(1))
    assert difference(name, exact=True, build=volumes, layers=("1",), inputs=inputs) < CLOSE


@pytest.mark.parametrize("name", ["GradCAM", "LayerCAM", "HiResCAM", "XGradCAM"])
def test_tokens(name):
    """With a reshape_transform as grad-cam needs it, and without: the engine knows the layout."""

    def fold(tokens):
        return tokens[:, 1:].reshape(len(tokens), 4, 4, -1).permute(0, 3, 1, 2)

    layers, options = ("blocks.1.norm1",), {"reshape_transform": fold}
    theirs = cam(UPSTREAM, name, build=vit, layers=layers, options=options)
    for given in (options, {}):
        found = cam(OURS, name, build=vit, layers=layers, options=given)
        torch.testing.assert_close(torch.from_numpy(found), torch.from_numpy(theirs), rtol=0, atol=CLOSE)


def test_some_channels_only():
    """Those that the same layer chooses, from activations that grad-cam has by position in its batch of 32."""
    case = {"options": {"ratio_channels_to_ablate": 0.3}}
    assert difference("AblationCAM", **case) < CLOSE
    assert abs(cam(OURS, "AblationCAM", **case) - cam(OURS, "AblationCAM")).max() > 0.01
