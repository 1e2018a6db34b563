"""Functions from outside as methods: captum's and zennit's attributions give their own numbers through `method=`."""

from __future__ import annotations

import functools
import random
import subprocess
import sys

import captum.attr
import numpy as np
import pytest
import torch
import zennit.attribution
import zennit.composites
import zennit.torchvision
from torch import nn

import seewhy
from seewhy import methods, targets
from seewhy.errors import InputTypeError, MethodError
from tests.contracts.test_promises import assert_same, fingerprint
from tests.contracts.zoo import CASES

CLASSES = torch.tensor([[3, 1], [0, 7]])
CASE = {case.name: case for case in CASES}


def model_and_images(name="small_cnn"):
    return CASE[name].model(), CASE[name].inputs()


def red(model, inputs, target):
    """Each pixel's first channel, times the score."""
    return inputs[:, 0] * target(model(inputs)).reshape(-1, 1, 1)


def test_a_function_is_a_method_for_each_of_several_targets():
    model, images = model_and_images()
    found = seewhy.explain(model, images, CLASSES, method=red)
    assert (found.method, found.layers) == ("red", ("input",))
    torch.testing.assert_close(found.maps["input"], images[:, None, 0] * found.scores[..., None, None])
    assert found.heatmap.shape == (2, 2, 32, 32)


def test_it_goes_beside_methods_by_name():
    model, images = model_and_images()
    found = seewhy.explain(model, images, method=["saliency", red, methods.get("occlusion", window=8)])
    assert list(found) == ["saliency", "red", "occlusion"]


@pytest.mark.parametrize(
    "target",
    [[3, 0], targets.Probability([3, 0]), lambda output: output[:, 3] - output[:, 0]],
    ids=["classes", "probability", "function"],
)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (captum.attr.IntegratedGradients, {"n_steps": 5}),
        (captum.attr.Occlusion, {"sliding_window_shapes": (3, 8, 8), "strides": (3, 8, 8)}),
        (captum.attr.DeepLift, {}),
    ],
)
def test_captums_attributions_give_their_numbers(kind, options, target):
    """Its rows of changed images are scored by their own image's target."""
    model, images = model_and_images()
    found = seewhy.explain(model, images, target, method=methods.of_captum(kind, **options))
    assert found.method == kind.__name__
    definite = found.targets

    class Score(nn.Module):
        def __init__(self, number):
            super().__init__()
            self.model, self.number = model, number

        def forward(self, rows):
            which = torch.full((len(rows),), self.number)
            return targets.for_rows(definite, self.model(rows), which, model(images), len(images))

    for number in range(2):
        theirs = kind(Score(number)).attribute(images[number : number + 1], **options)
        torch.testing.assert_close(found.maps["input"][number], theirs[0].sum(0).detach().float(), rtol=1e-4, atol=1e-6)


def test_a_partial_passes_what_captum_takes_at_the_start():
    model, images = model_and_images()
    kind = functools.partial(captum.attr.IntegratedGradients, multiply_by_inputs=False)
    found = seewhy.explain(model, images, 2, method=methods.of_captum(kind, n_steps=4)).maps["input"]
    expected = captum.attr.IntegratedGradients(model, multiply_by_inputs=False).attribute(images, target=2, n_steps=4)
    torch.testing.assert_close(found, expected.sum(1).float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["small_cnn", "resnet", "volumes"])
def test_zennits_composites_give_their_numbers(name):
    """The resnet's batch normalisations are merged into its convolutions for as long, and come back."""
    model, images = model_and_images(name)
    canonizers = [zennit.torchvision.ResNetCanonizer()] if name == "resnet" else []
    composite = zennit.composites.EpsilonPlus(canonizers=canonizers)
    before = fingerprint(model)
    found = seewhy.explain(model, images, [3, 0], method=methods.of_zennit(composite))
    assert_same(before, fingerprint(model))
    assert found.method == "EpsilonPlus"
    with zennit.attribution.Gradient(model, composite) as attributor:
        _, relevance = attributor(images, torch.eye(10)[[3, 0]])
    torch.testing.assert_close(found.maps["input"], relevance.sum(1), rtol=1e-4, atol=1e-6)


def test_what_a_function_draws_follows_the_generator_and_moves_no_other():
    def noise(model, inputs, target):
        drawn = torch.rand(len(inputs), 4, 4) + random.random()
        return drawn + np.random.rand()

    model, images = model_and_images()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()

    def drawn(seed):
        return seewhy.explain(model, images, method=noise, generator=torch.Generator().manual_seed(seed)).maps["input"]

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])


def test_what_a_function_breaks_is_mended_and_its_exception_comes_through():
    failure = RuntimeError("in the middle")

    def spoil(model, inputs, target):
        model.train()
        model.extra = nn.Identity()
        model.conv1.register_forward_hook(lambda *_: None)
        inputs.zero_()
        raise failure

    model, images = model_and_images()
    before, copy = fingerprint(model), images.clone()
    with pytest.raises(RuntimeError) as caught:
        seewhy.explain(model, images, method=spoil)
    assert caught.value is failure
    assert_same(before, fingerprint(model))
    assert torch.equal(images, copy)


def test_its_maps_may_be_coarse_and_are_drawn_at_the_images_size(tmp_path):
    def coarse(model, inputs, target):
        return inputs[:, 0, ::8, ::8]

    model, images = model_and_images()
    found = seewhy.explain(model, images, method=coarse)
    assert found.maps["input"].shape == (2, 4, 4)
    assert found.heatmap.shape == (2, 32, 32)
    assert found.save(tmp_path / "why.png").stat().st_size > 0
    assert found.check().p_value.shape == (2,)  # which explains a redrawn copy by the same function


def test_it_takes_part_in_evaluate_and_choose():
    model, images = model_and_images()
    captums = methods.of_captum(captum.attr.InputXGradient)
    found = seewhy.evaluate(model, images, methods=[captums, "input_x_gradient"], metrics=("deletion",))
    torch.testing.assert_close(found.values["InputXGradient"]["deletion"], found.values["input_x_gradient"]["deletion"])
    choice = seewhy.choose(model, images, candidates=[captums, "saliency"])
    assert {"InputXGradient", "saliency"} <= choice.scores.keys()
    assert choice.explainer(images).method == choice.method


def test_what_is_no_map_is_refused():
    model, images = model_and_images()
    with pytest.raises(InputTypeError, match=r"<lambda> did not return a tensor(.|\n)*NoneType"):
        seewhy.explain(model, images, method=lambda model, inputs, target: None)
    with pytest.raises(MethodError, match=r"map for each image(.|\n)*\(2, 3, 32, 32\)(.|\n)*maps.sum\(1\)"):
        seewhy.explain(model, images, method=lambda model, inputs, target: inputs)
    with pytest.raises(MethodError, match="red has no option steps"):
        seewhy.explain(model, images, method=red, steps=3)
    with pytest.raises(InputTypeError, match=r"Saliency explains a model of one tensor(.|\n)*dict"):
        seewhy.explain(model, {"image": images}, method=methods.of_captum(captum.attr.Saliency))


def test_neither_library_is_imported_by_seewhy():
    code = "import sys, seewhy; seewhy.methods.available(); print({'captum', 'zennit'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
