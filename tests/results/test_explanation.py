"""How a result is scaled, cut and looked at; its pictures are tested in tests/render."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from seewhy import Category, Explanation, Similarity
from seewhy.errors import InputError
from seewhy.results import cat


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


# ---- moved and joined


def test_to_moves_every_tensor() -> None:
    """The meta device stands for a GPU: it has no values, but it is another one."""
    made = explanation(SIGNED, probabilities=torch.tensor([0.1, 0.9]), outputs={"logits": torch.zeros(2, 3)})
    moved = made.to("meta")
    found = [moved.maps["layer"], moved.scores, moved.outputs["logits"], moved.targets.index, moved.probabilities]
    assert {tensor.device.type for tensor in found} == {"meta"}
    assert made.scores.device.type == "cpu"
    assert torch.equal(made.cpu().heatmap, made.heatmap)


def test_cat_is_the_opposite_of_slicing() -> None:
    whole = explanation(
        torch.rand(5, 3, 4),
        frames=tuple((float(n), 0.0, 3.0, 4.0) for n in range(5)),
        files=tuple("abcde"),
        probabilities=torch.rand(5),
        outputs={"logits": torch.rand(5, 3), "temperature": torch.tensor(2.0)},
    )
    joined = cat([whole[:2], whole[2], whole[3:]])
    assert len(joined) == 5
    assert torch.equal(joined.maps["layer"], whole.maps["layer"])
    assert torch.equal(joined.scores, whole.scores)
    assert torch.equal(joined.probabilities, whole.probabilities)
    assert torch.equal(joined.outputs["logits"], whole.outputs["logits"])
    assert float(joined.outputs["temperature"]) == 2
    assert joined.targets.index.tolist() == [0, 1, 2, 3, 4]
    assert joined.frames == whole.frames
    assert joined.files == whole.files
    assert joined.extents is None


def test_cat_of_a_detector_s_outputs() -> None:
    outputs = [{"boxes": torch.zeros(n, 4)} for n in range(3)]
    whole = explanation(torch.rand(3, 2, 2), outputs=outputs)
    assert [len(each["boxes"]) for each in cat([whole[:1], whole[1:]]).outputs] == [0, 1, 2]


def test_cat_keeps_a_function_and_each_note_once() -> None:
    def score(outputs: Tensor) -> Tensor:
        return outputs.sum(1)

    first, second = (explanation(SIGNED, targets=score, note=note) for note in ("chosen", "chosen"))
    joined = cat([first, second, explanation(SIGNED, targets=score, note="named")])
    assert joined.targets is score
    assert joined.note == "chosen named"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"method": "layer_cam"}, "method"),
        ({"size": (4, 4)}, "size"),
        ({"labels": ("a",)}, "labels"),
        ({"fuse": "max"}, "fuse"),
        ({"targets": lambda outputs: outputs}, "targets"),
        ({"targets": Similarity(torch.ones(2, 3), prompt="a cat")}, "targets"),
        ({"outputs": {"logits": torch.zeros(2, 3)}}, "outputs"),
        ({"probabilities": torch.ones(2)}, "probabilities"),
        ({"files": ("a", "b")}, "files"),
    ],
)
def test_what_does_not_belong_together_is_not_joined(changes: dict[str, object], what: str) -> None:
    with pytest.raises(InputError, match=what):
        cat([explanation(SIGNED), explanation(SIGNED, **changes)])


def test_other_layers_and_other_grids_are_not_joined() -> None:
    first, other = explanation(SIGNED), explanation(SIGNED)
    other.maps["other"] = SIGNED
    with pytest.raises(InputError, match="layers"):
        cat([first, other])
    with pytest.raises(InputError, match="maps of layer"):
        cat([first, explanation(torch.zeros(2, 3, 3), size=(2, 2))])


def test_prompts_that_differ_are_not_joined() -> None:
    first, second = (
        explanation(SIGNED, targets=Similarity(torch.ones(2, 3), prompt=prompt)) for prompt in ("a cat", "a dog")
    )
    with pytest.raises(InputError, match="targets"):
        cat([first, second])
    assert cat([first, first]).name(3) == "a cat"


def test_nothing_cannot_be_joined() -> None:
    with pytest.raises(InputError, match="nothing to join"):
        cat([])


# ---- what it is about


def test_class_and_name_of_each_map() -> None:
    made = explanation(SIGNED, targets=Category(torch.tensor([2, 0])), labels=("cat", "dog"))
    assert made.index.tolist() == [2, 0]
    assert [made.name(0), made.name(1)] == ["class 2", "cat"]
    several = explanation(torch.rand(2, 2, 3, 3), targets=torch.tensor([[5, 6], [7, 8]]))
    assert several.index.tolist() == [[5, 6], [7, 8]]
    assert several.name(1, 0) == "class 7"
    assert explanation(SIGNED, targets=1).index.tolist() == [1, 1]
    assert explanation(SIGNED, targets=lambda outputs: outputs).index is None


def test_a_map_that_is_not_finite_does_not_blank_the_others() -> None:
    maps = torch.stack([SIGNED[0], torch.tensor([[torch.nan, 1.0], [torch.inf, 0.0]])])
    for scaling in ("per_image", "shared"):
        heat = explanation(maps).scaled(scaling)
        torch.testing.assert_close(heat[0], torch.tensor([[1.0, 0.0], [0.25, 0.0]]))
        assert not heat[1].any()
