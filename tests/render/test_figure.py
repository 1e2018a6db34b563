from __future__ import annotations

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy import Box, Category, Region, Similarity
from seewhy.errors import InputError
from seewhy.render import figure, overlay
from seewhy.render._figure import png
from seewhy.results import Explanations

MAPS = [[[-1.0, 0.0], [2.0, 4.0]], [[3.0, 0.0], [0.0, 0.0]]]


def panels(drawn, columns):
    """The figure's axes by row; colour bars belong to their heatmaps."""
    return [drawn.axes[start : start + columns] for start in range(0, len(drawn.axes), columns)]


def bar(panel):
    return panel.images[0].colorbar


def test_three_panels_show_photo_map_and_overlay(explanation):
    photos = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), np.uint8)
    made = explanation(MAPS)
    rows = panels(figure(made, photos, alpha=0.4, colormap="viridis"), 3)
    assert len(rows) == 2
    for row, photo, heat in zip(rows, photos, made.heatmap, strict=True):
        assert np.array_equal(row[0].images[0].get_array(), photo)
        assert np.array_equal(row[1].images[0].get_array(), heat)
        assert np.array_equal(row[2].images[0].get_array(), overlay(photo, heat, alpha=0.4, colormap="viridis"))
        assert row[1].images[0].get_cmap().name == bar(row[1]).cmap.name == "viridis"
        assert row[1].get_xlim() == (0, 8)
        assert row[1].get_ylim() == (6, 0)
        assert list(row[1].images[0].get_extent()) == [0, 8, 6, 0]


def test_the_heatmap_stands_in_the_photo_s_frame(explanation):
    photo = Image.new("RGB", (40, 20))
    made = explanation(MAPS[:1], photos=(photo,), frames=((10.0, 0.0, 30.0, 20.0),))
    heat = panels(figure(made), 3)[0][1]
    assert list(heat.images[0].get_extent()) == [10, 30, 20, 0]
    assert heat.get_xlim() == (0, 40)
    assert heat.get_ylim() == (20, 0)


def test_large_photographs_are_reduced_with_their_frame(explanation):
    photo = Image.new("RGB", (4096, 2048), (10, 20, 30))
    made = explanation(MAPS[:1], photos=(photo,), frames=((1024.0, 0.0, 3072.0, 2048.0),))
    row = panels(figure(made), 3)[0]
    assert row[0].images[0].get_array().shape == (512, 1024, 3)
    assert list(row[1].images[0].get_extent()) == [256, 768, 512, 0]
    drawn = np.asarray(row[2].images[0].get_array())
    assert (drawn[:, :256] == (10, 20, 30)).all()
    assert (drawn[:, 256:768] != (10, 20, 30)).any(-1).all()


@pytest.mark.parametrize(("scaling", "peaks"), [("per_image", (1, 1)), ("shared", (1, 0.75)), ("none", (4, 3))])
def test_the_colour_bar_shows_true_numbers(explanation, scaling, peaks):
    rows = panels(figure(explanation(MAPS), scaling=scaling), 1)
    for (heat,), peak in zip(rows, peaks, strict=True):
        assert heat.images[0].get_array().max() == pytest.approx(peak)
        limits = (-peak, peak) if scaling == "none" else (0, 1)
        assert heat.images[0].get_clim() == limits
        assert bar(heat).ax.get_ylim() == limits
    assert rows[0][0].images[0].get_array().min() == (-1 if scaling == "none" else 0)
    assert rows[0][0].images[0].get_cmap().name == ("coolwarm" if scaling == "none" else "ember")


@pytest.mark.parametrize(
    ("values", "scaling", "reason"),
    [
        ([[0, 0]], "none", "zero everywhere"),
        ([[0, 0]], "per_image", "zero everywhere"),
        ([[-1, 0]], "per_image", "nothing positive in it"),
        ([[2, 2]], "per_image", "the same everywhere"),
        ([[np.nan, 1]], "per_image", "not finite"),
        ([[np.inf, 1]], "none", "not finite"),
    ],
)
def test_a_blank_map_is_left_blank_and_the_figure_says_why(explanation, values, scaling, reason):
    photo = np.full((120, 160, 3), 90, np.uint8)
    made = explanation([values])
    photograph, heat, over = figure(made, photo, scaling=scaling).axes
    assert not heat.images
    assert " ".join(heat.texts[0].get_text().split()) == f"blank map: {reason}"
    shown = np.asarray(over.images[0].get_array())
    assert (shown[60:] == 90).all()
    assert np.array_equal(photograph.images[0].get_array(), photo)
    assert len(figure(made, scaling=scaling).axes) == 1


