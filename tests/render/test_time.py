"""Figures of signals and spectrograms: what lies where, read back from the panels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seewhy.errors import InputError
from seewhy.results.explanation import Explanation


def test_a_signal_is_drawn_before_its_heat(explanation) -> None:
    heat = torch.tensor([[0.0, 1.0, 4.0, 2.0]])
    signal = torch.tensor([[[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 0.0, 1.0]]])
    panel = explanation(heat, axes=("time",)).figure(signal).axes[0]
    (shown,) = panel.images
    assert np.allclose(shown.get_array(), [[0, 0.25, 1, 0.5]])
    assert shown.get_extent()[:2] == [0, 4]
    lines = [line.get_xydata() for line in panel.lines]
    assert np.allclose(lines[0], [[0.5, 1], [1.5, 2], [2.5, 3], [3.5, 4]])
    assert np.allclose(np.diff(lines[1][:, 1]), [1, -1, 1])
    assert lines[1][:, 1].max() < lines[0][:, 1].min()  # the second channel under the first
    bottom, top = panel.get_ylim()
    assert bottom < lines[1][:, 1].min() < lines[0][:, 1].max() < top


def test_a_spectrogram_has_time_to_the_right_and_frequency_upwards(explanation) -> None:
    heat = torch.arange(60.0).reshape(1, 5, 12)  # time, frequency
    panel = explanation(heat, axes=("time", "frequency")).figure(heat).axes[0]
    behind, shown = panel.images
    for image in (behind, shown):
        assert image.get_array().shape == (12, 5)
        assert image.origin == "lower"
        assert np.argmax(image.get_array()) == 59
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("time", "frequency")
    turned = explanation(heat.mT).figure(heat.mT, axes=("frequency", "time")).axes[0].images[1]
    assert np.array_equal(turned.get_array(), shown.get_array())


def test_many_channels_are_a_picture_under_the_heat(explanation) -> None:
    signal = torch.arange(40.0).reshape(1, 10, 4)
    behind, shown = explanation([[0.0, 1, 2, 3]], axes=("time",)).figure(signal).axes[0].images
    assert np.array_equal(behind.get_array(), signal[0])
    assert shown.get_extent() == [0, 4, 0, 10]


def test_axes_are_kept_in_a_file(explanation, tmp_path) -> None:
    path = explanation([[0.0, 1, 2, 3]], axes=("time",)).save(tmp_path / "signal.npz")
    assert Explanation.load(path).axes == ("time",)
    assert Explanation.load(path).figure().axes[0].lines  # the heat itself, where the signal is not known


def test_what_does_not_fit_is_refused(explanation) -> None:
    made = explanation([[0.0, 1, 2, 3]], axes=("time",))
    with pytest.raises(InputError, match="axes are not those"):
        made.figure(axes=("time", "frequency"))
    with pytest.raises(InputError, match="not of the size"):
        made.figure(torch.zeros(1, 1, 5))
    with pytest.raises(InputError, match="no photograph"):
        made.overlay(torch.zeros(1, 1, 4))
