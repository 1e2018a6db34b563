"""The numbers of grad-cam 1.5.7: one table of calls, each made of both packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import seewhy
from tests.compat.models import OURS, TARGETS, UPSTREAM, cam, cnn, images, vit, volumes

CLOSE = 1e-4  # the issue's; scikit-learn's solver stops at some 1e-5, and maps of faint layers are divided by 1e-7 more


class Call(NamedTuple):
    """A class and what it is called with. `default`: whether ours gives that number without being asked for it, too."""

    name: str
    default: bool = False
    layers: Sequence[str] = ("4",)
    targets: Any = TARGETS
    options: Mapping[str, Any] = {}
    call: Mapping[str, bool] = {}
    build: Callable[[], nn.Module] = cnn
    inputs: Callable[[], Tensor] = images

    def maps(self, package: Any, **options: Any) -> np.ndarray:
        given = {**self.options, **options}
        if isinstance(layer := given.get("ablation_layer"), str):  # one of the package's own
            given["ablation_layer"] = getattr(package, layer)()
        case = {"build": self.build, "layers": self.layers, "inputs": self.inputs(), "targets": self.targets}
        return cam(package, self.name, options=given, **case, **self.call)


# what differs only in rounding, whatever the call; of the others grad-cam's numbers are had on request
SAME = ("GradCAM", "HiResCAM", "GradCAMElementWise", "XGradCAM", "LayerCAM", "SegEigenCAM", "AblationCAM", "FEM",
        "ScoreCAM")  # fmt: skip
OTHERS = ("GradCAMPlusPlus", "EigenCAM", "EigenGradCAM", "KPCA_CAM", "FullGrad")
EVERY = [(name, name in SAME) for name in SAME + OTHERS]
AUGMENTED, SMOOTH, TWO = {"aug_smooth": True}, {"eigen_smooth": True}, ("2", "6")
# with two layers, which sign LAPACK gives the first component turns on the last bit of what goes in, and so on the
# processor: eigen_smooth is of one layer


def volume() -> Tensor:
    return torch.randn(2, 2, 4, 6, 8, generator=torch.Generator().manual_seed(1))


def narrow() -> Tensor:
    return images()[..., :24]


def any_size() -> nn.Sequential:
    """Takes windows of any size."""
    return nn.Sequential(*cnn()[:7], nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5)).eval()


def swin() -> nn.Module:
    """A layer "layers.1.blocks.0.norm1" with channels last, (B, H, W, C)."""
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 12, "depths": (1, 1), "num_heads": (2, 2)}
    return timm.models.swin_transformer.SwinTransformer(num_classes=5, **sizes).eval()


def tokens(kept: Tensor) -> Tensor:
    return kept[:, 1:].reshape(len(kept), 4, 4, -1).permute(0, 3, 1, 2)


def last(kept: Tensor) -> Tensor:
    return kept.permute(0, 3, 1, 2)


FOLDED = {"reshape_transform": tokens}
VIT = {"build": vit, "layers": ("blocks.1.norm1",)}
OF_TOKENS = {"reshape_transform": tokens, "ablation_layer": "AblationLayerVit"}
LAYER_CAM = {"base_method": "LayerCAM"}
PICKY = {"comparison_categories": [2, 9]}

TABLE = [
    *(Call(name, same) for name, same in EVERY),
    *(Call(name, same, TWO, targets=None) for name, same in EVERY),
    *(Call(name, same, TWO, call=AUGMENTED) for name, same in EVERY if name not in ("ScoreCAM", "AblationCAM")),
    *(Call(name, call=SMOOTH, targets=None) for name, _ in EVERY),
    # of two layers grad-cam's frees the graph after the first
    *(Call("ShapleyCAM", "eigen_smooth" not in call, call=call) for call in ({}, AUGMENTED, SMOOTH)),
    # around another class; in the mean of SESS a place counts if it is above 0, which rounding decides where it is flat
    *(Call(name, True, layers) for name in ("FinerCAM", "SESS") for layers in (("4",), TWO)),
    Call("RefineCAM", True, TWO, options=LAYER_CAM),
    Call("RefineCAM", layers=TWO),
    Call("FinerCAM", layers=TWO, options=LAYER_CAM),
    Call("SESS", layers=TWO, options={"pool": "max", **LAYER_CAM}),
    *(Call("FinerCAM", targets=None, call=call) for call in ({"alpha": 0.4}, PICKY, {"target_idx": 3}, SMOOTH)),
    *(
        Call("SESS", True, options=options, build=any_size, inputs=narrow)
        for options in (
            {"scales": [32, 40], "step_size": 16},
            {"pre_filter_ratio": 0.5, "theta": 0.2},
            {"pool": "max", "smooth": False, "num_scales": 3},
            {"use_softmax_scores": False, "window_size": 20, "batch_size": 5, "num_scales": 2},
        )
    ),
    *(Call("KPCA_CAM", options={"kernel": kind, "gamma": 0.3}) for kind in ("linear", "poly", "rbf", "cosine")),
    *(Call("FEM", options={"k": k}) for k in (1, 1.5)),
    Call("AblationCAM", True, options={"ratio_channels_to_ablate": 0.3}),
    # where the layer is of the input's size: grad-cam resizes volumes by corner-aligned cubics
    *(
        Call(name, build=volumes, layers=("1",), inputs=volume)
        for name, _ in EVERY
        if name not in ("ScoreCAM", "AblationCAM", "FullGrad")  # which it does not take
    ),
    # tokens; an ablation takes a channel out at the class token as well, and looks for the minimum there
    *(Call(name, True, options=FOLDED, **VIT) for name in ("GradCAM", "LayerCAM", "HiResCAM", "XGradCAM")),
    *(Call("AblationCAM", options={**OF_TOKENS, "batch_size": size}, **VIT) for size in (32, 5)),
    Call("AblationCAM", options={**OF_TOKENS, "ratio_channels_to_ablate": 0.3}, **VIT),
    Call(
        "AblationCAM",
        options={**OF_TOKENS, "reshape_transform": last},
        build=swin,
        layers=("layers.1.blocks.0.norm1",),
    ),
]


@pytest.mark.few(24)
@pytest.mark.parametrize("call", TABLE, ids=lambda call: call.name)
def test_the_numbers_are_grad_cams(call: Call) -> None:
    """With the same sign, too, where that is not left to rounding: it comes from the same LAPACK."""
    theirs = call.maps(UPSTREAM)
    assert theirs.max() > 0.3
    for options in ({"upstream_exact": True}, {}) if call.default else ({"upstream_exact": True},):
        found = call.maps(OURS, **options)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, theirs, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("name", ["GradCAM", "XGradCAM"])
def test_tokens_need_no_reshape_transform(name: str) -> None:
    np.testing.assert_allclose(cam(OURS, name, **VIT), cam(UPSTREAM, name, options=FOLDED, **VIT), rtol=0, atol=CLOSE)


@pytest.mark.parametrize("name", ["EigenCAM", "EigenGradCAM", "KPCA_CAM"])
def test_components_by_default(name: str) -> None:
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


def test_shapley_cam_of_two_layers() -> None:
    with pytest.raises(RuntimeError, match="a second time"):
        cam(UPSTREAM, "ShapleyCAM", layers=TWO)
    assert cam(OURS, "ShapleyCAM", layers=TWO).max() > 0.99


@pytest.mark.parametrize("name", ["ScoreCAM", "AblationCAM", "FullGrad"])
def test_volumes_that_grad_cam_does_not_take(name: str) -> None:
    """It masks and scales images only; the Explainer's map, of which ScoreCAM's is enlarged in the same way."""
    case = {"build": volumes, "layers": ("3",), "inputs": volume()}
    with pytest.raises((RuntimeError, ValueError, IndexError, NotImplementedError, TypeError)):
        cam(UPSTREAM, name, **case)
    method = {"ScoreCAM": "score_cam", "AblationCAM": "ablation_cam", "FullGrad": "full_grad"}[name]
    layers = None if name == "FullGrad" else "3"
    right = seewhy.explain(volumes(), volume(), [1, 2], method=method, layers=layers).heatmap.numpy()
    np.testing.assert_allclose(cam(OURS, name, **case), right, rtol=0, atol=CLOSE)


def test_some_channels_only() -> None:
    assert (
        abs(cam(OURS, "AblationCAM", options={"ratio_channels_to_ablate": 0.3}) - cam(OURS, "AblationCAM")).max() > 0.01
    )
