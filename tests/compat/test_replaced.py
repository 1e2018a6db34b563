"""What scripts put in grad-cam's place: their own activations_and_grads, outputs in tuples, targets left over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import TargetError
from tests.compat.models import OURS, TARGETS, UPSTREAM, cam, cnn, difference, images


class Theirs:
    """As in the heatmap scripts for YOLO: hooks of its own, and the model's answer sorted, in a list for one image."""

    def __init__(self, model: nn.Module, layers: list[nn.Module]) -> None:
        self.model, self.gradients, self.activations = model, [], []
        self.handles = [layer.register_forward_hook(self.save) for layer in layers]

    def save(self, _: nn.Module, __: Any, output: Tensor) -> None:
        self.activations.append(output.detach())
        output.register_hook(lambda slope: self.gradients.insert(0, slope.detach()))

    def __call__(self, x: Tensor) -> list[list[Any]]:
        self.gradients, self.activations = [], []
        return [list(self.model(x).sort(descending=True))]

    def release(self) -> None:
        for handle in self.handles:
            handle.remove()


def best(answer: list[Tensor]) -> Tensor:
    """The sum of an image's two highest scores."""
    return answer[0][0, :2].sum()


class Alone(OURS.ActivationsAndGradients):
    """Runs the model by itself."""

    def __call__(self, x: Tensor) -> Any:
        self.gradients, self.activations = [], []
        return [list(self.model(x).sort(descending=True))]


class Asks(OURS.ActivationsAndGradients):
    """Has it run by its parent."""

    def __call__(self, x: Tensor) -> Any:
        return [list(super().__call__(x).sort(descending=True))]


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def maps(package: Any, name: str, make: Any = Theirs, given: int = 2) -> tuple[np.ndarray, int]:
    """The map, and how many hooks are left when the object is gone; `given` layers are what the replacement watches."""
    model = cnn()
    made = getattr(package, name)(
        model, [model[2], model[4]], **({} if package is UPSTREAM else {"upstream_exact": True})
    )
    layers = [model[2], model[4], model[6]][:given]
    made.activations_and_grads = make(model, layers) if make is Theirs else make(model, layers, None)
    found = made(images(1), [best])
    del made
    return found, hooks(model)


NAMES = ("GradCAM", "HiResCAM", "GradCAMElementWise", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "EigenCAM",
         "EigenGradCAM", "SegEigenCAM", "FEM")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_replaced_activations_and_grads_is_used(name: str) -> None:
    found, left = maps(OURS, name)
    expected, _ = maps(UPSTREAM, name)
    assert expected.max() > 0.5
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert left == 0


@pytest.mark.parametrize("given", [2, 3])
@pytest.mark.parametrize("make", [Theirs, Alone, Asks])
def test_whatever_it_is_made_of_and_looks_at(make: Any, given: int) -> None:
    """Of more layers than the class has, grad-cam takes the first ones."""
    np.testing.assert_allclose(
        maps(OURS, "GradCAM", make, given)[0], maps(UPSTREAM, "GradCAM", given=given)[0], rtol=0, atol=1e-5
    )


def test_a_replaced_one_of_a_frozen_model_and_of_a_class_without_such_a_map() -> None:
    """grad-cam has no gradient of a frozen model."""
    model = cnn().requires_grad_(False)
    made = OURS.GradCAM(model, [model[4]])
    made.activations_and_grads = Theirs(model, [model[4]])
    right = cam(
        UPSTREAM, "GradCAM", inputs=images(1), targets=[lambda scores: scores.sort(descending=True)[0][:2].sum()]
    )
    np.testing.assert_allclose(made(images(1), [best]), right, rtol=0, atol=1e-5)
    full = OURS.FullGrad(model, [model[4]])
    full.activations_and_grads = Theirs(model, [model[4]])
    with pytest.raises(NotImplementedError, match="full_grad"):
        full(images(1), [best])


class Pair(nn.Module):
    """(logits, auxiliary), one of them twice the other."""

    def __init__(self, kind: type = tuple) -> None:
        super().__init__()
        self.net, self.kind = cnn(), kind

    def forward(self, image: Tensor) -> Any:
        scores = self.net(image)
        return self.kind((scores, 2 * scores))


@pytest.mark.parametrize("kind", [tuple, list])
@pytest.mark.parametrize("name", ["GradCAM", "HiResCAM", "EigenCAM", "ScoreCAM", "AblationCAM"])
def test_the_first_part_of_a_tuple_is_explained(name: str, kind: type) -> None:
    """As grad-cam has it for one image; of the perturbations, and of several images, it takes something else."""
    case = {"build": lambda: Pair(kind), "layers": ("net.4",), "inputs": images(1), "targets": TARGETS[:1]}
    right = cam(OURS, name, inputs=images(1), targets=TARGETS[:1])
    np.testing.assert_allclose(cam(OURS, name, **case), right, rtol=0, atol=1e-5)
    if name in ("GradCAM", "HiResCAM"):
        np.testing.assert_allclose(cam(UPSTREAM, name, **case), right, rtol=0, atol=1e-5)


def test_of_several_images_too() -> None:
    found = cam(OURS, "GradCAM", build=Pair, layers=("net.4",))
    np.testing.assert_allclose(found, cam(OURS, "GradCAM"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["GradCAM", "ScoreCAM", "AblationCAM"])
def test_targets_left_over_are_dropped(name: str) -> None:
    assert difference(name, inputs=images(1), targets=TARGETS) < 1e-4
    with pytest.raises(TargetError, match="1 target for 2 images"):
        cam(OURS, name, targets=TARGETS[:1])


def test_a_layer_with_one_place_is_a_constant_map_and_a_warning() -> None:
    def build() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(3, 4, 32), nn.ReLU(), nn.Flatten(), nn.Linear(4, 5)).eval()

    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="a single place"):
        found = cam(OURS, "GradCAM", build=build, layers=("1",))
    assert found.shape == (2, 32, 32)
    assert np.ptp(found, axis=(1, 2)).tolist() == [0, 0]
