"""Exported programs against the library, on new images and other batch sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

import seewhy
from seewhy.errors import InputError, MethodError, ModelError, TargetError
from seewhy.images.preprocess import Preprocess
from seewhy.models import Loaded
from seewhy.models.fingerprint import weights_hash

LARGEST = 1e-4  # of the largest value


def images(count: int, side: int = 64) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(count))


def vit() -> nn.Module:
    torch.manual_seed(0)
    model = models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=10)
    nn.init.normal_(model.heads[0].weight)
    return model


def convnext() -> nn.Module:
    torch.manual_seed(0)
    return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=10)


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return models.resnet18(num_classes=10)


def assert_alike(path: Path, model: nn.Module, side: int, method: str, target=None, classes=None) -> None:
    program = seewhy.export.load(path)
    for count in (1, 3):
        given = images(count, side)
        asked = None if classes is None else classes[:count]
        found, expected = program(given, asked), seewhy.explain(model, given, target or asked, method=method)
        assert found.layers == expected.layers
        assert expected.name(0).startswith(found.name(0))  # a program knows the class, not what it is set against
        torch.testing.assert_close(found.heatmap, expected.heatmap, rtol=0, atol=LARGEST)
        given_classes = None if asked is None else torch.tensor(asked)
        torch.testing.assert_close(program.run(given, given_classes)["heatmap"], expected.heatmap, rtol=0, atol=LARGEST)
        for own, theirs in (
            (found.scores, expected.scores),
            *zip(found.maps.values(), expected.maps.values(), strict=True),
        ):
            assert float((own - theirs).abs().max()) <= LARGEST * float(theirs.abs().max())


def test_a_residual_network_in_onnx_of_classes_that_are_handed_in(tmp_path: Path) -> None:
    model = resnet().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = seewhy.export(model, images(1), tmp_path / "model.onnx", target="input")
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [found.name for found in tmp_path.iterdir()] == ["model.onnx"]
    assert_alike(path, model, 64, "grad_cam", classes=[3, 7, 1])
    program = seewhy.export.load(path)
    with pytest.raises(TargetError, match="takes the classes"):
        program(images(2))
    with pytest.raises(InputError, match="does not take these images"):
        program(images(2, 32), [0, 1])


@pytest.mark.slow
def test_a_vision_transformer_as_a_torch_program(tmp_path: Path) -> None:
    model = vit()
    path = seewhy.export(model, images(2, 32), tmp_path / "model.pt2", method="le_grad", format="torch")
    assert_alike(path, model, 32, "le_grad")
    with pytest.raises(TargetError, match="its own target"):
        seewhy.export.load(path)(images(1, 32), 3)


@pytest.mark.slow
def test_photographs_labels_and_what_the_file_says(tmp_path: Path) -> None:
    """With a fixed batch, of a network whose channels lie last."""
    labels = tuple(f"kind {number}" for number in range(10))
    loaded = Loaded(convnext().eval(), Preprocess(size=(32, 32), resize=36), labels, "mine")
    photo = Image.effect_noise((60, 50), 80).convert("RGB")
    path = seewhy.export(loaded, photo, tmp_path / "m.onnx", method="layer_cam", target="kind 4", dynamic_batch=False)
    program = seewhy.export.load(path)
    found, expected = program(photo), seewhy.explain(loaded, photo, "kind 4", method="layer_cam")
    torch.testing.assert_close(found.heatmap, expected.heatmap, rtol=0, atol=LARGEST)
    assert found.name() == "kind 4"
    assert found.frames == expected.frames
    assert found.overlay()[0].size == (60, 50)
    torch.testing.assert_close(found.probabilities, expected.probabilities)
    card = program.card
    assert (card.model, card.method, card.batch, card.size) == ("mine", "layer_cam", 1, (32, 32))
    assert card.preprocess == loaded.preprocess
    assert card.labels == labels
    assert card.versions["seewhy"] == seewhy.__version__
    other = convnext()
    assert card.weights == weights_hash(other)
    with torch.no_grad():
        next(other.parameters())[0] += 1
    assert card.weights != weights_hash(other)
    with pytest.raises(InputError, match="expected: a tensor"):
        program(images(2, 32))
    assert 0 < float(seewhy.metrics.sparseness(found.heatmap)) < 1


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"method": "rise"}, MethodError, "runs the model again"),
        ({"method": "random_cam"}, MethodError, "draws random numbers"),
        ({"method": "caap"}, MethodError, "on other images"),
        ({"target": [1, 2]}, TargetError, "asks the same"),
        ({"target": seewhy.Contrast(None)}, TargetError, "asks the same"),
        ({"format": "torch"}, InputError, "ending"),
        ({"format": "tflite"}, InputError, "unknown format"),
    ],
)
def test_what_cannot_be_a_program_is_refused_and_nothing_written(tmp_path: Path, options, error, says) -> None:
    with pytest.raises(error, match=says):
        seewhy.export(vit(), images(2, 32), tmp_path / "model.onnx", **options)
    assert list(tmp_path.iterdir()) == []


class Special(nn.Module):
    """With an operation that ONNX does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, 2)
        self.head = nn.Linear(4, 5)

    def forward(self, given: Tensor) -> Tensor:
        return self.head(torch.special.bessel_j0(self.features(given).relu()).mean((2, 3)))


