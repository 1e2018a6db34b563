"""The table of a run: filtered, sorted, as explanations, as pictures, in other libraries."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import seewhy
from seewhy.errors import InputError
from tests.jobs.small import LABELS, PREPROCESS, loaded, photos, picture, run


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("source") / "photos", 18, bad=True)


@pytest.fixture(scope="module")
def table(source, tmp_path_factory):
    return run(source, tmp_path_factory.mktemp("out") / "why").table


def test_rows_are_filtered_and_sorted(table):
    rows = table.to_arrow().to_pylist()
    assert (len(table), table.images, table.errors, table.complete) == (21, 21, 3, True)
    assert table.filter(label="cat", status="ok")["key"].tolist() == [
        row["key"] for row in rows if row["label"] == "cat" and row["status"] == "ok"
    ]
    assert len(table.filter(label=["cat", "dog"])) == 14
    fine = table.filter(status="ok")
    wrong = fine.filter(fine["predicted"] != fine["label"]).sort("probability", descending=True)
    expected = sorted(
        (row for row in rows if row["status"] == "ok" and row["predicted"] != row["label"]),
        key=lambda row: -row["probability"],
    )
    assert wrong["key"].tolist() == [row["key"] for row in expected]
    assert wrong[2:5]["key"].tolist() == [row["key"] for row in expected][2:5]
    assert wrong[::-1]["key"].tolist() == [row["key"] for row in expected][::-1]
    assert table.sort("probability")["key"].tolist()[-3:] == ["cat/cut.png", "dog/empty.png", "owl/words.png"]
    assert len(table.filter(label="yak")) == 0


def test_a_row_is_an_explanation(table):
    one = table.filter(key="dog/004.png")
    explanation = one[0]
    expected = seewhy.explain(loaded(), [str(one.row(0)["path"])])
    assert (explanation.method, explanation.layers, explanation.name()) == ("grad_cam", ("3",), one.row(0)["target"])
    assert explanation.note == expected.note
    torch.testing.assert_close(explanation.heatmap, expected.heatmap, atol=2e-3, rtol=0)
    torch.testing.assert_close(explanation.scores, expected.scores)
    torch.testing.assert_close(explanation.probabilities, expected.probabilities)
    assert [found.files for found in table.filter(label="dog")] == [
        (path,) for path in table.filter(label="dog", status="ok")["path"]
    ]
    with pytest.raises(IndexError):
        one[1]


def test_an_error_is_no_explanation(table):
    with pytest.raises(InputError, match=r"owl/words\.png: could not be explained"):
        table.filter(key="owl/words.png")[0]


def test_an_overlay_lies_where_the_model_looked(table):
    one = table.filter(key="dog/004.png")
    photo = picture(4)
    expected = seewhy.explain(loaded(), photo).overlay()[0]
    drawn = one.overlay(0)
    assert drawn.size == photo.size == (48, 40)
    assert np.abs(np.asarray(drawn, float) - np.asarray(expected, float)).max() <= 6  # the map has 16 bits
    frame = PREPROCESS.frame(photo.size)
    left = np.asarray(drawn)[:, : int(frame[0])]
    assert np.array_equal(left, np.asarray(photo)[:, : int(frame[0])])


def test_other_libraries(table):
    frame = table.to_pandas(["key", "score"])
    assert frame["key"].tolist() == table["key"].tolist()
    assert frame["score"].notna().sum() == 18
    with pytest.raises(InputError, match="no such column"):
        table.to_arrow(["colour"])


def test_overlays_of_some_rows(source, tmp_path):
    table = run(source, tmp_path / "why", overlays="worst:2").table
    worst = table.filter(status="ok").sort("probability")[:2]
    written = sorted(path.relative_to(tmp_path / "why" / "overlays") for path in (tmp_path / "why").rglob("*.jpg"))
    assert [str(path) for path in written] == sorted(
        f"{row['key']}-{row['target']}.jpg" for row in worst.to_arrow().to_pylist()
    )
    times = [path.stat().st_mtime_ns for path in (tmp_path / "why").rglob("*.jpg")]
    table.save_overlays("worst:2")
    assert [path.stat().st_mtime_ns for path in (tmp_path / "why").rglob("*.jpg")] == times
    wrong = table.save_overlays("wrong:1")
    fine = table.filter(status="ok")
    surest = fine.filter(fine["predicted"] != fine["label"]).sort("probability", descending=True).row(0)
    assert [path.name for path in wrong] == [f"{surest['key'].split('/')[1]}-{surest['target']}.jpg"]
    assert Image.open(wrong[0]).size == (48, 40)


def test_photographs_of_a_dataset_come_from_the_dataset(tmp_path):
    def png(number):
        file = io.BytesIO()
        picture(number).save(file, format="PNG")
        return file.getvalue()

    dataset = [{"image": {"bytes": png(number), "path": None}, "label": number % 3} for number in range(11)]
    table = run(dataset, tmp_path / "why", target="top:2").table
    assert len(table) == 22
    with pytest.raises(InputError, match="no paths"):
        table.overlay(0)
    for row in (0, 1, 9, 21):
        assert np.array_equal(np.asarray(table.photo(row, source=dataset)), np.asarray(picture(row // 2)))


def test_a_models_input_is_no_photograph(tmp_path):
    dataset = [(PREPROCESS(picture(number)), 0) for number in range(2)]
    table = run(dataset, tmp_path / "why").table
    with pytest.raises(InputError, match="not a photograph"):
        table.overlay(0, source=dataset)
    assert table[0].overlay([picture(0)], frame=(4, 0, 44, 40))[0].size == (48, 40)


def test_rows_of_a_stream_that_has_just_begun(tmp_path):
    class Gone(Exception):
        pass

    def stop(event):
        if event["event"] == "part":
            raise Gone

    images = DataLoader([(PREPROCESS(picture(number)), number % 3) for number in range(20)], batch_size=4)
    with pytest.raises(Gone):
        run(images, tmp_path / "why", listener=stop)
    table = seewhy.jobs.open(tmp_path / "why")
    assert (len(table), table.complete) == (8, False)
    assert set(table["label"]) == set(LABELS)


def test_where_no_run_has_been(tmp_path):
    with pytest.raises(InputError, match="no run has written here"):
        seewhy.jobs.open(tmp_path)
