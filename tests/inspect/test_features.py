"""Features against the values worked by hand, and that the forward stops where it can."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import seewhy
from seewhy.errors import InputError, LayerError

counts = [0]


class Counts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        counts[0] += 1
        return x


class Swallows(nn.Module):
    """A model that catches every Exception of its parts, and has layers after the interesting one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.late = Counts()
        self.conv.weight = nn.Parameter(torch.tensor([1.0, -2.0]).reshape(2, 1, 1, 1))
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        try:
            x = self.relu(self.conv(x))
            return self.relu(self.late(x) - 1)
        except Exception:
            return self.late(x)


@pytest.fixture
def images() -> Tensor:
    """Five images of 2x2, of which image i holds i, i + 1, i + 2, i + 3: mean i + 1.5."""
    return torch.arange(5.0)[:, None, None, None] + torch.arange(4.0).reshape(1, 1, 2, 2)


def test_values_by_hand_and_nothing_runs_after_the_last_layer(images: Tensor) -> None:
    model = Swallows()
    counts[0] = 0
    found = seewhy.features(model, images, ["conv", "relu"])
    assert counts == [0]
    torch.testing.assert_close(found["conv"], torch.cat([images, -2 * images], 1), rtol=0, atol=0)
    assert torch.equal(found["relu"], torch.cat([images, 0 * images], 1))
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    pooled = seewhy.features(model, images, "conv", pooled=True)["conv"]
    assert pooled.tolist() == [[i + 1.5, -2 * i - 3.0] for i in range(5)]
    assert not pooled.requires_grad
    later = seewhy.features(model, images, "relu#1")
    assert counts == [1]
    assert torch.equal(later["relu#1"][:, :1], (images - 1).relu())
    model(images)
    assert counts == [2]  # the model runs on to its end again


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_a_loader_gives_what_one_batch_gives_and_the_file_holds_it(images: Tensor, tmp_path, ending: str) -> None:
    model, path = Swallows(), tmp_path / "deep" / f"features{ending}"
    loader = DataLoader(TensorDataset(images, torch.arange(5)), batch_size=2)
    found = seewhy.features(model, loader, "conv", path=path)
    assert torch.equal(found["conv"], torch.cat([images, -2 * images], 1))
    read = load_file(path)["conv"] if ending == ".safetensors" else torch.from_numpy(np.load(path)["conv"])
    assert torch.equal(read, found["conv"])
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_progress_bar_counts_the_batches(images: Tensor, capsys: pytest.CaptureFixture[str]) -> None:
    seewhy.features(Swallows(), DataLoader(images, batch_size=2), "conv", progress=True)
    assert "3/3" in capsys.readouterr().err
    seewhy.features(Swallows(), DataLoader(images, batch_size=2), "conv")
    assert capsys.readouterr().err == ""


def test_what_cannot_be_is_an_error(images: Tensor, tmp_path) -> None:
    model = Swallows()
    with pytest.raises(LayerError, match="relu#2 did not run"):
        seewhy.features(model, images, "relu#2")
    with pytest.raises(LayerError, match="no layer"):
        seewhy.features(model, images, "nope")
    with pytest.raises(InputError, match=r"\.npz or \.safetensors"):
        seewhy.features(model, images, "conv", path=tmp_path / "features.csv")
    with pytest.raises(InputError, match="no batches"):
        seewhy.features(model, iter([]), "conv")
    tokens = nn.Sequential(nn.Flatten(2))
    assert seewhy.features(tokens, images, "0")["0"].shape == (5, 1, 4)
    with pytest.raises(LayerError, match="no grid to pool"):
        seewhy.features(tokens, images, "0", pooled=True)
