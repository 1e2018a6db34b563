"""Where a layer lies is proven by what changes in it: planted models, and answers made by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from torch import Tensor

from seewhy.geometry.judge import Answers, Lies, NoPlaces, judge
from seewhy.geometry.placement import Placement, Side, draw, placed
from seewhy.geometry.probes import Probes
from seewhy.geometry.proof import Proof, prove
from seewhy.images.arrays import resize
from tests.geometry.planted import Planted, as_is, picture, planted

CASES = planted()


def runner(case: Planted) -> Callable[[Sequence[Tensor]], Mapping[str, Tensor]]:
    """What runs the model and returns its layer, and the early one beside it, folded."""
    folds = {case.layer: case.fold} | ({case.witness: as_is} if case.witness else {})

    def run(images: Sequence[Tensor]) -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        handles = [
            case.model.get_submodule(label).register_forward_hook(
                lambda _m, _a, output, label=label, fold=fold: made.__setitem__(label, fold(output).clone())
            )
            for label, fold in folds.items()
        ]
        with torch.no_grad():
            case.model(*images)
        for handle in handles:
            handle.remove()
        return made

    return run


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_planted_models_are_proven_where_they_lie_or_refused(case: Planted) -> None:
    """Axes, direction, and the borders to two cells of the layer, or 6 % of the side: what unpadded kernels may cut."""
    verdict = prove(runner(case), [case.image]).verdicts[case.layer]
    if case.sides is None:
        assert isinstance(verdict, NoPlaces), verdict
        return
    assert isinstance(verdict, Proof), verdict
    grid = runner(case)([case.image])[case.layer].shape[2:]
    for side, (axis, start, extent, flipped), cells in zip(verdict.placement.sides, case.sides, grid, strict=True):
        assert (side.axis, side.flipped) == (axis, flipped)
        near = max(2 * extent / cells, 0.06 * case.image.shape[2 + axis])
        assert abs(side.start - start) <= near
        assert abs(side.start + side.extent - start - extent) <= near


@pytest.mark.few(12)
@pytest.mark.parametrize("case", [case for case in CASES if case.sides is None][:12], ids=lambda case: case.name)
@pytest.mark.parametrize("seed", range(1, 4))
def test_models_without_places_are_refused_whatever_their_weights(case: Planted, seed: int) -> None:
    other = next(found for found in planted(seed) if found.name == case.name)
    assert isinstance(prove(runner(other), [other.image]).verdicts[other.layer], NoPlaces)


def gaussian(space: tuple[int, ...], centres: list[Tensor], blur: float) -> tuple[Probes, Answers]:
    """The answers of a linear layer whose places see a Gaussian around `centres`, by sums over pixels."""
    probes = Probes.of(space)
    fields = torch.ones(1, 1, dtype=torch.float64)
    for pixels, along in zip(space, centres, strict=True):
        reach = (torch.arange(pixels) + 0.5 - along[:, None].double()) / blur
        fields = torch.einsum("gp,ij->gipj", fields, (-0.5 * reach.square()).exp()).flatten(2).flatten(0, 1)
    grid = tuple(map(len, centres))

    def answers(shares: Tensor) -> Tensor:  # of pixels changed at random: variances add up
        variances = shares.flatten(shares.ndim - len(space)) @ fields.T.square()
        return variances.sqrt().unflatten(-1, grid)[None]

    ramps = torch.stack([probes.ramps, 1 - probes.ramps], 1)
    tiles = answers(probes.tiles)
    return probes, Answers(tiles, tiles, answers(ramps), torch.zeros(1))


def test_a_linear_layer_is_placed_to_half_a_pixel() -> None:
    """A crop of 10 to 58 of 64 rows, zoomed; columns padded by 12 on both sides and mirrored."""
    rows, columns = 10 + 48 * (torch.arange(12) + 0.5) / 12, 84 - 96 * (torch.arange(16) + 0.5) / 16
    probes, answers = gaussian((64, 72), [rows, columns], blur=2.0)
    verdict = judge(answers, probes)
    assert isinstance(verdict, Lies)
    assert [(side.axis, side.flipped) for side in verdict.placement.sides] == [(0, False), (1, True)]
    numbers = [side.start for side in verdict.placement.sides] + [side.extent for side in verdict.placement.sides]
    torch.testing.assert_close(torch.tensor(numbers), torch.tensor([10.0, -12.0, 48.0, 96.0]), atol=0.5, rtol=0)


@pytest.mark.parametrize("blur", [1.0, 8.0, 32.0, 64.0])
def test_wide_receptive_fields_are_upright_all_the_same(blur: float) -> None:
    rows, columns = (torch.arange(4) + 0.5) * 16, (torch.arange(6) + 0.5) * 16
    probes, answers = gaussian((64, 96), [rows, columns], blur)
    verdict = judge(answers, probes)
    assert isinstance(verdict, Lies)
    assert verdict.placement.is_upright


def test_a_shuffled_grid_has_no_places_and_the_reason_says_order() -> None:
    rows = columns = (torch.arange(8) + 0.5) * 8
    probes, right = gaussian((64, 64), [rows, columns], blur=4.0)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    tiles = right.tiles.flatten(2)[..., order].unflatten(2, (8, 8))
    ramps = right.ramps.flatten(3)[..., order].unflatten(3, (8, 8))
    verdict = judge(Answers(tiles, tiles, ramps, right.bent), probes)
    assert isinstance(verdict, NoPlaces)
    assert "not in the order" in verdict.reason


def test_entries_that_answer_to_the_whole_image_have_no_places() -> None:
    probes = Probes.of((64, 64))
    noise = torch.rand(1, 16, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    verdict = judge(Answers(1 + 0.3 * noise, noise, torch.ones(1, 2, 2, 4, 4), torch.zeros(1)), probes)
    assert isinstance(verdict, NoPlaces)
    assert "as a whole" in verdict.reason


def test_a_layer_that_never_changes_has_no_places() -> None:
    probes = Probes.of((64, 64))
    verdict = judge(Answers(*[torch.zeros(1, 16, 4, 4)] * 2, torch.zeros(1, 2, 2, 4, 4), torch.zeros(1)), probes)
    assert isinstance(verdict, NoPlaces)
    assert "nothing in it changes" in verdict.reason


def test_a_single_place_lies_over_all_of_the_image() -> None:
    probes = Probes.of((32, 32))
    one = Answers(*[torch.ones(1, 16, 1, 1)] * 2, torch.ones(1, 2, 2, 1, 1), torch.zeros(1))
    verdict = judge(one, probes)
    assert isinstance(verdict, Lies)
    assert verdict.placement == Placement.upright((32, 32))


def test_tiles_add_up_to_the_image() -> None:
    torch.testing.assert_close(Probes.of((30, 41)).tiles.sum(0), torch.ones(30, 41, dtype=torch.float64))


def test_copies_differ_from_the_image_where_they_are_changed_only() -> None:
    image = picture(40, 40)[0]
    probes = Probes.of((40, 40))
    made = probes.changed(image, torch.Generator().manual_seed(0), blank=False)
    assert made.shape == (1 + 16 + 4 + 1, 3, 40, 40) == (probes.copies, 3, 40, 40)
    assert torch.equal(made[0], image)
    changed = (made != image).any(1)
    tiles = changed[4:20]
    assert not (tiles & (probes.tiles == 0)).any()
    assert (tiles.flatten(1).sum(1) > 60).all()
    changes = (made - image).square().sum(1)
    torch.testing.assert_close(changes[1] + changes[2], changes[20] + changes[21])
    torch.testing.assert_close((made[1] + made[2]) / 2, made[3])
    share = (changes[1] / (changes[1] + changes[2])).nanmean(1)
    torch.testing.assert_close(share, (torch.arange(40) + 0.5) / 40)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float16])
def test_copies_stay_within_the_colours_of_the_image(dtype: torch.dtype) -> None:
    image = torch.tensor([3, 7, 200])[torch.randint(3, (1, 20, 20), generator=torch.Generator().manual_seed(0))]
    made = Probes.of((20, 20)).changed(image.to(dtype), torch.Generator().manual_seed(0), blank=False)
    assert made.dtype == dtype
    assert (made.min(), made.max()) == (3, 200)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("value", [0, 9])
def test_copies_of_an_image_of_one_colour_are_changed_all_the_same(dtype: torch.dtype, value: int) -> None:
    image = torch.full((3, 16, 16), value, dtype=dtype)
    made = Probes.of((16, 16)).changed(image, torch.Generator().manual_seed(0), blank=True)
    assert (made[1:] != made[0]).flatten(1).any(1).all()


def test_upright_maps_are_drawn_as_resize_draws_them_bit_for_bit() -> None:
    maps = torch.randn(2, 3, 7, 5, generator=torch.Generator().manual_seed(2))
    for mode in ("bilinear", "nearest", "bicubic", "area"):
        assert torch.equal(draw(maps, Placement.upright((56, 40)), (61, 33), mode), resize(maps, (61, 33), mode))


def test_an_axis_that_the_grid_has_lost_is_drawn_the_same_everywhere() -> None:
    maps = torch.arange(12.0).reshape(2, 2, 3)
    drawn = draw(maps, placed([(1, 0.0, 4.0, False), (2, 0.0, 6.0, False)], (5, 4, 6)), (5, 2, 3))
    torch.testing.assert_close(drawn, maps[:, None].expand(2, 5, 2, 3))


@pytest.mark.parametrize("size", [(56, 40), (61, 33), (7, 5)])
def test_the_matrices_of_an_upright_grid_are_those_of_resize(size: tuple[int, int]) -> None:
    """Start a hair off, so that the way of the others is taken."""
    maps = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    almost = placed([(0, -1e-9, 56 + 2e-9, False), (1, -1e-9, 40 + 2e-9, False)], (56, 40))
    torch.testing.assert_close(draw(maps, almost, size), resize(maps, size), atol=1e-6, rtol=0)


def test_a_cropped_mirrored_map_is_drawn_by_hand() -> None:
    """Two cells over pixels 2 to 6 of 8, mirrored: centres at 5 and 3."""
    drawn = draw(torch.tensor([1.0, 3.0]), placed([(0, 2.0, 4.0, True)], (8,)), (8,))
    torch.testing.assert_close(drawn, torch.tensor([0.0, 0.0, 3.0, 2.5, 1.5, 1.0, 0.0, 0.0]))


def test_swapped_axes_are_drawn_swapped() -> None:
    maps = torch.arange(6.0).reshape(2, 3)
    turned = placed([(1, 0.0, 4.0, False), (0, 0.0, 9.0, False)], (9, 4))
    torch.testing.assert_close(draw(maps, turned, (3, 2)), maps.T)


def test_a_letterboxed_map_is_cut_to_the_picture() -> None:
    """Four rows over -8 to 24 of 16: rows 1 and 2 are the picture's."""
    maps = torch.tensor([[9.0], [1.0], [2.0], [9.0]])
    boxed = placed([(0, -8.0, 32.0, False), (1, 0.0, 4.0, False)], (16, 4))
    torch.testing.assert_close(draw(maps, boxed, (2, 1)), torch.tensor([[1.0], [2.0]]))


def test_a_side_knows_where_its_cells_are() -> None:
    torch.testing.assert_close(Side(0, 2.0, 4.0, True).centres(2), torch.tensor([5.0, 3.0], dtype=torch.float64))
