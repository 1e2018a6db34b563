"""A small model, small photographs, and tables that are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import nn

import seewhy
from seewhy.models import Loaded, Preprocess

SIZE = 32
PREPROCESS = Preprocess(size=(SIZE, SIZE), resize=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3)
LABELS = ("cat", "dog", "owl")

# the same model as a file, as `seewhy run --model FILE:build` and other processes take it
FILE = """
from tests.jobs.small import PREPROCESS as preprocess, LABELS as labels, net

def build():
    return net()
"""


def net(classes: int = 3) -> nn.Module:
    """Two convolutions and a linear head, with weights that are always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, classes),
        ).eval()


def loaded() -> Loaded:
    """The model with its preprocessing and labels."""
    return Loaded(net(), PREPROCESS, LABELS, "small")


def picture(number: int, size: tuple[int, int] = (40, 48)) -> Image.Image:
    """A photograph of noise, 48 pixels wide and 40 high."""
    levels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def photos(folder: Path, count: int, *, bad: bool = False) -> Path:
    """A folder of PNG photographs in folders by class; with `bad` three more that are none."""
    for number in range(count):
        path = folder / LABELS[number % 3] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    if bad:
        whole = (folder / "cat" / "000.png").read_bytes()
        (folder / "cat" / "cut.png").write_bytes(whole[: len(whole) // 2])
        (folder / "dog" / "empty.png").write_bytes(b"")
        (folder / "owl" / "words.png").write_text("no picture at all")
    return folder


def run(source, out, **options):
    """A run of the small model, in this process."""
    return seewhy.jobs.run(
        source, out, **{"model": loaded(), "batch_size": 4, "part_size": 8, "workers": 0, "device": "cpu", **options}
    )


def content(table) -> pa.Table:
    """A table without the one column that is measured by a clock."""
    found = table.to_arrow()
    return found.drop_columns(["seconds"])


def assert_same(table, other) -> None:
    """Every row and column equal, bit for bit."""
    first, second = content(table), content(other)
    assert first.schema == second.schema
    assert first.num_rows == second.num_rows
    for name in first.column_names:
        assert first[name].combine_chunks().equals(second[name].combine_chunks()), name
