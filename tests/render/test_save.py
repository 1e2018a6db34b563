from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.errors import InputError
from seewhy.images.files import written_whole
from seewhy.render import overlay, save

MAPS = [[[-1.0, 0.0], [2.0, 4.0]], [[3.0, 0.0], [0.0, 0.0]]]


@pytest.mark.parametrize("name", ["all.npz", "ALL.NPZ"])
def test_npz_holds_everything(explanation, tmp_path, name):
    made = explanation(MAPS, outputs=torch.tensor([[1.0, 2.0], [3.0, 4.0]]).bfloat16())
    made.maps["layer1.0"] = torch.ones(2, 1, 1)
    assert save(made, tmp_path / name) == tmp_path / name
    assert os.listdir(tmp_path) == [name]
    with np.load(tmp_path / name, allow_pickle=False) as read:
        assert sorted(read.files) == sorted(
            ["heatmap", "scores", "method", "layers", "size", "outputs", "maps/layer4.1", "maps/layer1.0"]
        )
        assert np.array_equal(read["heatmap"], made.heatmap)
        assert read["heatmap"].dtype == np.float32
        assert np.array_equal(read["maps/layer4.1"], np.array(MAPS))
        assert np.array_equal(read["maps/layer1.0"], np.ones((2, 1, 1)))
        assert read["scores"].tolist() == [0.5, 1.5]
        assert str(read["method"]) == "grad_cam"
        assert read["layers"].tolist() == ["layer4.1", "layer1.0"]
        assert read["size"].tolist() == [2, 2]
        assert read["outputs"].tolist() == [[1, 2], [3, 4]]


def test_npz_leaves_out_outputs_that_are_no_tensor(explanation, tmp_path):
    with np.load(save(explanation(MAPS, outputs={"logits": torch.zeros(2, 3)}), tmp_path / "a.npz")) as read:
        assert "outputs" not in read.files


@pytest.mark.parametrize("name", ["heat.npy", "HEAT.NPY"])
def test_npy_holds_the_heatmap(explanation, tmp_path, name):
    read = np.load(save(explanation(MAPS), tmp_path / "new" / "folder" / name))
    assert read.tolist() == [[[0, 0], [0.5, 1]], [[1, 0], [0, 0]]]
    assert read.dtype == np.float32
    assert os.listdir(tmp_path / "new" / "folder") == [name]


def test_png_holds_the_figure_or_the_overlay(explanation, tmp_path):
    made = explanation(MAPS)
    photos = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), np.uint8)
    whole = Image.open(made.save(tmp_path / "figure.png", photos, alpha=0.2))
    assert whole.size[0] > whole.size[1] > 300
    one = Image.open(save(made[1], str(tmp_path / "one.png"), photos[1], what="overlay", alpha=0.2))
    assert np.array_equal(one, overlay(photos[1], made.heatmap[1], alpha=0.2))
    with pytest.raises(InputError, match=r"(?s)2 maps.*explanation\[i\]"):
        save(made, tmp_path / "two.png", photos, what="overlay")
    assert sorted(os.listdir(tmp_path)) == ["figure.png", "one.png"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.jpg", {}, r"'a\.jpg'.*\.png, \.npz or \.npy"),
        ("a", {}, "ending"),
        ("a.npz", {"alpha": 0.5}, "options alpha"),
        ("a.npy", {"what": "overlay"}, "options what"),
        ("a.png", {"what": "movie"}, "'movie'"),
        ("a.png", {"colormap": "nope"}, "colormap"),
    ],
)
def test_refusals_write_nothing(explanation, unchecked, tmp_path, name, options, message):
    with pytest.raises(InputError, match=f"(?s){message}"):
        save(explanation(MAPS), tmp_path / "folder" / name, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("before")

    def write_half() -> None:
        with written_whole(path) as temporary:
            temporary.write_text("half")
            assert path.read_text() == "before"
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert os.listdir(tmp_path) == ["a.txt"]
    assert path.read_text() == "before"


def test_a_failed_save_leaves_nothing(explanation, tmp_path, monkeypatch):
    def fail(file, *_, **__):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        save(explanation(MAPS), tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())


def test_a_whole_write_replaces(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with written_whole(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
        temporary.write_text("first")
        assert not path.exists()
    with written_whole(str(path)) as temporary:
        temporary.write_text("second")
    assert path.read_text() == "second"
    assert os.listdir(path.parent) == ["a.txt"]


def test_files_have_the_usual_permissions(tmp_path):
    """Not the private ones of a temporary file."""
    (tmp_path / "usual").write_text("")
    with written_whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "usual").stat().st_mode
