"""The parts put together: where the layer is looked for, what is handed to the method, what is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision import models

import seewhy
from seewhy.errors import (
    GradientError,
    InputError,
    InputTypeError,
    LayerError,
    MapWarning,
    MethodError,
    OutputError,
)
from seewhy.hooks.select import find
from tests.contracts.zoo import CASES, Case

BY_NAME = {case.name: case for case in CASES}


class TwoLayers(nn.Module):
    """A 1x1 network by hand: first doubles, second adds both channels; the score is the mean of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 2, 1, bias=False)
        self.second = nn.Conv2d(2, 1, 1, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(2 * torch.eye(2)[:, :, None, None])
            self.second.weight.copy_(torch.tensor([1.0, -0.5])[None, :, None, None])

    def forward(self, image: Tensor) -> Tensor:
        return self.second(self.first(image)).mean((-2, -1)).expand(-1, 2) * torch.tensor([1.0, 3.0])


IMAGE = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, 2.0]]]])


def test_maps_scores_and_outputs_by_hand() -> None:
    """S = 3 * mean(2 a - b), so at `first` (2a, 2b) each gradient is 3/4 * (1, -0.5)."""
    explanation = seewhy.explain(TwoLayers(), IMAGE, 1, layers="first")
    expected = 0.75 * (2 * IMAGE[:, 0] - IMAGE[:, 1])
    torch.testing.assert_close(explanation.maps["first"], expected)
    torch.testing.assert_close(explanation.scores, 3 * (2 * IMAGE[:, 0] - IMAGE[:, 1]).mean((-2, -1)))
    torch.testing.assert_close(explanation.outputs, explanation.scores[:, None] * torch.tensor([1 / 3, 1.0]))
    assert explanation.method == "grad_cam"
    assert explanation.size == (2, 2)
    spread = (expected - expected.min()) / (expected.max() - expected.min())
    torch.testing.assert_close(explanation.heatmap, spread)


def test_several_layers_come_in_the_order_they_ran_and_are_fused() -> None:
    explanation = seewhy.explain(TwoLayers(), IMAGE, 0, layers=["second", "first"], fuse="max")
    assert explanation.layers == ("first", "second")
    first, second = explanation.maps.values()
    torch.testing.assert_close(second, 0.25 * (2 * IMAGE[:, 0] - IMAGE[:, 1]))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize(
    ("fuse", "expected"), [("mean", [0.5, 0.5, 0.0]), ("max", [1.0, 1.0, 0.0]), ("product", [0.0, 0.0, 0.0])]
)
def test_layers_are_scaled_before_they_are_fused(fuse: str, expected: list[float]) -> None:
    """A layer with values a hundred times larger has no more say; what is fused is scaled again."""
    maps = {"a": torch.tensor([[[100.0, 0.0, -5.0]]]), "b": torch.tensor([[[0.0, 1.0, -1.0]]])}
    explanation = seewhy.Explanation(
        maps=maps, scores=torch.zeros(1), outputs=None, targets=None, method="m", size=(1, 3), fuse=fuse
    )
    scale = max(max(expected), 1e-9)
    torch.testing.assert_close(explanation.heatmap, torch.tensor([[expected]]) / scale)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_last_layer_with_space_is_chosen_and_says_so(case: Case) -> None:
    """Need 14: the right layer, chosen and explained."""
    explanation = seewhy.explain(case.model(), case.inputs(), 1, method="grad_cam")
    assert explanation.layers == (case.layer,)
    assert explanation.note.startswith(f"{case.layer} (")


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("build", "layer"),
    [
        (models.alexnet, "features"),
        (models.googlenet, "inception5b"),
        (models.inception_v3, "Mixed_7c"),
        (models.efficientnet_b0, "features"),
        (models.regnet_y_400mf, "trunk_output"),
        (models.shufflenet_v2_x0_5, "conv5"),
        (models.mnasnet0_5, "layers"),
        (models.squeezenet1_1, "classifier.2"),
    ],
)
def test_torchvision_classifiers(build, layer: str) -> None:
    """At a size that is not square: a pooling to a fixed 6 x 6, AlexNet's, does not have the input's aspect ratio."""
    torch.manual_seed(0)
    options = {"init_weights": False} if build in (models.googlenet, models.inception_v3) else {}
    model = build(weights=None, **options)
    explanation = seewhy.explain(model, torch.randn(1, 3, 224, 352), 3, method="grad_cam")
    assert explanation.layers == (layer,)
    assert explanation.heatmap.shape == (1, 224, 352)


def test_a_layer_that_the_gradient_does_not_reach_is_passed_over() -> None:
    class Detour(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 4, 3, stride=2)
            self.b = nn.Conv2d(4, 4, 3)
            self.head = nn.Linear(4, 2)

        def forward(self, image: Tensor) -> Tensor:
            a = self.a(image)
            self.b(a)  # a branch whose result is not used
            return self.head(a.mean((-2, -1)))

    explanation = seewhy.explain(Detour(), torch.randn(1, 3, 16, 16), 0, method="grad_cam")
    assert explanation.layers == ("a",)
    assert "of the 1 later ones none is reached" in explanation.note


