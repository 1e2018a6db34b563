"""The table of a model whose every number is known."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

import seewhy

CLOCK = [0.0]  # seconds, as the test lets them pass


class Slow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        CLOCK[0] += 3
        return x * 1


class Known(nn.Module):
    """conv: 3x1x2x2 + 3 = 15 parameters, head: 3x2 + 2 = 8, idle: 2x1 weights that run, but do not matter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.slow, self.relu = nn.Conv2d(1, 3, 2, stride=2), Slow(), nn.ReLU()
        self.idle, self.head = nn.Conv2d(1, 2, 1, bias=False), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        CLOCK[0] += 1
        self.idle(x)
        x = self.relu(self.relu(self.slow(self.conv(x)).abs() + 1))
        return self.head(x.mean((-2, -1)))


def test_every_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: CLOCK[0])
    model = Known()
    found = seewhy.summary(model, torch.rand(2, 1, 8, 8))
    rows = {row.label: row for row in found.rows}
    assert list(rows) == ["idle", "conv", "slow", "relu#0", "relu#1", "head"]
    assert [row.reached for row in found.rows] == [False, True, True, True, True, True]
    assert [row.parameters for row in found.rows] == [2, 15, 0, 0, 0, 8]
    assert rows["conv"].parameter_share == 15 / 25
    assert rows["conv"].shape == (2, 3, 4, 4)
    assert rows["conv"].grid.space == (4, 4)
    assert rows["head"].grid is None
    assert [row.time_share for row in found.rows] == [0, 0, 0.75, 0, 0, 0]
    lines = [line.split() for line in str(found).splitlines()]
    assert lines[0] == ["name", "type", "output", "shape", "grid", "parameters", "time", "reached"]
    assert lines[2][:10] == ["conv", "Conv2d", "2", "x", "3", "x", "4", "x", "4", "4"]
    assert lines[2][12] == "60.0%"
    assert [line[-1] for line in lines[1:]] == ["no", *["yes"] * 5]


def test_the_target_decides_what_is_reached_and_without_one_nothing_is_said() -> None:
    two = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        two[1].weight[1] = 0  # class 1 depends on its bias alone
    image = torch.rand(1, 1, 4, 4)
    assert [row.reached for row in seewhy.summary(two, image, 0).rows] == [True] * 4
    assert [row.reached for row in seewhy.summary(two, image, 1).rows] == [False, True, True, True]
    assert [row.reached for row in seewhy.summary(two[:2], image).rows] == [None, None]


def test_a_notebook_shows_the_table_and_of_a_long_one_both_ends() -> None:
    short = seewhy.summary(nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(3))), torch.randn(1, 4, 8, 8))
    assert repr(short) == str(short)
    deep = seewhy.summary(nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(100))), torch.randn(1, 4, 8, 8))
    shown, whole = repr(deep).splitlines(), str(deep).splitlines()
    assert shown[:31] == whole[:31]
    assert shown[-30:] == whole[-30:]
    assert shown[31:-30] == ["... 40 more: print(summary) shows them all"]
