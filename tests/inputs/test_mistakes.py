"""What is passed by mistake: the message names it, and the line that it advises works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import seewhy
from seewhy.errors import InputError, InputTypeError
from seewhy.inputs import Inputs
from seewhy.inputs.expected import first_convolution

IMAGES = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
LOADER = DataLoader(TensorDataset(IMAGES, torch.zeros(2)), batch_size=2)


def network(channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    ).eval()


def told(inputs, model: nn.Module | None = None) -> str:
    with pytest.raises((InputError, InputTypeError)) as caught:
        Inputs.of(inputs, model or network())
    return str(caught.value)


def advised(message: str) -> str:
    """The expression after "do:", up to the words that follow it."""
    return message.partition("do: ")[2].removeprefix("for a single image pass ").split(", normalised")[0].split("; ")[0]


@pytest.mark.parametrize(
    "array",
    [
        IMAGES.numpy(),
        IMAGES.double().numpy(),
        IMAGES.movedim(1, -1).numpy(),
        (IMAGES * 255).byte().numpy(),
        (IMAGES * 255).byte().movedim(1, -1).numpy(),
        IMAGES[0].movedim(0, -1).numpy(),
        (IMAGES[0] * 255).byte().numpy(),
    ],
    ids=["BCHW", "double", "BHWC", "uint8", "uint8 BHWC", "HWC", "uint8 CHW"],
)
def test_the_line_for_an_array_gives_what_the_model_takes(array):
    message = told(array)
    assert "a numpy array is not a tensor" in message
    assert f"got: an array of shape {array.shape} and type {array.dtype}" in message
    made = eval(advised(message), {"torch": torch, "image": array, "images": array})
    expected = IMAGES[: len(made)]
    torch.testing.assert_close(made, expected, atol=0 if array.dtype.kind == "f" else 1 / 255, rtol=0)
    assert network()(made).shape == (len(made), 2)


@pytest.mark.parametrize("image", [IMAGES[0], IMAGES[0].movedim(0, -1), (IMAGES[0] * 255).byte().movedim(0, -1)])
def test_the_line_for_an_image_without_a_batch_dimension(image):
    message = told(image)
    assert "no batch dimension" in message
    assert "(B, C, 1, L)" in message  # the other way out
    made = eval(advised(message), {"image": image})
    torch.testing.assert_close(made, IMAGES[:1], atol=1 / 255, rtol=0)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (Image.new("RGB", (8, 8)), ["a PIL image is not a tensor", "preprocess(photo)[None]", "seewhy.load"]),
        ([Image.new("RGB", (8, 8))], ["a PIL image", "list with 0: Image"]),
        ("cat.jpg", ["a file name is not a tensor", "for name in names", "seewhy.load"]),
        (["cat.jpg", "dog.jpg"], ["a file name", "list with 0: str, 1: str"]),
        (Path("cat.jpg"), ["a file name"]),
        (LOADER, ["a DataLoader holds many batches", "for images, labels in loader: explain(model, images)"]),
        (LOADER.dataset, ["a data set holds many images", "image, label = dataset[0]; explain(model, image[None])"]),
        (iter(LOADER), ["an iterator holds many batches", "images = next(iterator)"]),
        (IMAGES.unbind(0).__iter__(), ["an iterator"]),
        ({"pixel_values": [IMAGES[0].numpy()]}, ["a numpy array", "processor(images, return_tensors='pt')"]),
        (torch.zeros(2, 10), ["there is no image among the inputs.", "a tensor of shape (2, 10)"]),
        (torch.zeros(0, 3, 8, 8), ["the batch is empty", "(0, 3, 8, 8)"]),
    ],
)
def test_the_mistake_is_named(inputs, words):
    message = told(inputs)
    assert all(word in message for word in words), message


def test_the_line_for_photographs_works(tmp_path):
    """It is the one for a PIL image and for file names: `Preprocess` makes the input of either."""
    photo = Image.fromarray(np.full((300, 300, 3), 255, np.uint8))
    photo.save(tmp_path / "white.png")
    preprocess = seewhy.models.Preprocess(mean=(0.5,) * 3, std=(0.25,) * 3)
    names = [tmp_path / "white.png", str(tmp_path / "white.png")]
    made = eval(told(names).split("; ")[1], {"torch": torch, "preprocess": preprocess, "names": names})
    assert torch.equal(made, torch.full((2, 3, 224, 224), 2.0))
    assert torch.equal(eval(told(photo).split("; ")[1], {"preprocess": preprocess, "photo": photo}), made[:1])


# what torch raises in the model comes through, with a note


@pytest.mark.parametrize(
    ("images", "channels", "words", "line"),
    [
        (IMAGES.movedim(1, -1), 3, "got: (2, 8, 12, 3), float32 on cpu", "images.movedim(-1, 1)"),
        (IMAGES[:, :1], 3, "expected: (B, 3, H, W)", "images.expand(-1, 3, *images.shape[2:])"),
        (torch.cat([IMAGES, IMAGES[:, :1]], 1), 3, "got: (2, 4, 8, 12)", "images[:, :3]"),
        (IMAGES, 1, "expected: (B, 1, H, W), float32 on cpu, by its first convolution, '0'", "images.mean(1, keep"),
        (IMAGES.half(), 3, "got: (2, 3, 8, 12), float16", "images.to(torch.float32), or model.to(torch.float16)"),
        ((IMAGES * 255).byte(), 3, "got: (2, 3, 8, 12), uint8", "images.float() / 255"),
        (IMAGES.to("meta"), 3, "float32 on meta", "images.to('cpu')"),
        (IMAGES[:, :, None], 3, "got: (2, 3, 1, 8, 12)", "pass 4 dimensions"),
        (torch.rand(2, 5, 8, 8), 3, "got: (2, 5, 8, 8)", "pass 3 channels, not 5"),
    ],
    ids=["HWC", "grey", "RGBA", "colour", "half", "uint8", "device", "volume", "five"],
)
def test_the_error_of_torch_has_a_note(images, channels, words, line):
    model = network(channels)
    with pytest.raises(RuntimeError) as bare:
        model(images)
    with pytest.raises(RuntimeError) as caught:
        Inputs.of(images, model).run(model)
    assert type(caught.value) is type(bare.value)
    assert str(caught.value) == str(bare.value)
    (note,) = caught.value.__notes__
    assert words in note
    assert "do: " + line in note


@pytest.mark.parametrize(
    ("images", "channels", "make"),
    [
        (IMAGES.movedim(1, -1), 3, lambda images: images.movedim(-1, 1)),
        (IMAGES[:, :1], 3, lambda images: images.expand(-1, 3, *images.shape[2:])),
        (torch.cat([IMAGES, IMAGES[:, :1]], 1), 3, lambda images: images[:, :3]),
        (IMAGES, 1, lambda images: images.mean(1, keepdim=True)),
    ],
)
def test_the_line_of_the_note_works(images, channels, make):
    model = network(channels)
    made = make(images)
    assert model(made).shape == (2, 2)
    if channels == 3:
        torch.testing.assert_close(made[:, 0], IMAGES[:, 0])


def test_a_list_for_a_model_of_tensors_has_a_note():
    for images, line in ((list(IMAGES), "torch.stack(images)"), ([IMAGES, torch.zeros(2)], "pass a tuple")):
        with pytest.raises(TypeError) as caught:
            seewhy.explain(network(), images, 1, method="grad_cam")
        assert "the model was given a list" in caught.value.__notes__[0]
        assert line in caught.value.__notes__[0]


class Broken(nn.Module):
    def __init__(self, error: Exception):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.error = error

    def forward(self, images):
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("mine"), ValueError("mine"), KeyError("mine"), KeyboardInterrupt()])
def test_errors_of_other_causes_stay_as_they_are(error):
    for images, noted in ((IMAGES, False), (IMAGES.double(), isinstance(error, RuntimeError | ValueError))):
        error.__notes__ = []
        with pytest.raises(type(error)) as caught:
            Inputs.of(images, nn.Identity()).run(Broken(error))
        assert caught.value is error
        assert bool(error.__notes__) is noted


def test_a_list_is_no_mistake_where_something_else_failed():
    error = RuntimeError("mine")
    with pytest.raises(RuntimeError) as caught:
        Inputs.of(list(IMAGES), nn.Identity()).run(Broken(error))
    assert not hasattr(caught.value, "__notes__")


def test_models_without_a_convolution_tell_type_and_device_only():
    model = nn.Sequential(nn.Flatten(), nn.Linear(288, 2))
    with pytest.raises(RuntimeError) as caught:
        Inputs.of(IMAGES.double(), model).run(model)
    assert caught.value.__notes__ == [
        "seewhy: the images are not what the model takes.\n  got: (2, 3, 8, 12), float64 on cpu\n"
        "  expected: float32 on cpu\n  do: images.to(torch.float32), or model.to(torch.float64)"
    ]
    assert first_convolution(nn.Sequential(nn.LazyConv2d(4, 3), nn.Conv2d(4, 4, 1))) is None


# signals


class Signals(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv1d(2, 4, 5, padding=2)
        self.head = nn.Linear(4, 3)

    def forward(self, signal, scale=1.0):
        return self.head(self.features(signal).relu().mean(2)) * scale


@pytest.mark.parametrize("where", ["tensor", "tuple", "dict"])
def test_signals_have_one_dimension_of_space(where):
    signal = torch.randn(5, 2, 64)
    inputs = {"tensor": signal, "tuple": (signal, 2.0), "dict": {"scale": 2.0, "signal": signal}}[where]
    call = Inputs.of(inputs, Signals())
    assert (call.batch, call.size, call.space, call.signature) == (5, (64,), (64,), (2, 64))
    assert torch.equal(call.image, signal)
    assert torch.equal(call.seen_as(lambda images: images.flip(-1)).image, signal.flip(-1))
    assert call.with_rows(lambda tensor: tensor[:2]).run(Signals()).shape == (2, 3)


def test_a_signal_has_the_map_of_an_image_of_one_row():
    """The same network with convolutions of 1 x 5 on (B, C, 1, L)."""

    class Rows(Signals):
        def forward(self, image):
            features = nn.functional.conv2d(image, self.features.weight[:, :, None], self.features.bias, padding=(0, 2))
            return self.head(features.relu().mean((2, 3)))

    signal = torch.randn(3, 2, 32)
    found = seewhy.explain(Signals(), signal, 1, method="guided_backprop")
    expected = seewhy.explain(Rows(), signal[:, :, None], 1, method="guided_backprop")
    assert found.heatmap.shape == (3, 32)
    assert found.heatmap.std(1).min() > 0.1
    torch.testing.assert_close(found.heatmap, expected.heatmap[:, 0])


@pytest.mark.parametrize("laid_out", ["steps first", "waves"])
def test_signals_that_the_model_lays_out_itself(laid_out):
    """The channels of its first convolution tell how they lie."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Signals()
            if laid_out == "waves":
                self.inner.features = nn.Conv1d(1, 4, 5, padding=2)

        def forward(self, signal):
            return self.inner(signal[:, None] if laid_out == "waves" else signal.mT)

    model = Own()
    signal = torch.randn(3, 2, 32) if laid_out == "steps first" else torch.randn(3, 1, 32)
    expected = seewhy.explain(model.inner, signal, 1, method="guided_backprop").heatmap
    found = seewhy.explain(
        model, signal.mT if laid_out == "steps first" else signal[:, 0], 1, method="guided_backprop"
    ).heatmap
    torch.testing.assert_close(found, expected)
    assert seewhy.explain(model, signal.mT if laid_out == "steps first" else signal[:, 0], 1).heatmap.shape == (3, 32)


