"""Every method on (B, C, L): a signal shows what a picture of equal columns shows, and planted events are found."""

from __future__ import annotations

import functools
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seewhy
from seewhy.errors import MapWarning
from tests.contracts.zoo import CHEAP, CLASSES

LENGTH, EVENT = 192, 16
OPTIONS = CHEAP | {
    "ss_cam": {"samples": 1, "noise": 0.0},
    "vit_cx": {"noise": 0.0},
    "group_cam": {"groups": 8, "sigma": 2.0, "quantile": 0.0},  # of few places, equal ones move a quantile
    "smooth_grad_cam_plus_plus": {"samples": 1, "noise": 0.0},
}
# their noise and regions are drawn for the shape of the input: other ones for a picture
DRAWN = {"smooth_grad", "smooth_grad_squared", "var_grad", "lime", "kernel_shap", "sobol", "hsic", "caap"}
METHODS = [  # those of attention are below; of boxes a signal has none; rise and occlusion mask other shapes
    name
    for name, found in seewhy.methods.available().items()
    if name not in {"rise", "occlusion", "d_rise", "tam", "eagle"} | DRAWN and not found.attends
]


class Flat(nn.Module):
    """A small network of one or two dimensions; the kernels of the latter see one column at a time."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        convolution = nn.Conv1d if dimensions == 1 else nn.Conv2d

        def sides(length: int, width: int) -> tuple[int, ...]:
            return (length, width)[:dimensions]

        options = {"kernel_size": sides(3, 1), "stride": sides(2, 1), "padding": sides(1, 0)}
        self.body = nn.Sequential(convolution(2, 8, **options), nn.ReLU(), convolution(8, 8, **options), nn.ReLU())
        self.head = nn.Linear(8, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(image).flatten(2).mean(-1))


@pytest.mark.few(14)
@pytest.mark.parametrize("method", METHODS)
def test_a_signal_has_the_heat_of_a_picture_of_equal_columns(method: str) -> None:
    torch.manual_seed(0)
    line, flat = Flat(1).eval(), Flat(2).eval()
    flat.load_state_dict(
        {name: value[..., None] if value.ndim == 3 else value for name, value in line.state_dict().items()}
    )
    signal = torch.randn(1, 2, 48)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MapWarning)
        options = {"method": method, **OPTIONS.get(method, {})}
        classes = torch.tensor([[1, 2]])
        found = seewhy.explain(line, signal, classes, **options).heatmap
        expected = seewhy.explain(flat, signal[..., None].expand(1, 2, 48, 3), classes, **options).heatmap
    assert found.amax() > found.amin()
    torch.testing.assert_close(found[..., None].expand(1, 2, 48, 3), expected, rtol=0, atol=2e-5)


# planted events


def events(count: int, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Noise (B, 1, L), in half of which a burst of either frequency lies; which (B, 2); masks (B, 2, L)."""
    draw = torch.Generator().manual_seed(seed)
    there = torch.rand(count, 2, generator=draw) < 0.5
    # each has a half of the signal to itself, so that neither covers the other; which one changes by chance
    first = torch.randint(2, (count,), generator=draw)
    slots = LENGTH // EVENT // 2
    starts = EVENT * (torch.randint(slots, (count, 2), generator=draw) + slots * torch.stack([first, 1 - first], 1))
    signals = 0.2 * torch.randn(count, 1, LENGTH, generator=draw)
    masks = torch.zeros(count, 2, LENGTH, dtype=torch.bool)
    for number, label in there.nonzero().tolist():
        start = starts[number, label]
        signals[number, 0, start : start + EVENT] += wave(label)
        masks[number, label, start : start + EVENT] = True
    return signals, there, masks


def both(count: int) -> tuple[Tensor, Tensor]:
    """Signals (B, 1, L) in which both lie, and masks (B, 2, L)."""
    signals, there, masks = events(8 * count, seed=7)
    found = there.all(1)
    return signals[found][:count], masks[found][:count]


def wave(label: int) -> Tensor:
    return torch.sin(torch.arange(EVENT) * 2 * torch.pi / (8, 4)[label])


