"""Sources: which samples they have, in which order, under which keys and labels, and what is in them."""

from __future__ import annotations

import io
import json
import tarfile

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from seewhy.errors import InputError, InputTypeError
from seewhy.jobs.reading import photo_of
from seewhy.jobs.sources import picture_at, source_of
from tests.jobs.small import photos, picture


def png(number):
    file = io.BytesIO()
    picture(number).save(file, format="PNG")
    return file.getvalue()


def all_of(source):
    return source.samples(range(source.count))


def shows(sample, number):
    return np.array_equal(np.asarray(photo_of(sample)), np.asarray(picture(number)))


def test_a_folder(tmp_path):
    photos(tmp_path, 6)
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_bytes(png(0))
    (tmp_path / "why").mkdir()
    (tmp_path / "why" / "overlay.png").write_bytes(png(0))
    source = source_of(tmp_path, out=str(tmp_path / "why"))
    found = all_of(source)
    assert [sample.key for sample in found] == [
        "cat/000.png", "cat/003.png", "dog/001.png", "dog/004.png", "owl/002.png", "owl/005.png",
    ]  # fmt: skip
    assert [sample.label for sample in found] == ["cat", "cat", "dog", "dog", "owl", "owl"]
    assert source.classes == ["cat", "dog", "owl"]
    assert shows(found[3], 4)
    assert found[3].path == str(tmp_path / "dog" / "004.png")
    assert picture_at(found[3].path) == png(4)


def test_the_description_of_a_folder_tells_of_other_files_and_labels(tmp_path):
    described = source_of(photos(tmp_path / "a", 6)).described()
    assert described["samples"] == 6
    (tmp_path / "a" / "cat" / "000.png").rename(tmp_path / "a" / "cat" / "100.png")
    assert source_of(tmp_path / "a").described()["keys"] != described["keys"]


def test_a_pattern(tmp_path):
    photos(tmp_path, 6)
    source = source_of(str(tmp_path / "*" / "00[14].png"))
    assert [(sample.key, sample.label) for sample in all_of(source)] == [("dog/001.png", "dog"), ("dog/004.png", "dog")]


def test_a_list_of_files(tmp_path):
    photos(tmp_path, 2)
    names = [tmp_path / "dog" / "001.png", tmp_path / "gone.png", tmp_path / "dog" / "001.png"]
    first, gone, again = all_of(source_of(names))
    assert shows(first, 1)
    assert gone.error == f"{tmp_path / 'gone.png'}: there is no such file."
    assert again.key == f"{first.key}#2"


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_a_manifest(tmp_path, ending):
    photos(tmp_path, 3)
    table = pa.table(
        {
            "path": ["cat/000.png", str(tmp_path / "dog" / "001.png")],
            "label": ["cat", "dog"],
            "box": ["1 2 30 20", None],
            "camera": [3, 4],
        }
    )
    place = tmp_path / f"list.{ending}"
    if ending == "parquet":
        pq.write_table(table, place)
    else:
        text = table.to_pandas().to_csv(sep="\t" if ending == "tsv" else ",", index=False)
        place.write_text(text)
    source = source_of(place)
    first, second = all_of(source)
    assert (first.key, first.label, first.box, first.more["camera"]) == ("cat/000.png", "cat", (1, 2, 30, 20), 3)
    assert (second.label, second.box, second.more["camera"]) == ("dog", None, 4)
    assert shows(first, 0)
    assert shows(second, 1)
    assert source.columns.names == ["box", "camera"]


def test_a_manifest_without_a_column_of_paths_is_refused(tmp_path):
    (tmp_path / "list.csv").write_text("name,label\na,b\n")
    with pytest.raises(InputError, match="no column names the pictures"):
        source_of(tmp_path / "list.csv")


def test_parquet_with_image_bytes(tmp_path):
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for shard in range(2):
        table = pa.table(
            {
                "image": pa.array([{"bytes": png(4 * shard + row), "path": None} for row in range(4)], struct),
                "label": [0, 1, 0, 1],
            }
        ).replace_schema_metadata({"huggingface": json.dumps(features)})
        pq.write_table(table, tmp_path / f"train-{shard}.parquet", row_group_size=3)
    source = source_of(tmp_path)
    found = all_of(source)
    assert source.classes == ["cat", "dog"]
    assert [sample.label for sample in found] == [0, 1] * 4
    assert len({sample.key for sample in found}) == 8
    assert all(shows(sample, number) for number, sample in enumerate(found))
    assert picture_at(found[6].path) == png(6)