class Deciding(Special):
    """Whose forward depends on values."""

    def forward(self, given: Tensor) -> Tensor:
        features = self.features(given).relu()
        return self.head((features * 2 if bool(features.mean() > 0) else features).mean((2, 3)))


def test_an_operation_that_onnx_does_not_have_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("what stood here")
    with pytest.raises(ModelError, match="bessel_j0 has no form in ONNX"):
        seewhy.export(Special(), images(2, 16), path, method="lafam", layers="features", dynamic_batch=False)
    assert path.read_text() == "what stood here"
    assert [found.name for found in tmp_path.iterdir()] == ["model.onnx"]


def test_a_forward_that_depends_on_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="depends on values"):
        seewhy.export(Deciding(), images(2, 16), tmp_path / "model.onnx", layers="features")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    for name in ("model.onnx", "model.pt2"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(InputError, match="cannot read it"):
            seewhy.export.load(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        seewhy.export.load(tmp_path / "missing.onnx")


METHODS = [
    "cam", "grad_cam", "hires_cam", "grad_cam_elementwise", "grad_cam_plus_plus", "x_grad_cam", "refine_cam",
    "finer_cam", "lafam", "fem", "eigen_cam", "shapley_cam", "recipro_cam",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_a_layer_in_onnx(tmp_path: Path, method: str) -> None:
    model = resnet()
    assert_alike(seewhy.export(model, images(2), tmp_path / "m.onnx", method=method), model, 64, method)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grad_cam", "attention_relevance", "le_grad"])
def test_a_vision_transformer_in_onnx(tmp_path: Path, method: str) -> None:
    model = vit()
    assert_alike(seewhy.export(model, images(2, 32), tmp_path / "m.onnx", method=method), model, 32, method)


def deeplab() -> nn.Module:
    return models.segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)


def clip_tower() -> nn.Module:
    import open_clip

    return nn.Sequential(open_clip.create_model("RN50", pretrained=None).visual, nn.Linear(1024, 7))


MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet50": (models.resnet50, 64),
    "mobilenet_v2": (models.mobilenet_v2, 64),
    "mobilenet_v3": (models.mobilenet_v3_small, 64),
    "efficientnet": (models.efficientnet_b0, 64),
    "convnext": (models.convnext_tiny, 64),
    "swin": (models.swin_t, 64),
    "clip": (clip_tower, 224),
    "default": (lambda: seewhy.load().module, 224),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_model_in_onnx(tmp_path: Path, name: str) -> None:
    make, side = MODELS[name]
    torch.manual_seed(0)
    model = make()
    assert_alike(seewhy.export(model, images(2, side), tmp_path / "m.onnx"), model, side, "grad_cam")


@pytest.mark.slow
def test_early_layers_of_a_network_with_dead_channels_in_onnx(tmp_path: Path) -> None:
    """Channels of ReLU6 that are zero everywhere lie at its bound: no gradient comes from there."""
    torch.manual_seed(0)
    model = models.mobilenet_v2(num_classes=10)
    path = seewhy.export(model, images(2), tmp_path / "m.onnx", method="refine_cam")
    assert_alike(path, model, 64, "refine_cam")


@pytest.mark.slow
def test_a_vision_transformer_of_full_size_in_onnx(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = models.vit_b_16()
    nn.init.normal_(model.heads[0].weight)
    assert_alike(seewhy.export(model, images(1, 224), tmp_path / "m.onnx"), model, 224, "grad_cam")


@pytest.mark.slow
def test_a_segmenter_in_onnx(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, region = deeplab(), seewhy.Region(2, torch.ones(64, 64))
    path = seewhy.export(model, images(2), tmp_path / "m.onnx", target=region)
    assert_alike(path, model, 64, "grad_cam", target=region)
    assert "outputs.out" in seewhy.export.load(path).card.names