def test_a_signed_map_without_anything_positive_is_no_blank(explanation):
    heat = panels(figure(explanation([[[-1, 0]]]), scaling="none"), 1)[0][0]
    assert heat.images[0].get_array().tolist() == [[-1, 0]]
    assert heat.images[0].get_clim() == (-1, 1)


@pytest.mark.parametrize(
    ("targets", "titles"),
    [
        (Category(torch.tensor([2, 0])), ["cup (2), score 0.5", "cat (0), score 1.5"]),
        (Region(torch.tensor([2, 0]), None), ["cup (2), score 0.5", "cat (0), score 1.5"]),
        (Box(torch.tensor([2, 0]), index=5), ["cup (2), score 0.5", "cat (0), score 1.5"]),
        (torch.tensor([1, 7]), ["dog (1), score 0.5", "class 7, score 1.5"]),
        (Category(1), ["dog (1), score 0.5", "dog (1), score 1.5"]),
        (Similarity(torch.ones(2, 3), prompt="a cat"), ["a cat, score 0.5", "a cat, score 1.5"]),
        (Similarity(torch.ones(2, 3)), ["score 0.5", "score 1.5"]),
        (None, ["score 0.5", "score 1.5"]),
        (["a", "b"], ["score 0.5", "score 1.5"]),
    ],
)
def test_titles(explanation, targets, titles):
    drawn = figure(explanation(MAPS, targets=targets, labels=["cat", "dog", "cup"]))
    assert [axes[0].get_title("left") for axes in panels(drawn, 1)] == titles
    assert drawn.get_suptitle() == "grad_cam at layer4.1"


def test_titles_of_several_targets(explanation):
    maps = torch.rand(2, 2, 3, 3)
    made = explanation(maps, several=True, targets=torch.tensor([[5, 6], [7, 8]]))
    titles = [axes[0].get_title("left") for axes in panels(figure(made), 1)]
    assert titles == ["class 5, score 0.5", "class 6, score 1.5", "class 7, score 2.5", "class 8, score 3.5"]
    titles = [axes[0].get_title("left") for axes in panels(figure(made, target=1), 1)]
    assert titles == ["class 6, score 1.5", "class 8, score 3.5"]
    nameless = panels(figure(explanation(maps, several=True)), 1)
    assert nameless[1][0].get_title("left") == "target 1, score 1.5"


def test_rows_are_limited_and_the_figure_says_so(explanation):
    made = explanation(torch.rand(5, 2, 2))
    assert len(figure(made).axes) == 5
    drawn = figure(made, max_rows=2)
    assert len(drawn.axes) == 2
    assert drawn.get_supxlabel() == "2 of 5 maps shown"
    assert figure(made).get_supxlabel() == ""
    with pytest.raises(InputError, match="max_rows=0"):
        figure(made, max_rows=0)


def test_a_volume_s_slice_is_named(explanation):
    maps = torch.zeros(1, 4, 2, 2)
    maps[0, 2, 0, 0] = 1
    heat = panels(figure(explanation(maps)), 1)[0][0]
    assert heat.get_title("left") == "score 0.5, slice 2"
    assert heat.images[0].get_array().tolist() == [[1, 0], [0, 0]]


def test_a_notebook_gets_a_png(explanation):
    picture = Image.open(io.BytesIO(png(explanation(MAPS))))
    assert picture.format == "PNG"
    pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()
    assert [26, 20, 100] in pixels  # coldest of ember
    assert [253, 242, 138] in pixels  # and hottest
    assert explanation(MAPS)._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_figure_is_what_a_notebook_shows(explanation):
    assert figure(explanation(MAPS))._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_dict_of_methods_shows_every_figure(explanation):
    """One above the other, each as it is by itself."""
    first, second = explanation(MAPS), explanation(MAPS[:1], method="layer_cam")
    both = Image.open(io.BytesIO(Explanations(grad_cam=first, layer_cam=second)._repr_png_()))
    pictures = [Image.open(io.BytesIO(png(each))).convert("RGB") for each in (first, second)]
    assert both.height == sum(picture.height for picture in pictures)
    top = both.crop((0, 0, *pictures[0].size))
    below = both.crop((0, pictures[0].height, pictures[1].width, both.height))
    assert top.tobytes() == pictures[0].tobytes()
    assert below.tobytes() == pictures[1].tobytes()
    assert Explanations()._repr_png_() is None


