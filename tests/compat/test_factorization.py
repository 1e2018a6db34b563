"""Deep feature factorization, guided backpropagation, ablation layers: numbers of grad-cam, or better ones."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_grad_cam.ablation_layer
import pytorch_grad_cam.guided_backprop
import torch
import torch.nn.functional as F
from PIL import Image
from pytorch_grad_cam.feature_factorization.deep_feature_factorization import dff as their_dff
from torch import nn

from seewhy.compat.pytorch_grad_cam import ablation_layer, guided_backprop
from seewhy.compat.pytorch_grad_cam.feature_factorization.deep_feature_factorization import dff
from tests.compat.models import OURS, UPSTREAM, cnn, images


def layer() -> np.ndarray:
    """Activations with negative values, (2, 10, 8, 8)."""
    return cnn()[:4](images()).detach().numpy()


def left_over(concepts, explanations) -> float:
    """What of the activations, each channel from its smallest value up, a factorization does not explain."""
    rows = layer().transpose(1, 0, 2, 3).reshape(10, -1)
    offset = rows.min(1, keepdims=True)
    found = (concepts - offset) @ explanations.transpose(1, 0, 2, 3).reshape(concepts.shape[1], -1)
    return float(np.linalg.norm(rows - offset - found) / np.linalg.norm(rows - offset))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_factorization_explains_as_much_as_scikit_learns(count):
    """Its own problem, from another start: the least that is left of it is what counts."""
    concepts, explanations = dff(layer(), count)
    assert concepts.shape == (10, count)
    assert explanations.shape == (2, count, 8, 8)
    assert explanations.min() >= 0
    np.testing.assert_allclose(explanations.max((0, 2, 3)), 1, atol=1e-6)
    theirs = left_over(*their_dff(layer(), count))
    assert left_over(concepts, explanations) < theirs * 1.02
    assert 0.01 < theirs < 0.9


def test_the_factorization_of_a_model():
    """One concept: the map is scikit-learn's whatever it starts from, as the problem has one solution."""

    def found(package):
        model = cnn()
        made = package.DeepFeatureFactorization(model, model[4], None, model_head(model))
        return made(images(), n_components=1)

    def model_head(_):
        return lambda concepts: concepts @ torch.arange(20.0).reshape(10, 2)

    (_, expected, _), (concepts, maps, outputs) = found(UPSTREAM), found(OURS)
    assert len(maps) == 2
    np.testing.assert_allclose(np.stack(maps), np.stack(expected), atol=2e-3)  # scikit-learn stops at 1e-4
    np.testing.assert_allclose(outputs, concepts.T @ np.arange(20.0).reshape(10, 2), rtol=1e-5)


def test_a_photograph_beside_its_concepts():
    model = cnn()
    model.config = SimpleNamespace(id2label=dict(enumerate(["a cat", "a dog", "a tree"])))
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    classifier = nn.Linear(10, 3)
    shown = OURS.run_dff_on_image(model, model[4], classifier, photo, images(1)[0], n_components=2, top_k=1)
    assert shown.shape == (32, 96, 3)
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown[:, :32], np.asarray(photo))
    assert shown[:, 32:64].std() > 1


class Relus(nn.Module):
    def __init__(self, form) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3, stride=2), nn.Conv2d(6, 8, 3, stride=2)
        self.head, self.relu = nn.Linear(8, 5), nn.ReLU() if form == "module" else F.relu

    def forward(self, image):
        return self.head(self.relu(self.second(self.relu(self.first(image)))).mean((-2, -1)))


@pytest.mark.parametrize("target", [None, 2])
def test_guided_backprop(target):
    """Of nn.ReLU, one image: the same. Of F.relu grad-cam gives the plain gradient; of a batch the first image."""
    expected = UPSTREAM.GuidedBackpropReLUModel(Relus("module"))(images(1), target)
    assert expected.shape == (32, 32, 3)
    for form in ("module", "function"):
        model = Relus(form).requires_grad_(False)
        found = OURS.GuidedBackpropReLUModel(model=model, device="cpu")
        np.testing.assert_allclose(found(images(1), target_category=target), expected, atol=1e-6)
        of_two = found(images(), target)
        assert of_two.shape == (2, 32, 32, 3)
        np.testing.assert_allclose(of_two[0], expected, atol=1e-6)
    plain = UPSTREAM.GuidedBackpropReLUModel(Relus("function"))(images(1), target)
    assert np.abs(plain - expected).max() > 0.1 * np.abs(expected).max()


def test_the_relu_of_guided_backprop():
    """By `apply` and as a module: above 0 the gradient's positive part, elsewhere none."""
    found = []
    for package in (pytorch_grad_cam.guided_backprop, guided_backprop):
        for function in (package.GuidedBackpropReLU.apply, package.GuidedBackpropReLUasModule()):
            inputs = torch.tensor([-1.0, 0.0, 2.0, 3.0], requires_grad=True)
            outputs = function(inputs)
            outputs.backward(torch.tensor([5.0, 6.0, 7.0, -8.0]))
            found.append((outputs.tolist(), inputs.grad.tolist()))
    assert found == [([0, 0, 2, 3], [0, 0, 7, 0])] * 4


@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.2])
def test_the_channels_to_ablate_are_grad_cams(ratio):
    for one in layer():
        expected = pytorch_grad_cam.ablation_layer.AblationLayer().activations_to_be_ablated(one.copy(), ratio)
        found = ablation_layer.AblationLayer().activations_to_be_ablated(one, ratio)
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["AblationLayer", "AblationLayerVit", "AblationLayerFasterRCNN"])
def test_ablation_layers(name):
    """Each row lacks its channel. Where the smallest activation is 0, as grad-cam's; -1000 in a pyramid."""
    maps = torch.from_numpy(layer()).clamp(min=0)
    given = {
        "AblationLayer": maps,
        "AblationLayerVit": maps.flatten(2).mT,
        "AblationLayerFasterRCNN": OrderedDict((key, torch.rand(2, 256, 2, 2)) for key in ("0", "1", "2", "3", "pool")),
    }[name]
    found = []
    for package in (pytorch_grad_cam.ablation_layer, ablation_layer):
        made = getattr(package, name)()
        made.indices = [3, 0, 7] if name != "AblationLayerFasterRCNN" else [3, 256, 1279]
        made.set_next_batch(input_batch_index=1, activations=given, num_channels_to_ablate=3)
        found.append(made(None))
    torch.testing.assert_close(found[1], found[0])


def test_ablation_layers_hold_their_own():
    maps = torch.rand(2, 4, 3, 3)
    before = maps.clone()
    made = ablation_layer.AblationLayer()
    made.indices = [2]
    made.set_next_batch(0, maps, 1)
    assert bool((made(None)[0, 2] == 0).all())
    torch.testing.assert_close(maps, before)
