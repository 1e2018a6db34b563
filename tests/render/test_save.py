from __future__ import annotations

import base64
import dataclasses
import io
import os
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy import Category, Explanation, Region, Similarity
from seewhy.errors import InputError
from seewhy.images.files import written_whole
from seewhy.render import overlay, save


def top(outputs):
    return outputs.amax(1)


MAPS = [[[-1.0, 0.0], [2.0, 4.0]], [[3.0, 0.0], [0.0, 0.0]]]


@pytest.mark.parametrize("name", ["all.npz", "ALL.NPZ"])
def test_npz_holds_everything(explanation, tmp_path, name):
    made = explanation(
        MAPS,
        outputs=torch.tensor([[1.0, 2.0], [3.0, 4.0]]).bfloat16(),
        targets=Category(torch.tensor([1, 0]), "scores"),
        labels=("cat", "dog"),
        frames=((0.0, 1.0, 2.5, 3.0), (0.0, 0.0, 4.0, 4.0)),
        files=("a/猫.jpg", "b.png"),
        probabilities=torch.tensor([0.25, 0.5]),
        note="the last layer",
    )
    made.maps["layer1.0"] = torch.ones(2, 1, 1)
    assert save(made, tmp_path / name, metadata={"model": "mine"}) == tmp_path / name
    assert os.listdir(tmp_path) == [name]
    with np.load(tmp_path / name, allow_pickle=False) as read:
        assert np.array_equal(read["heatmap"], made.heatmap)
        assert read["heatmap"].dtype == np.float32
        assert np.array_equal(read["maps/layer4.1"], np.array(MAPS))
        assert np.array_equal(read["maps/layer1.0"], np.ones((2, 1, 1)))
        assert read["scores"].tolist() == [0.5, 1.5]
        assert str(read["method"]) == "grad_cam"
        assert read["layers"].tolist() == ["layer4.1", "layer1.0"]
        assert read["size"].tolist() == [2, 2]
        assert read["outputs"].tolist() == [[1, 2], [3, 4]]
        assert read["index"].tolist() == [1, 0]
        assert read["label"].tolist() == ["dog", "cat"]
        assert read["labels"].tolist() == ["cat", "dog"]
        assert read["files"].tolist() == ["a/猫.jpg", "b.png"]
        assert read["frames"].tolist() == [[0, 1, 2.5, 3], [0, 0, 4, 4]]
        assert read["probabilities"].tolist() == [0.25, 0.5]
        assert str(read["metadata/model"]) == "mine"


def test_npz_leaves_out_what_is_not_known(explanation, tmp_path):
    with np.load(save(explanation(MAPS, outputs={"logits": torch.zeros(2, 3)}), tmp_path / "a.npz")) as read:
        assert not {"outputs", "index", "labels", "files", "frames", "probabilities"} & {*read.files}
        assert read["label"].tolist() == ["", ""]


def test_an_explanation_is_read_back(explanation, tmp_path):
    """Everything but the photographs, and the picture drawn on them is the same."""
    made = explanation(
        torch.rand(2, 3, 4, 4),
        several=True,
        outputs=torch.rand(2, 5),
        targets=Category(torch.tensor([[0, 1, 2], [4, 3, 2]]), "scores"),
        labels=("a", "b", "c", "d", "e"),
        frames=((1.0, 0.0, 5.0, 4.0), (0.0, 0.0, 4.0, 4.0)),
        extents=((1.0, 0.5), (1.0, 1.0)),
        files=("x.png", "y.png"),
        probabilities=torch.rand(2, 3),
        fuse="max",
        note="the last layer",
    )
    made.maps["layer1.0"] = torch.rand(2, 3, 2, 2)
    read = Explanation.load(made.save(tmp_path / "a.npz"))
    for field in dataclasses.fields(Explanation):
        before, after = getattr(made, field.name), getattr(read, field.name)
        if field.name == "maps":
            assert list(before) == list(after)
            assert all(torch.equal(before[layer], after[layer]) for layer in before)
        elif field.name == "targets":
            assert type(after) is Category
            assert after.kind == "scores"
            assert torch.equal(before.index, after.index)
        elif isinstance(before, torch.Tensor):
            assert torch.equal(before, after)
        else:
            assert before == after, field.name
    assert torch.equal(made.heatmap, read.heatmap)
    photos = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), np.uint8)
    assert made.overlay(photos) == read.overlay(photos)
    titles = [axes.get_title("left") for axes in read.figure().axes]
    assert titles == [axes.get_title("left") for axes in made.figure().axes]


