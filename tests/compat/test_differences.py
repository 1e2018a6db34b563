"""Where grad-cam 1.5.7 is wrong, or left to chance: its number, and the right one, which is the default."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

import seewhy
from seewhy.errors import TargetError
from tests.compat.models import OURS, TARGETS, UPSTREAM, cam, cnn, difference, images


def scaled(maps: Tensor) -> np.ndarray:
    """Signed maps (B, h, w) over the image, by grad-cam's own scaling and OpenCV."""
    return scale_cam_image(scale_cam_image(maps.clamp(min=0).numpy(), (32, 32)))


def activations(model=None) -> Tensor:
    return (model or cnn())[:5](images()).detach()


def gradients() -> Tensor:
    leaf = activations().requires_grad_()
    return torch.autograd.grad(cnn()[5:](leaf)[[0, 1], [1, 2]].sum(), leaf)[0]


def test_grad_cam_plus_plus_without_an_epsilon():
    """NEEDS 9: by the paper's formula in float64; grad-cam's 1e-6 weighs in where gradients are small."""
    a, g = activations().double(), gradients().double()
    below = 2 * g**2 + a.sum((2, 3), keepdim=True) * g**3
    alpha = torch.where(g != 0, g**2 / torch.where(below == 0, 1, below), 0)
    right = scaled(((alpha * g.clamp(min=0)).sum((2, 3), keepdim=True) * a).sum(1).float())
    np.testing.assert_allclose(cam(OURS, "GradCAMPlusPlus"), right, atol=1e-4)
    assert np.abs(cam(UPSTREAM, "GradCAMPlusPlus") - right).max() > 5e-3


class Residual(nn.Module):
    def __init__(self, inplace):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.inplace = nn.Conv2d(3, 3, 3, padding=1), inplace
        self.head = nn.Linear(3 * 1024, 5)

    def forward(self, image):
        out = self.first(image)
        if self.inplace:
            out += image
        else:
            out = out + image
        return self.head(F.gelu(out).flatten(1))


def test_in_place_operations_do_not_reach_what_was_captured():
    """NEEDS 1: an addition in place after a convolution: grad-cam's activation is the sum, its gradient is not."""
    right, theirs, found = (
        cam(package, "HiResCAM", build=lambda inplace=inplace: Residual(inplace), layers=("first",))
        for package, inplace in ((UPSTREAM, False), (UPSTREAM, True), (OURS, True))
    )
    np.testing.assert_allclose(found, right, atol=1e-5)
    assert np.abs(theirs - right).max() > 0.3


def test_fewer_targets_than_images():
    """NEEDS 2: grad-cam leaves the map of the second image at zero."""
    assert cam(UPSTREAM, "GradCAM", targets=TARGETS[:1]).max((1, 2)).tolist() == pytest.approx([1, 0])
    with pytest.raises(TargetError, match="one target for each image"):
        cam(OURS, "GradCAM", targets=TARGETS[:1])


def test_one_logit_has_two_sides():
    """NEEDS 3: unless asked otherwise, grad-cam shows what speaks for the positive side of a negative answer."""

    def build():
        model = cnn()
        model[10] = nn.Linear(16, 1)
        nn.init.constant_(model[10].bias, -5.0)
        return model

    against = [lambda out: -out[0]] * 2
    assert bool((build()(images()) < 0).all())
    right = cam(OURS, "GradCAM", build=build, targets=against)
    np.testing.assert_allclose(cam(OURS, "GradCAM", build=build, targets=None), right, atol=1e-6)
    theirs = cam(UPSTREAM, "GradCAM", build=build, targets=None)
    assert np.abs(theirs - right).max() > 0.5
    assert difference("GradCAM", exact=True, build=build, targets=None) < 1e-4
    named = [ClassifierOutputTarget(0)] * 2  # the index of the only number
    np.testing.assert_allclose(cam(OURS, "GradCAM", build=build, targets=named), theirs, atol=1e-4)


def dense() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 4, 5, padding=2)).eval()


def test_a_target_that_says_where_is_mirrored_with_the_image():
    """NEEDS 4: grad-cam mirrors the image and asks for the class at the place that was on the other side."""
    mask = torch.zeros(32, 32)
    mask[4:12, 2:10] = 1

    def at(place):
        return [lambda out: (out[1] * place).sum()] * 2

    case = {"build": dense, "layers": ("1",)}
    parts = []
    for turn, place in ((False, mask), (True, mask.flip(-1))):
        for brightness in (1.0, 0.9, 1.1):
            view = (images().flip(-1) if turn else images()) * brightness
            found = cam(UPSTREAM, "HiResCAM", inputs=view, targets=at(place), **case)
            parts.append(found[..., ::-1] if turn else found)
    right = np.mean(parts, axis=0)
    np.testing.assert_allclose(cam(OURS, "HiResCAM", targets=at(mask), aug_smooth=True, **case), right, atol=1e-4)
    assert right[:, :, 16:].max() < 0.01
    theirs = cam(UPSTREAM, "HiResCAM", targets=at(mask), aug_smooth=True, **case)
    assert theirs[:, :, 16:].max() > 0.3, "where the target never was"
    assert difference("HiResCAM", exact=True, targets=at(mask), aug_smooth=True, **case) < 1e-4