class Matched(nn.Module):
    """Hand-set: each class's wave is looked for in four phases; the mean of what exceeds noise is its score."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv1d(1, 8, EVENT // 2, stride=2, padding=3, bias=False)
        self.head = nn.Linear(8, 2, bias=False)
        phases = [
            torch.roll(wave(label), -turn * (8, 4)[label] // 4)[: EVENT // 2] for label in (0, 1) for turn in range(4)
        ]
        with torch.no_grad():
            self.filters.weight.copy_(torch.stack(phases)[:, None])
            self.head.weight.copy_(torch.tensor([[1.0] * 4 + [0.0] * 4, [0.0] * 4 + [1.0] * 4]))

    def forward(self, signal: Tensor) -> Tensor:
        return self.head((self.filters(signal) - 2.0).relu().mean(2))


class Tokens(nn.Module):
    """A transformer on patches of 8 samples, with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv1d(1, 24, 8, stride=8)
        self.mark = nn.Parameter(torch.randn(1, 1, 24) * 0.1)
        self.places = nn.Parameter(torch.randn(1, 1 + LENGTH // 8, 24) * 0.1)
        block = nn.TransformerEncoderLayer(24, 2, 48, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 2)

    def forward(self, signal: Tensor) -> Tensor:
        tokens = self.patches(signal).mT
        tokens = torch.cat([self.mark.expand(len(tokens), -1, -1), tokens], 1) + self.places
        return self.head(self.norm(self.blocks(tokens))[:, 0])


@functools.cache
def trained() -> Tokens:
    torch.manual_seed(0)
    model = Tokens()
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(150):
        signals, there, _ = events(64, seed=1000 + step)
        optimiser.zero_grad()
        F.binary_cross_entropy_with_logits(model(signals), there.float()).backward()
        optimiser.step()
    return model.eval()


def shares(heatmap: Tensor, masks: Tensor) -> Tensor:
    """The share of each map's heat that lies in its own event, which is a twelfth of the signal."""
    return (heatmap * masks).sum(-1) / heatmap.sum(-1)


@pytest.mark.parametrize(
    ("method", "least"),
    [("grad_cam", 0.3), ("layer_cam", 0.8), ("hires_cam", 0.8), ("ablation_cam", 0.3), ("guided_backprop", 0.7),
     ("occlusion", 0.5), ("rise", 0.1)],
)  # fmt: skip
def test_a_hand_set_filter_bank_looks_at_each_event(method: str, least: float) -> None:
    signals, masks = both(4)
    options = {"rise": {"masks": 400, "cells": 12}, "occlusion": {"window": 16, "stride": 4}}.get(method, {})
    found = seewhy.explain(Matched(), signals, torch.tensor([0, 1]).expand(4, 2), method=method, **options)
    assert found.axes == ("time",)
    assert found.heatmap.shape == (4, 2, LENGTH)
    assert shares(found.heatmap, masks).mean(0).min() > least
    assert shares(found.heatmap, masks.flip(1)).mean(0).max() < least / 2


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("method", "least"),
    [("grad_cam", 0.12), ("le_grad", 0.15), ("attention_relevance", 0.5), ("agcam", 0.4), ("grad_eclip", 0.4),
     ("occlusion", 0.6), ("rise", 0.15)],
)  # fmt: skip
def test_a_transformer_of_patches_looks_at_each_event(method: str, least: float) -> None:
    signals, masks = both(4)
    options = {"rise": {"masks": 400, "cells": 12}, "occlusion": {"window": 8, "stride": 8}}.get(method, {})
    found = seewhy.explain(trained(), signals, torch.tensor([0, 1]).expand(4, 2), method=method, **options)
    assert shares(found.heatmap, masks).mean(0).min() > least


def test_all_metrics_tell_a_map_of_the_event_from_its_opposite() -> None:
    signals, masks = both(4)
    maps = {"event": masks[:, 0].float(), "elsewhere": (~masks[:, 0]).float()}
    found = seewhy.evaluate(
        Matched(), signals, 0, methods=[], maps=maps, metrics=["insertion", "deletion", "road"], of="logit"
    )
    for metric, sign in (("insertion", 1), ("deletion", -1), ("road", 1)):
        assert sign * (found.row("event", metric).mean - found.row("elsewhere", metric).mean) > 0.01


def test_a_region_of_a_signal_has_its_own_heat() -> None:
    """A class per sample, as of beats in an ECG."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(1, 8, 5, 2, 2), nn.ReLU(), nn.Conv1d(8, 8, 5, 2, 2), nn.ReLU(), nn.Upsample(scale_factor=4),
        nn.Conv1d(8, 3, 1),
    )  # fmt: skip
    mask = torch.zeros(LENGTH)
    mask[40:72] = 1
    found = seewhy.explain(model, torch.randn(2, 1, LENGTH), seewhy.Region(1, mask), method="seg_xres_cam")
    heat = found.heatmap
    assert heat[:, 36:76].sum() > 0.99 * heat.sum() > 0
    expected = model(torch.zeros(1, 1, LENGTH))[:, 1, 40:72].mean()
    scored = seewhy.explain(model, torch.zeros(1, 1, LENGTH), seewhy.Region(1, mask), method="seg_xres_cam").scores
    torch.testing.assert_close(scored, expected.detach()[None])


def test_boxes_of_a_signal_are_spans() -> None:
    signals, masks = both(3)
    spans = seewhy.explain(Matched(), signals, 0).boxes()
    for span, mask in zip(spans, masks, strict=True):
        start, end = span[0].tolist()
        assert mask[0, start:end].float().mean() > 0.5


def test_series_are_known_by_the_layer_that_takes_them() -> None:
    """(B, L, C): a recurrent network, whose layer's places are the steps."""

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps, self.head = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, series: Tensor) -> Tensor:
            return self.head(self.steps(series)[0].mean(1))

    torch.manual_seed(0)
    series = torch.randn(2, 40, 3)
    found = seewhy.explain(Steps().eval(), series, 1, method="eigen_cam")
    assert (found.layers, found.heatmap.shape) == (("steps",), (2, 40))
    assert seewhy.explain(Steps().eval(), series, 1, method="rise", masks=20).heatmap.shape == (2, 40)
