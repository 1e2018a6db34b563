"""How a result is scaled, cut and looked at; its pictures are tested in tests/render."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from seewhy import Category, Explanation
from seewhy.errors import InputError


def explanation(maps: Tensor, **changes: object) -> Explanation:
    scores = torch.arange(float(maps.shape[0] * (maps.shape[1] if maps.ndim == 4 else 1)))
    fields = {
        "maps": {"layer": maps},
        "scores": scores.reshape(maps.shape[:-2]),
        "outputs": torch.zeros(len(maps), 3),
        "targets": Category(torch.arange(len(maps))),
        "method": "grad_cam",
        "size": tuple(maps.shape[-2:]),
    }
    return Explanation(**{**fields, **changes})


SIGNED = torch.tensor([[[4.0, -2.0], [1.0, 0.0]], [[8.0, 2.0], [2.0, 2.0]]])


def test_per_image_drops_the_negative_and_scales_each_map_by_its_own_range() -> None:
    expected = torch.tensor([[[1.0, 0.0], [0.25, 0.0]], [[1.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(explanation(SIGNED).heatmap, expected)


def test_shared_scales_all_maps_alike_so_that_they_compare() -> None:
    expected = torch.tensor([[[0.5, 0.0], [0.125, 0.0]], [[1.0, 0.25], [0.25, 0.25]]])
    torch.testing.assert_close(explanation(SIGNED).scaled("shared"), expected)


def test_none_keeps_sign_and_unit() -> None:
    torch.testing.assert_close(explanation(SIGNED).scaled("none"), SIGNED)


def test_maps_are_resized_to_the_input_or_as_told() -> None:
    """A 1 x 2 map (0, 1) over 4 pixels has its centres at 1 and 3: 0, 0.25, 0.75, 1."""
    row = explanation(torch.tensor([[[0.0, 1.0]]]), size=(1, 4))
    torch.testing.assert_close(row.heatmap, torch.tensor([[[0.0, 0.25, 0.75, 1.0]]]))
    assert row.scaled("none", size=(2, 8)).shape == (1, 2, 8)


def test_bicubic_does_not_leave_the_unit_interval() -> None:
    heat = explanation(torch.eye(5)[None], size=(40, 40)).scaled(mode="bicubic")
    assert heat.min() == 0
    assert heat.max() == 1


@pytest.mark.parametrize("factor", [1e-8, 1e-30, 1e12])
def test_scaling_does_not_depend_on_the_unit(factor: float) -> None:
    torch.testing.assert_close(explanation(SIGNED * factor).heatmap, explanation(SIGNED).heatmap)


def test_unknown_scaling() -> None:
    with pytest.raises(InputError, match=r"got: 'image'\n  expected: \"per_image\", \"shared\" or \"none\""):
        explanation(SIGNED).scaled("image")


def test_one_image_and_a_slice_of_them() -> None:
    whole = explanation(
        SIGNED, frames=((0.0, 0.0, 1.0, 1.0), (2.0, 2.0, 3.0, 3.0)), probabilities=torch.tensor([0.1, 0.9])
    )
    for second in (whole[1], whole[-1], whole[1:]):
        assert len(second) == 1
        assert torch.equal(second.maps["layer"], SIGNED[1:])
        assert second.scores.tolist() == [1.0]
        assert second.targets.index.tolist() == [1]
        assert second.outputs.shape == (1, 3)
        assert second.frames == ((2.0, 2.0, 3.0, 3.0),)
        assert second.probabilities.tolist() == pytest.approx([0.9])
    assert [int(part.targets.index) for part in whole] == [0, 1]
    with pytest.raises(IndexError, match="image 2 of an explanation of 2"):
        whole[2]


def test_boxes_of_each_image_and_target() -> None:
    heat = torch.zeros(1, 2, 6, 8)
    heat[0, 0, 1:3, 2:5] = 1
    heat[0, 1, 4:, 0] = 1
    heat[0, 1, 0, 7] = 0.6
    (first, second) = explanation(heat).boxes()[0]
    assert first.tolist() == [[2, 1, 5, 3]]
    assert second.tolist() == [[0, 4, 1, 6], [7, 0, 8, 1]]
    assert explanation(heat[:, 1]).boxes(0.7)[0].tolist() == [[0, 4, 1, 6]]


@pytest.mark.parametrize("threshold", [0, 1.1, float("nan")])
def test_a_threshold_out_of_range(threshold: float) -> None:
    with pytest.raises(InputError, match="threshold is out of range"):
        explanation(SIGNED).boxes(threshold)


def test_it_says_what_it_is() -> None:
    assert repr(explanation(SIGNED)) == "Explanation(grad_cam, 2 images, layer (2, 2, 2))"
    assert repr(explanation(SIGNED[:1])) == "Explanation(grad_cam, 1 image, layer (1, 2, 2))"


def test_a_notebook_shows_a_picture() -> None:
    assert explanation(SIGNED)._repr_png_().startswith(b"\x89PNG")


def test_heatmap_is_float32_whatever_the_maps_are() -> None:
    assert explanation(SIGNED.double()).heatmap.dtype == torch.float32
    assert np.isfinite(explanation(SIGNED.double()).heatmap.numpy()).all()
