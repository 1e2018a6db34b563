"""Sheets: which pictures stand where, under which names; and contours, cells, captions and widths of figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy import Category
from seewhy.errors import InputError
from seewhy.render import figure, overlay, sheet

MAPS = [[[0.0, 0.0], [2.0, 4.0]], [[3.0, 0.0], [0.0, 0.0]]]
LABELS = ("cat", "dog", "cup")


def photographs(count=2):
    return list(np.random.default_rng(0).integers(0, 256, (count, 6, 8, 3), np.uint8))


def titles(drawn):
    return [panel.get_title() for panel in drawn.axes]


def test_methods_stand_side_by_side_with_names_and_scores(explanation):
    photos = photographs()
    about = {"targets": Category(torch.tensor([2, 0])), "labels": LABELS, "files": ("a/x.png", "b/y.png")}
    first, second = explanation(MAPS, **about), explanation(MAPS[::-1], method="layer_cam", **about)
    drawn = sheet({"grad_cam": first, "layer_cam": second}, photos)
    assert titles(drawn) == [
        *("x.png", "grad_cam\ncup 0.5", "layer_cam\ncup 0.5"),
        *("y.png", "cat 1.5", "cat 1.5"),
    ]
    for row in range(2):
        shown = [np.asarray(panel.images[0].get_array()) for panel in drawn.axes[3 * row : 3 * row + 3]]
        assert np.array_equal(shown[0], photos[row])
        assert np.array_equal(shown[1], overlay(photos[row], first.heatmap[row]))
        assert np.array_equal(shown[2], overlay(photos[row], second.heatmap[row]))
    assert titles(sheet([first, first], photos))[1:3] == ["grad_cam\ncup 0.5", "grad_cam 2\ncup 0.5"]


def test_targets_of_one_explanation_are_its_columns(explanation):
    made = explanation([MAPS], several=True, targets=Category(torch.tensor([[2, 0]])), labels=LABELS)
    drawn = sheet(made)
    assert titles(drawn) == ["grad_cam\ncup 0.5", "grad_cam\ncat 1.5"]
    assert drawn.axes[0].images[0].get_array().shape == (2, 2, 3)


def test_a_sheet_says_what_is_left_out_and_fits_a_column(explanation):
    drawn = sheet(explanation(MAPS), photographs(), max_rows=1, width=3.3, caption="Two of them")
    assert drawn.get_figwidth() == 3.3
    assert drawn.get_supxlabel() == "Two of them 1 of 2 images shown"
    assert min(panel.title.get_fontsize() for panel in drawn.axes) >= 7


@pytest.mark.parametrize(("given", "message"), [([], "no explanation"), ("unequal", "1 and 2 images")])
def test_what_is_no_sheet(explanation, given, message):
    with pytest.raises(InputError, match=message):
        sheet([explanation(MAPS), explanation(MAPS[:1])] if given == "unequal" else given)


@pytest.mark.parametrize("ending", ["pdf", "svg"])
def test_sheets_and_figures_are_written_for_papers(explanation, tmp_path, ending):
    drawn = sheet(explanation(MAPS), photographs(), width=3.3)
    drawn.savefig(tmp_path / f"sheet.{ending}")
    saved = explanation(MAPS).save(tmp_path / f"figure.{ending}", photographs(), width=3.3)
    for path in (tmp_path / f"sheet.{ending}", saved):
        assert path.read_bytes().startswith(b"%PDF" if ending == "pdf" else b"<?xml")


def test_nearest_shows_the_places_as_cells_and_the_figure_counts_them(explanation):
    made = explanation(MAPS[:1], size=(8, 8))
    photo = np.full((8, 8, 3), 90, np.uint8)
    heat = figure(made, photo, interpolation="nearest").axes[1].images[0].get_array()
    assert np.array_equal(heat, np.kron(made.maps["layer4.1"][0].numpy() / 4, np.ones((4, 4))))
    assert "2 x 2 places" in figure(made).get_suptitle()
    assert "places" not in figure(explanation(MAPS)).get_suptitle()  # as many places as pixels


def test_contours_run_where_the_map_crosses_the_level():
    heat = torch.zeros(40, 40)
    heat[10:30, 10:30] = 1
    photo = Image.new("RGB", (40, 40), (90, 90, 90))
    drawn = np.asarray(overlay(photo, heat, alpha=0.0, contours=(0.5,)))
    white = np.argwhere((drawn == 255).all(-1))
    edge = {(row, column) for row, column in white.tolist()}
    assert {(9, 15), (10, 15), (29, 20), (30, 20), (20, 9), (20, 30)} <= edge
    assert (drawn[13:27, 13:27] == 90).all()
    assert (drawn[:7] == 90).all()
    with pytest.raises(InputError, match="contour"):
        overlay(photo, heat, contours=(1.5,))


def test_zero_is_marked_where_a_map_has_two_signs(explanation):
    drawn = figure(explanation([[[-1.0, 0.5], [2.0, 4.0]]]), scaling="none")
    bar = drawn.axes[0].images[0].colorbar
    assert [tick.get_text() for tick in bar.ax.get_yticklabels()] == ["-4", "-2", "0", "2", "4"]
    assert [line.get_ydata()[0] for line in bar.ax.lines] == [0]
    assert not figure(explanation(MAPS[:1])).axes[0].images[0].colorbar.ax.lines


def test_a_caption_stands_below_and_is_no_formula(explanation):
    drawn = figure(explanation(MAPS), caption="costs $5 and $6")
    assert drawn.get_supxlabel() == "costs $5 and $6"
    assert not drawn._supxlabel.get_parse_math()


def test_a_figure_for_a_column_keeps_its_letters(explanation):
    made = explanation(MAPS[:1], targets=Category(torch.tensor([2])), labels=LABELS)
    narrow, wide = figure(made, photographs(1), width=3.3), figure(made, photographs(1))
    assert narrow.get_figwidth() == 3.3 < wide.get_figwidth()
    sizes = [[panel.title.get_fontsize() for panel in drawn.axes] for drawn in (narrow, wide)]
    assert sizes[0] == sizes[1]
    with pytest.raises(InputError, match="width"):
        figure(made, width=0.1)