@pytest.mark.parametrize(
    ("targets", "name", "index"),
    [
        (Similarity(torch.ones(2, 3), prompt="a cat"), "a cat", None),
        (Region(torch.tensor([2, 0]), None), "c", [2, 0]),
        (top, rf"top (test_save.py, line {top.__code__.co_firstlineno})", None),
        (None, "", None),
    ],
)
def test_of_other_targets_what_they_are_about_is_read_back(explanation, tmp_path, targets, name, index):
    made = explanation(MAPS, targets=targets, labels=("a", "b", "c"))
    read = Explanation.load(made.save(tmp_path / "a.npz"))
    assert read.name(0) == made.name(0) == name
    assert (None if read.index is None else read.index.tolist()) == index
    again = Explanation.load(read.save(tmp_path / "b.npz"))
    assert again.name(0) == name


def test_what_is_no_explanation_is_told(tmp_path):
    np.savez(tmp_path / "other.npz", heatmap=np.zeros(3))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").touch()
    np.save(tmp_path / "pickle.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "pickle.npy").rename(tmp_path / "pickle.npz")
    for name, words in (
        ("other", "no explanation that this version wrote"),
        ("text", "is no .npz file"),
        ("empty", "is no .npz file"),
        ("pickle", "is no .npz file"),
        ("missing", "there is no such file"),
    ):
        with pytest.raises(InputError, match=rf"{name}\.npz: .*{words}"):
            Explanation.load(tmp_path / f"{name}.npz")


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


@pytest.mark.parametrize("what", ["figure", "overlay"])
@pytest.mark.parametrize("ending", ["jpg", "JPEG", "pdf", "svg", "png"])
def test_pictures_are_written_in_every_form(explanation, tmp_path, what, ending):
    photo = np.full((60, 80, 3), 100, np.uint8)
    path = explanation(MAPS[:1]).save(tmp_path / f"a.{ending}", photo, what=what)
    start = path.read_bytes()[:200]
    assert {
        "jpg": start.startswith(b"\xff\xd8"),
        "jpeg": start.startswith(b"\xff\xd8"),
        "pdf": start.startswith(b"%PDF"),
        "svg": b"<svg" in path.read_bytes(),
        "png": start.startswith(b"\x89PNG"),
    }[ending.lower()]
    if what == "overlay" and ending == "svg":
        root = ElementTree.fromstring(path.read_text())
        assert (root.get("width"), root.get("height")) == ("80", "60")
        data = base64.b64decode(root[0].get("href").partition(",")[2])
        assert np.array_equal(Image.open(io.BytesIO(data)), overlay(photo, explanation(MAPS[:1]).heatmap[0]))


def test_metadata_are_kept_in_pictures(explanation, tmp_path):
    made = explanation(MAPS[:1])
    photo = np.zeros((4, 4, 3), np.uint8)
    for what in ("figure", "overlay"):
        path = made.save(tmp_path / f"{what}.png", photo, what=what, metadata={"model": "mine"})
        assert Image.open(path).text["model"] == "mine"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.bmp", {}, r"'a\.bmp'.*\.png, \.jpg, .*\.npz, \.npy"),
        ("a.jpg", {"metadata": {"model": "mine"}}, r"\.jpg file takes no metadata.*model"),
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