def test_the_choice_costs_one_forward_once_per_shape() -> None:
    case = BY_NAME["resnet"]
    model = case.model()
    forwards = []
    model.conv1.register_forward_hook(lambda *_: forwards.append(1))
    explainer = seewhy.Explainer(model, method="grad_cam")
    counts = []
    for inputs in (case.inputs(), case.inputs(), torch.randn(1, 3, 96, 96), torch.randn(4, 3, 64, 64)):
        forwards.clear()
        explainer(inputs, 1)
        counts.append(len(forwards))
    assert counts == [3, 1, 2, 1]  # of a batch, once more with an image alone


def test_ten_targets_cost_one_forward_and_ten_tails() -> None:
    case = BY_NAME["resnet"]
    model = case.model()
    explainer, ran = seewhy.Explainer(model, layers="layer4"), []
    explainer(case.inputs())  # how a named layer lies is looked at once
    model.conv1.register_forward_hook(lambda *_: ran.append("conv1"))
    model.fc.register_full_backward_hook(lambda *_: ran.append("fc backward"))
    model.layer3.register_full_backward_hook(lambda *_: ran.append("layer3 backward"))
    explainer(case.inputs(), torch.arange(10).expand(2, 10))
    assert ran == ["conv1"] + ["fc backward"] * 10


def test_inputs_may_be_a_tuple_or_keywords() -> None:
    """Need 5: models with several inputs."""

    class TwoInputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride=2)
            self.head = nn.Linear(4, 2)

        def forward(self, image: Tensor, weight: Tensor, *, shift: Tensor | None = None) -> dict[str, Tensor]:
            x = self.conv(image).mean((-2, -1)) * weight[:, None]
            return {"logits": self.head(x if shift is None else x + shift)}

    model, image, weight = TwoInputs(), torch.randn(2, 3, 16, 16), torch.tensor([1.0, 2.0])
    positional = seewhy.explain(model, (image, weight), 0, method="grad_cam").maps["conv"]
    by_name = seewhy.explain(
        model, {"image": image, "weight": weight, "shift": torch.zeros(4)}, 0, method="grad_cam"
    ).maps["conv"]
    torch.testing.assert_close(positional, by_name)
    torch.testing.assert_close(
        positional[1], 2 * seewhy.explain(model, (image[1:], weight[:1]), 0, method="grad_cam").maps["conv"][0]
    )


