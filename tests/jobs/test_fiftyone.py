"""The table as a dataset of FiftyOne.

FiftyOne brings a database and is not installed for tests: `fiftyone` here is a stand-in with the signatures of the
classes that are used (fiftyone/core/labels.py, sample.py and dataset.py), and refuses anything else. FiftyOne 1.22.1
itself, with mongomock for its database, made the dataset of the first test with all its fields.
"""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from seewhy.errors import InputError, MissingExtra
from tests.jobs.small import LABELS, photos, run


class Label:
    """A document with some fields, and any others by keyword: `DynamicEmbeddedDocument`."""

    def __init__(self, **fields):
        vars(self).update(fields)


class Classification(Label):
    def __init__(self, label=None, confidence=None, logits=None):
        super().__init__(label=label, confidence=confidence, logits=logits)


class Detection(Label):
    def __init__(self, label=None, bounding_box=None, mask=None, confidence=None, index=None):
        super().__init__(label=label, bounding_box=bounding_box)


class Detections(Label):
    def __init__(self, detections=None):
        super().__init__(detections=detections)


class Heatmap(Label):
    def __init__(self, map=None, map_path=None, range=None, **more):  # noqa: A002
        assert map.ndim == 2
        super().__init__(map=map, range=range, **more)


class Sample:
    def __init__(self, filepath, tags=None, metadata=None, **fields):
        self.filepath, self.tags, self.fields = filepath, tags, fields

    def __setitem__(self, name, value):
        assert name.isidentifier()
        self.fields[name] = value

    def __getitem__(self, name):
        return self.fields[name]


class Dataset:
    def __init__(self, name=None, persistent=False, overwrite=False):
        self.name, self.persistent, self.samples = name, persistent, []

    def add_samples(self, samples, dynamic=False, validate=True):
        self.samples += samples


@pytest.fixture
def fiftyone(monkeypatch):
    module = ModuleType("fiftyone")
    vars(module).update(
        {kind.__name__: kind for kind in (Classification, Detection, Detections, Heatmap, Sample, Dataset)}
    )
    monkeypatch.setitem(sys.modules, "fiftyone", module)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    source = photos(tmp_path_factory.mktemp("source") / "photos", 6, bad=True)
    return run(source, tmp_path_factory.mktemp("out") / "why", target="top:2").table


def test_each_picture_is_a_sample(fiftyone, table):
    made = table.to_fiftyone("why", persistent=True)
    assert (made.name, made.persistent) == ("why", True)
    keys = list(dict.fromkeys(table["key"].tolist()))
    assert [sample["key"] for sample in made.samples] == keys
    assert len(keys) == 9
    for sample, key in zip(made.samples, keys, strict=True):
        rows = table.filter(key=key).to_arrow().to_pylist()
        assert sample.filepath == rows[0]["path"]
        assert sample.tags == [rows[0]["status"]]
        assert sample["ground_truth"].label == rows[0]["label"]
        if rows[0]["status"] == "error":
            assert sample["error"] == rows[0]["error"]
            assert not {"prediction", "heatmap"} & sample.fields.keys()
            continue
        assert sample["prediction"].label == rows[0]["predicted"] in LABELS
        assert sample["prediction"].confidence == pytest.approx(rows[0]["probability"])
        for row, suffix in zip(rows, ("", "_2"), strict=True):
            assert sample[f"heatmap{suffix}"].target == row["target"]
            assert sample[f"heatmap{suffix}"].score == pytest.approx(row["score"])
            assert [found.label for found in sample[f"hot{suffix}"].detections] == [row["target"]] * len(row["boxes"])


def test_a_heatmap_lies_where_the_model_looked(fiftyone, table):
    """Photographs 48 wide and 40 high, of which the model sees the middle 40: 4 on either side are 0."""
    sample = table.filter(key="dog/001.png").to_fiftyone().samples[0]
    heat = sample["heatmap"]
    assert heat.map.shape == Image.open(sample.filepath).size[::-1] == (40, 48)
    assert (heat.map.dtype, heat.range) == (np.uint8, [0, 255])
    assert not heat.map[:, :4].any()
    assert not heat.map[:, 44:].any()
    assert heat.map.max() > 200
    row = table.filter(key="dog/001.png").row(0)
    x0, y0, x1, y1 = row["boxes"][0]
    left, top, width, height = sample["hot"].detections[0].bounding_box
    assert [left * 48, top * 40, (left + width) * 48, (top + height) * 40] == pytest.approx([x0, y0, x1, y1])
    outside = heat.map.astype(float).sum() - sum(
        heat.map[y0:y1, x0:x1].astype(float).sum() for x0, y0, x1, y1 in row["boxes"]
    )
    assert outside < heat.map.sum() / 2


def test_pictures_that_are_no_files_are_refused(fiftyone, tmp_path):
    source = photos(tmp_path / "photos", 3)
    table = run(source, tmp_path / "why").table
    (source / "cat" / "000.png").unlink()
    with pytest.raises(InputError, match=r"shows pictures that are files on this machine(.|\n)*cat/000\.png"):
        table.to_fiftyone()


def test_without_fiftyone_the_line_that_installs_it_is_told(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(MissingExtra, match=r"fiftyone is not installed\.\n  do: pip install fiftyone"):
        table.to_fiftyone()