def test_waves_and_spectrograms_of_sound_have_no_channels():
    """transformers' models of sound add the channel themselves: (B, L), and (B, time, frequency)."""
    waves = nn.Sequential(nn.Conv1d(1, 2, 3))
    waves.main_input_name = "input_values"
    call = Inputs.of({"input_values": torch.arange(20.0).reshape(2, 10)}, waves)
    assert (call.size, call.axes, call.image.shape, call.signature) == ((10,), ("time",), (2, 1, 10), (1, 10))
    changed = call.with_rows(lambda rows: rows[:1], torch.zeros(1, 1, 10))
    assert changed.kwargs["input_values"].shape == (1, 10)
    turned = call.seen_as(lambda images: images.flip(-1)).kwargs["input_values"]
    assert torch.equal(turned, torch.arange(20.0).reshape(2, 10).flip(-1))
    spectra = nn.Sequential(nn.Conv2d(1, 2, 3))
    spectra.main_input_name = "input_values"
    call = Inputs.of(torch.zeros(2, 12, 8), spectra)
    assert (call.size, call.axes, call.image.shape) == ((12, 8), ("time", "frequency"), (2, 1, 12, 8))


def test_an_image_is_no_signal():
    """Also where the model has a 1-D convolution further inside, over channels say."""
    model = network()
    model.attention = nn.Conv1d(1, 1, 3)
    assert "no batch dimension" in told(IMAGES[0], model)
    assert "no image among the inputs" in told({"ids": torch.zeros(2, 3, 8, dtype=torch.long)}, Signals())
    assert Inputs.of((torch.zeros(2, 4, 6), IMAGES), Signals()).size == (8, 12)


def test_a_wrong_number_of_channels_of_a_signal_has_a_note():
    with pytest.raises(RuntimeError) as caught:
        Inputs.of(torch.randn(5, 64, 2), Signals()).run(Signals())
    assert "expected: (B, 2, L)" in caught.value.__notes__[0]
    assert "do: images.movedim(-1, 1)" in caught.value.__notes__[0]
