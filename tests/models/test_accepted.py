"""What may be passed as a model, what is said of anything else, and what some models cannot do."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import pytest
import torch
from torch import nn

import seewhy
from seewhy.errors import InputTypeError
from seewhy.models import Limits, Loaded, Preprocess, as_module, limits_of


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 3),
    ).eval()  # fmt: skip


NETWORK = network()
IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*(deprecated|migrate):UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@cache
def exported() -> torch.export.ExportedProgram:
    return torch.export.export(NETWORK, (IMAGES,), dynamic_shapes=({0: torch.export.Dim.AUTO},))


def test_modules_are_taken_as_they_are():
    for model in (NETWORK, torch.compile(NETWORK), nn.DataParallel(NETWORK), torch.jit.script(NETWORK)):
        assert as_module(model) is model
    assert as_module(module := exported().module()) is module
    assert as_module(Loaded(NETWORK, Preprocess(), None, "mine")) is NETWORK


def resnet18():
    return network()


class Pipeline:
    """As transformers' pipelines and others' trainers: callable, with a model among other things."""

    def __init__(self, **held):
        vars(self).update(held)

    def __call__(self, photo):
        return "cat"


@pytest.mark.parametrize(
    ("model", "got", "do"),
    [
        (resnet18, "a function resnet18", "call it: resnet18()"),
        (partial(resnet18), "a function", "if it builds a model, call it; if it calls a model, pass that model"),
        (lambda images: images, "a function <lambda>", "if it builds a model, call it; "),
        (nn.Flatten, "the class Flatten", "Flatten(...)"),
        ("resnet18", "str 'resnet18'", "seewhy.load('timm:resnet18')"),
        ("torchvision:resnet18", "str 'torchvision:resnet18'", "seewhy.load('torchvision:resnet18')"),
        (Path("net.py"), "Path 'net.py'", "seewhy.load('net.py:build')"),
        ("net.pth", "str 'net.pth'", "seewhy.load('path/to/file.py:build', weights='net.pth')"),
        (NETWORK.state_dict(), "a state dict", "model.load_state_dict(weights)"),
        ({"state_dict": NETWORK.state_dict(), "epoch": 3}, "a checkpoint", "load_state_dict(weights['state_dict'])"),
        ({"epoch": 3, "model": NETWORK}, "a dict that holds a model", "pass the model in it: ['model']"),
        ({"epoch": 3}, "dict", "seewhy.load("),
        (NETWORK.forward, "the method forward of a model", "pass the model itself"),
        (Pipeline(model=NETWORK, size=3), "Pipeline, which holds a model", "pass the model in it: .model"),
        (Pipeline(head=NETWORK), "Pipeline, which holds a model", "pass the model in it: .head"),
        (IMAGES, "a tensor of shape (2, 3, 16, 16)", "explain(model, inputs)"),
        (None, "NoneType", 'seewhy.load("timm:resnet50")'),
        (3, "int", "seewhy.load("),
    ],
)
def test_what_is_no_model_is_told_with_what_to_do(model, got, do):
    with pytest.raises(InputTypeError, match=r"the model is not an nn\.Module") as caught:
        as_module(model)
    message = str(caught.value).replace("PosixPath", "Path").replace("WindowsPath", "Path")
    assert f"got: {got}" in message
    assert do in message.partition("do: ")[2]


def test_an_exported_program_names_its_module():
    with pytest.raises(InputTypeError, match=r"got: an exported program(.|\n)*program\.module\(\)"):
        as_module(exported())


def test_a_pipeline_of_transformers_names_its_model():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model = transformers.ViTForImageClassification(config)
    pipe = transformers.pipeline("image-classification", model=model, image_processor=transformers.ViTImageProcessor())
    with pytest.raises(InputTypeError, match=r"ImageClassificationPipeline, which holds a model(.|\n)*\.model"):
        as_module(pipe)
    assert as_module(pipe.model) is model


class YOLO(nn.Module):
    """As ultralytics': a module whose call takes pictures. The network is inside it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def __call__(self, source):
        return self.predict(source)

    def predict(self, source):
        raise AssertionError("nothing is predicted")