def test_the_prediction_of_the_image_is_explained_in_all_its_views():
    """NEEDS 4: where brightness changes the class, grad-cam's mean is over maps of different classes."""

    def build():
        return nn.Sequential(*cnn()[:9], nn.Linear(16, 5)).eval()

    predicted = [ClassifierOutputTarget(int(index)) for index in build()(images()).argmax(1)]
    brighter = build()(images().flip(-1)).argmax(1)
    assert brighter.tolist() != [target.category for target in predicted], "the case shows nothing"
    right = cam(OURS, "GradCAM", build=build, targets=predicted, aug_smooth=True)
    np.testing.assert_allclose(cam(OURS, "GradCAM", build=build, targets=None, aug_smooth=True), right, atol=1e-6)
    assert np.abs(cam(UPSTREAM, "GradCAM", build=build, targets=None, aug_smooth=True) - right).max() > 0.05
    assert difference("GradCAM", exact=True, build=build, targets=None, aug_smooth=True) < 1e-4


def test_a_negative_score_does_not_turn_ablation_cam_around():
    """NEEDS 5: weights do not change when a constant is added to the score, but for their common factor."""

    def shifted(constant):
        return [lambda out: out[1] + constant] * 2

    right = cam(UPSTREAM, "AblationCAM", targets=shifted(20.0))
    for constant in (20.0, -20.0):
        np.testing.assert_allclose(cam(OURS, "AblationCAM", targets=shifted(constant)), right, atol=1e-4)
    theirs = cam(UPSTREAM, "AblationCAM", targets=shifted(-20.0))
    assert np.abs(theirs - right).max() > 0.5
    assert difference("AblationCAM", exact=True, targets=shifted(-20.0)) < 1e-4


def test_ablation_does_not_depend_on_the_place_in_the_batch():
    """NEEDS 6: with a layer that goes below zero, grad-cam's map changes with its batch size."""

    def maps(package, size, **options):
        model = nn.Sequential(*cnn(nn.GELU)[:5], nn.Flatten(), nn.Linear(640, 5)).eval()
        with_size = {"batch_size": size, **options}
        return package.AblationCAM(model, [model[4]], **with_size)(images(), TARGETS)

    assert np.abs(maps(UPSTREAM, 32) - maps(UPSTREAM, 3)).max() > 0.01
    np.testing.assert_allclose(maps(OURS, 32), maps(OURS, 3), atol=1e-5)
    for size in (32, 3):
        np.testing.assert_allclose(maps(OURS, size, upstream_exact=True), maps(UPSTREAM, size), atol=1e-3)


@pytest.mark.parametrize("name", ["EigenCAM", "EigenGradCAM", "KPCA_CAM"])
def test_a_components_sign_is_that_of_what_it_stands_for(name):
    """NEEDS 7: grad-cam leaves it to LAPACK. Both maps are halves of one; ours agrees with the sum over channels."""
    weighted = activations() * (gradients() if name == "EigenGradCAM" else 1)
    if name == "KPCA_CAM":
        weighted = weighted - weighted.mean((2, 3), keepdim=True)
    found = cam(OURS, name)
    resized = F.interpolate(weighted.sum(1)[:, None], (32, 32), mode="bilinear")[:, 0].numpy()
    assert ((found * resized).sum((1, 2)) > 0).all()


def test_full_grad_is_the_papers():
    """NEEDS 10: the engine's map, whose numbers are tested where they are made; grad-cam's is another."""
    right = seewhy.explain(cnn(), images(), [1, 2], method="full_grad").heatmap.numpy()
    np.testing.assert_allclose(cam(OURS, "FullGrad"), right, atol=1e-5)
    assert np.abs(cam(UPSTREAM, "FullGrad") - right).max() > 0.1


def test_classes_that_are_grad_cams_where_the_methods_of_that_name_are_not():
    """The numbers of the docs: by how much `seewhy.explain` differs from the class."""
    least = {"FEM": ("fem", 0.3), "EigenCAM": ("eigen_cam", 0.1), "ScoreCAM": ("score_cam", 1e-4)}
    for name, (method, distance) in least.items():
        found = seewhy.explain(cnn(), images(), [1, 2], method=method, layers="4").heatmap.numpy()
        assert np.abs(cam(OURS, name) - found).max() > distance


def test_a_map_does_not_fade_with_its_gradients():
    """NEEDS 8: grad-cam adds 1e-7 to the maximum that it divides by, twice, and a very faint map stays faint."""

    def faint(size):
        return [lambda out: size * out[1]] * 2

    right = cam(OURS, "GradCAM", targets=faint(1.0))
    np.testing.assert_allclose(cam(OURS, "GradCAM", targets=faint(1e-12)), right, atol=1e-5)
    theirs = cam(UPSTREAM, "GradCAM", targets=faint(1e-12))
    assert theirs.max() < 0.5
    exact = cam(OURS, "GradCAM", targets=faint(1e-12), options={"upstream_exact": True})
    np.testing.assert_allclose(exact, theirs, atol=1e-4)


def test_refine_cam_smooths_as_it_is_asked():
    """grad-cam hands eigen_smooth on as aug_smooth, by position."""
    options = {"base_method": "LayerCAM"}
    case = {"layers": ("2", "6"), "options": options}
    maps = [cam(OURS, "LayerCAM", layers=(layer,), eigen_smooth=True) for layer in ("2", "6")]
    np.testing.assert_allclose(
        cam(OURS, "RefineCAM", eigen_smooth=True, **case), scale_cam_image(np.prod(maps, 0)), atol=1e-5
    )
    theirs = cam(UPSTREAM, "RefineCAM", eigen_smooth=True, **case)
    smoothed = [cam(UPSTREAM, "LayerCAM", layers=(layer,), aug_smooth=True) for layer in ("2", "6")]
    np.testing.assert_allclose(theirs, scale_cam_image(np.prod(smoothed, 0)), atol=1e-5)