def test_a_dataset_of_hugging_face():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [{"bytes": png(number), "path": None} for number in range(3)], "label": [1, 0, 1]}
    source = source_of(datasets.Dataset.from_dict(rows, features=features))
    found = all_of(source)
    assert source.classes == ["cat", "dog"]
    assert [sample.label for sample in found] == [1, 0, 1]
    assert all(sample.content == png(number) for number, sample in enumerate(found))


def tar(path, samples):
    with tarfile.open(path, "w") as file:
        for name, content in samples:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def test_tars(tmp_path):
    tar(tmp_path / "a.tar", [("x/1.png", png(1)), ("x/1.cls", b"2"), ("x/2.png", png(2)), ("x/2.cls", b"0")])
    tar(tmp_path / "b.tar", [("1.json", b'{"label": 1, "place": "river"}'), ("1.png", png(3))])
    source = source_of(str(tmp_path / "*.tar"))
    found = all_of(source)
    assert [(sample.key, sample.label) for sample in found] == [("a/x/1", 2), ("a/x/2", 0), ("b/1", 1)]
    assert [sample.more["place"] for sample in found] == [None, None, "river"]
    assert all(shows(sample, number) for number, sample in enumerate(found, 1))
    assert picture_at(found[1].path) == png(2)
    assert [sample.key for sample in all_of(source_of(tmp_path / "a.tar"))] == ["x/1", "x/2"]


def test_a_compressed_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass
    with pytest.raises(InputError, match="not compressed"):
        source_of(tmp_path / "a.tar")


def test_other_file_systems():
    memory = fsspec.filesystem("memory")
    for number, label in enumerate(["cat", "dog"]):
        memory.pipe_file(f"/jobs/photos/{label}/{number}.png", png(number))
    memory.pipe_file("/jobs/list.csv", b"path,label\nphotos/cat/0.png,5\n")
    found = all_of(source_of("memory://jobs/photos"))
    assert [(sample.key, sample.label) for sample in found] == [("cat/0.png", "cat"), ("dog/1.png", "dog")]
    assert all(shows(sample, number) for number, sample in enumerate(found))
    assert picture_at(found[1].path) == png(1)
    (listed,) = all_of(source_of("memory://jobs/list.csv"))
    assert (listed.label, listed.content) == (5, png(0))
    assert len(all_of(source_of("memory://jobs/photos/*/1.png"))) == 1


class Pairs(Dataset):
    """Map-style; the sample at 2 cannot be had."""

    classes = ("cat", "dog")

    def __len__(self):
        return 5

    def __getitem__(self, index):
        if index == 2:
            raise ValueError("no such\nrow")
        return torch.full((3, 8, 8), float(index)), index % 2


class Endless(IterableDataset):
    def __iter__(self):
        for number in range(6):
            yield {"image": torch.full((3, 8, 8), float(number)), "label": torch.tensor(number), "key": f"s{number}"}


def test_a_map_style_dataset():
    source = source_of(Pairs())
    found = all_of(source)
    assert [sample.key for sample in found] == ["00000000", "00000001", "00000002", "00000003", "00000004"]
    assert found[2].error == "ValueError: no such row"
    assert (found[3].label, float(found[3].content.max())) == (1, 3.0)
    assert source.classes == ("cat", "dog")


def test_an_iterable_dataset():
    source = source_of(Endless())
    assert source.count is None
    found = list(source.stream())
    assert [(sample.key, sample.label) for sample in found] == [(f"s{number}", number) for number in range(6)]
    assert [sample.key for sample in source.samples([4, 1])] == ["s4", "s1"]


def test_loaders():
    assert source_of(DataLoader(Pairs(), batch_size=2)).count == 5  # its dataset, in which samples can be looked up
    batches = source_of(DataLoader(Endless(), batch_size=4))
    assert [(sample.key, sample.label) for sample in batches.stream()] == [(f"s{n}", n) for n in range(6)]
    with pytest.raises(InputError, match="shuffle"):
        source_of(DataLoader(Pairs(), shuffle=True))


def test_what_is_no_source(tmp_path):
    with pytest.raises(InputError, match="no such place"):
        source_of(tmp_path / "gone")
    with pytest.raises(InputError, match="no pictures"):
        source_of(tmp_path)
    with pytest.raises(InputTypeError, match="no source of pictures"):
        source_of(7)
