"""The default colours: ever lighter, in even steps, for all eyes; and the signed ones: alike on both sides of zero."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from benchmarks import colours as measured
from seewhy.render._colormap import _EMBER, colours, default_colormap, find_colormap


def test_ember_is_ever_lighter_by_even_steps():
    table = colours("ember").astype(np.float64)
    lab = rgb2lab(table[None])[0]
    assert table.shape == (256, 3)
    assert (np.diff(lab[:, 0]) > 0).all()
    assert lab[0, 0] < 15
    assert lab[-1, 0] > 93
    steps = deltaE_ciede2000(lab[:-1], lab[1:])
    assert steps.max() / steps.min() < 1.3  # of jet it is infinite, of inferno 3.4
    assert steps.sum() > 115


@pytest.mark.parametrize("eye", measured.EYES)
def test_ember_is_ever_lighter_without_one_kind_of_cone(eye):
    seen = measured.seen(colours("ember").astype(np.float64), eye)
    assert (np.diff(rgb2lab(seen[None])[0, :, 0]) > 0).all()
    jet = measured.seen(colours("jet").astype(np.float64), eye)
    assert not (np.diff(rgb2lab(jet[None])[0, :, 0]) > 0).all()


def test_grey_stays_grey_for_every_eye():
    grey = np.linspace(0, 1, 11)[:, None].repeat(3, 1)
    for eye in measured.EYES:
        np.testing.assert_allclose(measured.seen(grey, eye), grey, atol=1e-5)


def test_coolwarm_is_alike_on_both_sides_of_a_grey_zero():
    lab = rgb2lab(colours("coolwarm").astype(np.float64)[None])[0]
    middle = (lab[127] + lab[128]) / 2
    assert np.abs(middle[1:]).max() < 2  # no colour
    assert (np.diff(lab[:128, 0]) > 0).all()
    assert (np.diff(lab[128:, 0]) < 0).all()
    assert np.abs(lab[:128, 0] - lab[:127:-1, 0]).max() < 4


def test_matplotlib_gets_the_same_colours():
    found = find_colormap("ember")
    np.testing.assert_allclose(found(np.arange(256))[:, :3], colours("ember"), atol=1e-6)
    assert (default_colormap("per_image"), default_colormap("none")) == ("ember", "coolwarm")


def test_the_committed_colours_are_those_of_the_script():
    assert "".join(measured.made()) == _EMBER