class Lightning(nn.Module):
    """A model that predicts too, but is called as any other."""

    def __init__(self):
        super().__init__()
        self.model = NETWORK

    def forward(self, images):
        return self.model(images)

    def predict(self, images):
        return self(images).argmax(1)


def test_an_object_that_predicts_names_the_network_inside():
    with pytest.raises(InputTypeError, match=r"predicts from pictures(.|\n)*got: YOLO(.|\n)*inside it, \.model"):
        as_module(YOLO(NETWORK))
    with pytest.raises(InputTypeError, match="an exported file has no layers"):
        as_module(YOLO("yolo.onnx"))
    own = YOLO(None)
    del own.model  # a call of its own, and no network inside: it is the network
    for model in (own, Lightning(), torch.compile(Lightning())):
        assert as_module(model) is model


# what some models cannot do


def quantised() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(network(), {nn.Linear}, dtype=torch.qint8)


def closed() -> dict[str, nn.Module]:
    script = torch.jit.script(NETWORK)
    return {
        "scripted or traced": script,
        "scripted or traced ": torch.jit.trace(NETWORK, IMAGES),
        "scripted or traced  ": torch.jit.freeze(torch.jit.script(network())),
        "a part of it, is scripted": nn.Sequential(torch.jit.script(network()[:4]), *NETWORK[4:]),
        "exported": exported().module(),
    }


def test_limits_of_graphs_and_of_quantised_operations():
    for what, model in closed().items():
        assert what.strip() in limits_of(model).layers
        assert limits_of(model).gradients == ""
    assert limits_of(quantised()) == Limits("", "the model is quantised: operations such as Linear have no gradient")
    for model in (NETWORK, torch.compile(NETWORK), torch.fx.symbolic_trace(NETWORK), nn.DataParallel(NETWORK)):
        assert limits_of(model) == Limits()


@pytest.mark.few(1)
@pytest.mark.filterwarnings("ignore::seewhy.errors.ReplayWarning")  # int8 activations are scaled by the whole batch
@pytest.mark.parametrize("method", ["rise", "occlusion"])
def test_methods_of_the_input_explain_graphs_and_quantised_models(method):
    """The same map as of the plain model; of int8 weights that of a forward with the same weights."""
    options = {"masks": 16} if method == "rise" else {}
    expected = seewhy.explain(NETWORK, IMAGES, 1, method=method, **options)
    for model in closed().values():
        found = seewhy.explain(model, IMAGES, 1, method=method, **options)
        torch.testing.assert_close(found.heatmap, expected.heatmap, atol=1e-5, rtol=1e-5)
    model = quantised()
    found = seewhy.explain(model, IMAGES, 1, method=method, **options)
    rounded = network()
    with torch.no_grad():
        rounded[6].weight.copy_(model[6].weight().dequantize())
    torch.testing.assert_close(found.scores, rounded(IMAGES)[:, 1], atol=0.01, rtol=0)  # int8 activations: 1 / 127


def test_a_scripted_model_in_train_mode_is_explained_in_eval_mode():
    script = torch.jit.script(nn.Sequential(NETWORK, nn.Dropout(0.9))).train()
    found = seewhy.explain(script, IMAGES, 1, method="occlusion")
    torch.testing.assert_close(found.heatmap, seewhy.explain(NETWORK, IMAGES, 1, method="occlusion").heatmap)
    assert all(module.training for module in script.modules())
    NETWORK.eval()


def test_a_method_without_gradients_explains_a_quantised_model():
    """Eigen-CAM of a convolution before the quantised head: that of the plain model."""
    found, expected = (
        seewhy.explain(model, IMAGES, 1, method="eigen_cam", layers="3") for model in (quantised(), network())
    )
    torch.testing.assert_close(found.heatmap, expected.heatmap)
