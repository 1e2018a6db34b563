"""A model with its preprocessing: inputs of photographs, devices, samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import config
from PIL import Image
from torch import nn

from seewhy import samples
from seewhy.errors import InputError, InputTypeError, ModelError
from seewhy.images.photo import open_photo
from seewhy.models import Loaded, Preprocess
from seewhy.models.loaded import usable

PLAIN = Preprocess(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def test_prepare_gives_inputs_photographs_and_frames():
    loaded = Loaded(nn.Conv2d(3, 1, 1).to(torch.bfloat16), PLAIN, None, "x")
    chelsea = samples.path("chelsea.png")
    inputs, photos, frames = loaded.prepare([chelsea, str(samples.path("coffee.png")), Image.open(chelsea)])
    assert inputs.shape == (3, 3, 224, 224)
    assert inputs.dtype == torch.bfloat16
    assert torch.equal(inputs[0], inputs[2])
    assert torch.equal(inputs[0], PLAIN(photos[0]).to(torch.bfloat16))
    assert [photo.size for photo in photos] == [(451, 300), (600, 400), (451, 300)]
    assert frames[1] == (125, 25, 475, 375)


def test_prepare_takes_a_photograph_in_any_form():
    loaded = Loaded(nn.Identity(), PLAIN, None, "x")
    photo = open_photo(samples.path("chelsea.png"))
    array = np.asarray(photo)
    inputs, _, _ = loaded.prepare([photo, array, array / 255, torch.from_numpy(array.copy()).permute(2, 0, 1)])
    assert all(torch.equal(inputs[0], other) for other in inputs[1:])


def test_a_model_of_grey_levels_is_given_one_channel():
    loaded = Loaded(nn.Conv2d(1, 2, 3), Preprocess(mean=(0.5,), std=(0.25,)), None, "grey")
    photo = open_photo(samples.path("chelsea.png"))
    inputs, photos, frames = loaded.prepare([photo])
    assert torch.equal(inputs[0], loaded.preprocess(photo))
    assert inputs.shape == (1, 1, 224, 224)
    assert photos[0].mode == "RGB"
    assert frames == (Preprocess().frame(photo.size),)


def test_prepare_refuses_what_is_no_photograph(monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # to see what seewhy itself says
    loaded = Loaded(nn.Identity(), PLAIN, None, "x")
    with pytest.raises(InputTypeError, match="int"):
        loaded.prepare([3])
    with pytest.raises(InputError, match="no photographs"):
        loaded.prepare([])


@pytest.mark.parametrize("device", ["nonsense", "meta", "cuda:99"])
def test_a_device_that_cannot_be_used_is_refused(device):
    with pytest.raises(ModelError, match=device):
        usable(device)


def test_a_sample_that_does_not_exist_names_those_that_do():
    with pytest.raises(InputError, match=r"chelsea\.png, coffee\.png"):
        samples.path("dog.png")
    assert isinstance(samples.path("coffee.png"), Path)


def test_a_loaded_model_is_one_line():
    labels = tuple(map(str, range(1000)))
    loaded = Loaded(nn.Sequential(nn.Conv2d(3, 4, 3)), PLAIN, labels, "timm:x")
    assert repr(loaded) == f"Loaded('timm:x', Sequential, 1000 labels, {PLAIN})"
    assert repr(Loaded(nn.ReLU(), PLAIN, None, "y")).startswith("Loaded('y', ReLU, no labels, ")