@pytest.mark.parametrize(
    ("labels", "titles"),
    [
        (None, ["minus the output (negative side), score 2", "the output (positive side), score 3"]),
        (["nodule"], ["not nodule (negative side), score 2", "nodule (positive side), score 3"]),
        (["healthy", "ill"], ["healthy (negative side), score 2", "ill (positive side), score 3"]),
    ],
)
def test_the_side_of_a_single_output_is_told(explanation, labels, titles):
    made = explanation(
        MAPS,
        targets=Category(torch.tensor([0, 1]), "one logit"),
        outputs=torch.tensor([[-2.0], [3.0]]),
        scores=torch.tensor([2.0, 3.0]),
        labels=labels,
    )
    assert [axes[0].get_title("left") for axes in panels(figure(made), 1)] == titles


def test_the_side_of_a_single_output_is_told_of_classes_only(explanation):
    """A probability has two sides; a regression, and one of several classes, has none."""
    index = torch.tensor([1, 0])
    kinds = ("one probability", "one value", "scores")
    made = {kind: explanation(MAPS, targets=Category(index, kind)) for kind in kinds}
    assert [made["one probability"].side(0), made["one probability"].side(1)] == ["positive", "negative"]
    assert made["one value"].side(0) == made["scores"].side(0) == ""
    several = explanation([MAPS], several=True, targets=Category(torch.tensor([[1, 0]]), "one logit"))
    assert [several.side(0, 0), several.side(0, 1)] == ["positive", "negative"]


def test_drawing_does_not_touch_pyplot(explanation):
    had = "matplotlib.pyplot" in sys.modules
    png(explanation(MAPS))
    assert ("matplotlib.pyplot" in sys.modules) == had


def test_the_box_that_is_explained_is_drawn_where_it_lies_in_the_photograph(explanation):
    """The input of 2 x 2 pixels showed columns 10 to 30 of the photograph: a pixel of it is 10 wide and 10 high."""
    target = Box(torch.tensor([[1, 0]]), torch.tensor([[[0, 0, 1, 2.0], [1, 1, 2, 2.0]]]), None, torch.tensor([[2, 2]]))
    photo = Image.new("RGB", (40, 20))
    frames = ((10.0, 0.0, 30.0, 20.0),)
    made = explanation([MAPS], several=True, targets=target, photos=(photo,), frames=frames)
    rows = panels(figure(made), 3)
    for row, expected in zip(rows, [(10, 0, 10, 20), (20, 10, 10, 10)], strict=True):
        for panel in row:
            (drawn,) = panel.patches
            assert (*drawn.get_xy(), drawn.get_width(), drawn.get_height()) == expected
    without = panels(figure(explanation(MAPS, targets=Category(torch.tensor([1, 0])))), 1)
    assert not any(panel.patches for row in without for panel in row)


def test_a_label_is_no_formula(explanation):
    """Between two dollars matplotlib would read mathematics, and fail on this."""
    made = explanation(MAPS[:1], targets=Category(torch.tensor([0])), labels=["a $\\frac bill$"])
    assert png(made)[:4] == b"\x89PNG"
    assert figure(made).axes[0].get_title("left") == "a $\\frac bill$ (0), score 0.5"


def test_three_planes_go_through_the_hottest_place(explanation) -> None:
    heat = torch.zeros(1, 4, 5, 6)
    heat[0, 2, 1, 4] = 1
    scan = torch.arange(120.0).reshape(1, 4, 5, 6)
    panels = explanation(heat).figure(scan, planes=True).axes[:3]
    for axis, (panel, number) in enumerate(zip(panels, (2, 1, 4), strict=True)):
        behind, shown = panel.images
        assert np.array_equal(behind.get_array(), scan[0].select(axis, number))
        assert np.array_equal(shown.get_array(), heat[0].select(axis, number))
    with pytest.raises(InputError, match="planes are those of volumes"):
        explanation(torch.rand(1, 4, 5)).figure(planes=True)