def test_a_function_reads_a_layout_that_is_not_recognised() -> None:
    """Tokens (B, N, C) of a 4 x 4 grid: the same map as the convolution they were flattened from."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 4, stride=4)
            self.tokens = nn.Identity()
            self.head = nn.Linear(5, 2)

        def forward(self, image: Tensor) -> Tensor:
            return self.head(self.tokens(self.conv(image).flatten(2).mT).mean(1))

    model, image = Tokens(), torch.randn(2, 3, 16, 16)

    def fold(tokens: Tensor) -> Tensor:
        return tokens.mT.reshape(-1, 5, 4, 4)

    found = seewhy.explain(model, image, 1, layers="tokens", grid=fold).maps["tokens"]
    torch.testing.assert_close(found, seewhy.explain(model, image, 1, layers="conv").maps["conv"])


def test_augmented_views_do_not_change_the_target() -> None:
    """The scores and outputs are those of the image as it came."""
    case = BY_NAME["resnet"]
    model, inputs = case.model(), case.inputs()
    plain, smooth = (
        seewhy.explain(model, inputs, augment_smooth=smoothing, method="grad_cam") for smoothing in (False, True)
    )
    torch.testing.assert_close(plain.outputs, smooth.outputs)
    assert torch.equal(plain.targets.index, smooth.targets.index)
    assert not torch.allclose(plain.maps["layer4"], smooth.maps["layer4"])


def test_a_loaded_model_takes_photographs() -> None:
    loaded = seewhy.load(weights=None)
    photo = Image.new("RGB", (300, 200), "gray")
    explanation = seewhy.explain(loaded, [photo, photo], method="grad_cam")
    assert len(explanation) == 2
    assert explanation.photos is not None
    assert explanation.frames is not None
    x0, y0, x1, y1 = explanation.frames[0]
    assert (x1 - x0, y1 - y0) == pytest.approx((175, 175))  # 224 / 256 of the shorter side
    one = seewhy.explain(loaded, photo, method="grad_cam")
    torch.testing.assert_close(one.maps, explanation[0].maps, rtol=1e-4, atol=1e-6)
    assert one.files is None
    chelsea = seewhy.samples.path("chelsea.png")
    assert seewhy.explain(loaded, [chelsea, str(chelsea)]).files == (str(chelsea), str(chelsea))
    with_label = seewhy.explain(loaded, photo, "espresso", method="grad_cam")
    assert with_label.targets.index.tolist() == [967]


# names, patterns, modules


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("layer4", ["layer4"]),
        ("layer*", ["layer1", "layer2", "layer3", "layer4"]),
        ("layer[34]", ["layer3", "layer4"]),
        ("layer4.*.conv1", ["layer4.0.conv1", "layer4.1.conv1"]),
        ("layer4.**.0", ["layer4.0", "layer4.0.downsample.0"]),
        ("**.downsample", ["layer2.0.downsample", "layer3.0.downsample", "layer4.0.downsample"]),
        (["layer4", "layer1"], ["layer4", "layer1"]),
    ],
)
def test_layers_by_pattern(wanted: object, found: list[str]) -> None:
    assert list(find(models.resnet18(), wanted)) == found


def test_layers_by_module() -> None:
    model = models.resnet18()
    assert find(model, model.layer3[1]) == {"layer3.1": model.layer3[1]}
    assert list(find(model, [model.layer4, "layer1"])) == ["layer4", "layer1"]


# what is refused, and what the message says


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"layers": "layer5"}, LayerError, r"no layer 'layer5'(.|\n)*expected: layer4"),
        ({"layers": []}, LayerError, r"no layer was given"),
        ({"layers": nn.ReLU()}, LayerError, r"not part of this model"),
        ({"layers": 4}, LayerError, r"by name, pattern, module or type(.|\n)*got: 4"),
        ({"method": "grad_cat"}, MethodError, r"no method 'grad_cat'(.|\n)*expected: grad_cam"),
        ({"method": 3}, MethodError, r"by its name"),
        ({"fuse": "median"}, InputError, "'mean', 'max', 'product', 'local_product', 'sum'"),
    ],
)
def test_wrong_options(options: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        seewhy.Explainer(models.resnet18(), **options)


@pytest.mark.parametrize(
    ("inputs", "error", "words"),
    [
        (torch.randn(3, 64, 64), InputError, r"no batch dimension(.|\n)*\(3, 64, 64\)(.|\n)*image\[None\]"),
        ("cat.png", InputTypeError, r"no image among(.|\n)*seewhy.load"),
        ({"x": 3}, InputTypeError, r"no image among"),
        (torch.randn(2, 10), InputTypeError, r"no image among"),
    ],
)
def test_wrong_inputs(inputs: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        seewhy.explain(models.resnet18(), inputs, method="grad_cam")


def test_something_that_is_no_model() -> None:
    with pytest.raises(InputTypeError, match=r"not an nn\.Module"):
        seewhy.explain(lambda image: image, torch.randn(1, 3, 8, 8), method="grad_cam")


def test_a_layer_without_space() -> None:
    with pytest.raises(LayerError, match=r"output of fc does not lie over the input(.|\n)*\(1, 1000\)"):
        seewhy.explain(models.resnet18(), torch.randn(1, 3, 64, 64), 1, layers="fc")


def test_a_layer_of_a_single_place_gives_a_constant_map_and_sinks_no_other() -> None:
    torch.manual_seed(0)
    model, image = models.resnet18(), torch.randn(1, 3, 64, 64)
    with pytest.warns(MapWarning, match="avgpool has a single place"):
        explanation = seewhy.explain(model, image, 1, layers=["layer3", "avgpool"])
    alone = seewhy.explain(model, image, 1, layers="layer3")
    assert explanation.maps["avgpool"].shape == (1, 1, 1)
    torch.testing.assert_close(explanation.maps["layer3"], alone.maps["layer3"])


def test_a_layer_that_does_not_run() -> None:
    model = models.resnet18()
    model.spare = nn.Conv2d(3, 3, 1)
    with pytest.raises(LayerError, match="spare did not run"):
        seewhy.explain(model, torch.randn(1, 3, 64, 64), layers=["layer4", "spare"])


def test_a_model_without_space() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    with pytest.raises(LayerError, match=r"no layer of this model has space(.|\n)*grid="):
        seewhy.explain(model, torch.randn(1, 3, 4, 4), method="grad_cam")


def test_scores_per_pixel_are_not_class_scores() -> None:
    with pytest.raises(OutputError, match=r"per class and place(.|\n)*pass Region"):
        seewhy.explain(
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 3)), torch.randn(1, 3, 16, 16), method="grad_cam"
        )


def test_a_detached_layer() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, image: Tensor) -> Tensor:
            return F.relu(self.conv(image)).mean((-2, -1)).detach()

    with pytest.raises(GradientError, match=r"zero at every layer with space(.|\n)*detach"):
        seewhy.explain(Detached(), torch.randn(1, 3, 16, 16), method="grad_cam")
