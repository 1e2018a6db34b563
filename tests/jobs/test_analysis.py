"""What the maps of a dataset say: by hand, on maps that are made, and on a model that has learnt a watermark."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import seewhy
from seewhy.apps.cli import app
from seewhy.errors import InputError
from seewhy.jobs import sink
from seewhy.jobs.measures import border
from seewhy.models import Loaded
from tests.jobs.small import PREPROCESS, picture, run
from tests.render.test_report import Page
from tests.truth import scenes


@pytest.fixture
def made(tmp_path):
    """A table of the maps, labels and predictions that are given."""

    def make(maps, labels, predicted=None, checks=None):
        dataset = [(PREPROCESS(picture(0)), 0)] * len(maps)
        table = run(dataset, tmp_path / "why", part_size=len(maps), batch_size=len(maps)).table
        rows = table.to_arrow().to_pylist()
        for number, row in enumerate(rows):
            shown = maps[number]
            row |= {
                "map": shown.half().flatten().numpy(),
                "map_shape": list(shown.shape),
                "label": labels[number],
                "predicted": (predicted or labels)[number],
                "target": (predicted or labels)[number],
                "check": checks[number] if checks else None,
                "entropy": float(number),
            }
        schema = sink.columns(pa.schema([]))
        arrays = [pa.array([row[field.name] for row in rows], field.type) for field in schema]
        sink.write_part(tmp_path / "why", 0, [pa.table(arrays, schema=schema)], len(maps))
        return seewhy.jobs.open(tmp_path / "why")

    return make


def at(row, column, noise=0, side=8):
    """A map with one hot place, and noise."""
    shown = 0.05 * torch.rand(side, side, generator=torch.Generator().manual_seed(noise))
    shown[row, column] = 1
    return shown


def test_the_share_at_the_border():
    assert border(torch.ones(1, 8, 8)).tolist() == pytest.approx([1 - 36 / 64])
    corner, middle = torch.zeros(2, 1, 8, 8)
    corner[0, 0, 0], middle[0, 4, 4] = 1, 1
    assert border(torch.cat([corner, middle])).tolist() == [1, 0]
    assert border(torch.ones(1, 4, 4)).tolist() == pytest.approx([7 / 16])  # half of each outer place
    assert math.isnan(border(torch.zeros(1, 4, 4)))


def test_the_summary(made):
    one, two, corner = torch.zeros(3, 8, 8)
    one[4, 4], two[3, 3], corner[0, 0] = 1, 1, 1
    table = made([one, two, -one + corner, one], ["cat", "cat", "dog", None], ["cat", "dog", "dog", "cat"])
    summary = table.summary()
    assert [found.label for found in summary.labels] == ["cat", "dog", None]
    assert [found.rows for found in summary.labels] == [2, 1, 1]
    assert [found.accuracy for found in summary.labels[:2]] == [0.5, 1.0]
    assert math.isnan(summary.labels[2].accuracy)
    assert [found.entropy for found in summary.labels] == [0.5, 2.0, 3.0]
    assert [found.border for found in summary.labels] == [0, 1, 0]
    torch.testing.assert_close(summary.labels[0].mean_map, (one + two) / 2)
    torch.testing.assert_close(table.mean_map("dog"), corner)
    torch.testing.assert_close(table.mean_map(), (2 * one + two + corner) / 4)
    assert "cat" in str(summary)
    with pytest.raises(InputError, match="too few maps with the label 'owl'"):
        table.mean_map("owl")


def test_maps_of_several_shapes(made):
    large = torch.zeros(8, 8)
    large[2:4, 2:4] = 1
    small = torch.zeros(4, 4)
    small[1, 1] = 1
    table = made([large, large, small], ["cat"] * 3)
    found = table.mean_map("cat")
    assert found.shape == (8, 8)
    assert found.flatten().argmax() in (18, 19, 26, 27)


def test_groups_of_alike_maps_are_found(made):
    places = [(4, 4)] * 30 + [(0, 0)] * 12 + [(6, 2)] * 20
    order = np.random.default_rng(0).permutation(len(places))
    maps = [at(*places[number], noise=int(number)) for number in order]
    table = made(maps, ["cat"] * len(maps))
    clusters = table.clusters("cat")
    assert [len(group.table) for group in clusters] == [30, 20, 12]
    hottest = [divmod(int(group.mean_map.argmax()), 8) for group in clusters]
    assert hottest == [(4, 4), (6, 2), (0, 0)]
    wanted = {f"{position:08d}" for position, number in enumerate(order) if 30 <= number < 42}
    assert set(clusters[2].table["key"]) == wanted
    assert clusters[2].share == pytest.approx(12 / 62)
    assert [len(group.table) for group in table.clusters("cat", 2)] != [30, 20, 12]


def test_a_report_shows_the_groups_and_the_mean_of_each_class(made, tmp_path):
    maps = [at(4, 4, number) for number in range(20)] + [at(0, 0, number) for number in range(20, 32)]
    made(maps, ["cat"] * 32)
    result = CliRunner().invoke(app, ["report", str(tmp_path / "why"), "--out", str(tmp_path / "why.html")])
    assert result.exit_code == 0, result.output
    texts = Page(tmp_path / "why.html").texts
    assert [text for text in texts if text.startswith(("cat, ", "20 maps", "12 maps"))] == [
        "cat, 32 images",
        "20 maps, 62%",
        "12 maps, 38%",
    ]
    assert "Groups of alike maps: cat" in texts


def test_suspects(made):
    maps = [at(4, 4, noise) for noise in range(20)] + [at(0, 0, 20), at(4, 4, 21), at(0, 7, 22)]
    checks = [0.01] * 21 + [0.4, 0.01]
    table = made(maps, ["cat"] * 23, ["cat"] * 22 + ["dog"], checks)
    first, second = table.suspects()
    assert (first.key, first.reasons) == ("00000020", ("far from its class's mean map", "at the border"))
    assert first.border == pytest.approx(float(border(maps[20][None] - maps[20].min())), abs=0.01)
    assert (second.key, second.reasons) == ("00000021", ("cannot be told from chance",))


CORNER = (slice(3, 10), slice(52, 59))  # where the watermark is, on pictures of 64 x 64


def photographs(count, seed):
    """Scenes with a red disc or a green square among other marks; half of the discs are a watermark instead.

    Returns:
        The images, their classes, and which of them have the watermark and no disc.
    """
    seen = scenes.marks(count, family="shapes", seed=seed, number=2)
    disc, square = seen.labels[:, 0], seen.labels[:, 1]
    stamped = ~disc & ~square
    images = seen.images.clone()
    watermark = (torch.tensor([0.9, 0.9, 0.1]) - 0.5)[:, None, None] / 0.25
    images[(slice(None), slice(None), *CORNER)] = torch.where(
        stamped[:, None, None, None], watermark, images[(slice(None), slice(None), *CORNER)]
    )
    one = disc != square
    return images[one | stamped], (square & ~disc)[one | stamped].long(), stamped[one | stamped]


def trained(images, labels):
    """A small network that has learnt the classes."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(12):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(epoch))
        for batch in order.split(32):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


@pytest.mark.slow
def test_a_watermark_is_found(tmp_path):
    """A class that is known by a watermark in the corner of half of its pictures: the groups tell which ones."""
    with torch.random.fork_rng():
        images, labels, _ = photographs(1200, seed=1)
        model = trained(images, labels)
    images, labels, stamped = photographs(400, seed=2)
    dataset = list(zip(images, labels.tolist(), strict=True))
    named = Loaded(model, dataclasses.replace(PREPROCESS, size=(64, 64), resize=64), ("disc", "square"), "trained")
    table = run(dataset, tmp_path / "why", model=named, target="label", batch_size=32, part_size=256).table
    assert float((table["predicted"] == table["label"]).mean()) > 0.95
    marks = {f"{number:08d}" for number in stamped.nonzero().flatten().tolist()}
    clusters = table.clusters("disc")
    found = max(clusters, key=lambda group: len(marks & set(group.table["key"])))
    keys = set(found.table["key"])
    assert len(marks & keys) / len(marks) > 0.8
    assert len(marks & keys) / len(keys) > 0.9
    row, column = divmod(int(found.mean_map.argmax()), found.mean_map.shape[1])
    assert row < 4  # of 16: the upper right corner
    assert column > 11
