"""Every layout, folded back: a tensor whose values say their row and column must have them where they belong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seewhy.geometry import grid as layouts
from seewhy.geometry.grid import Evidence, Grid, Rows, Windows, readings

BATCH, CHANNELS = 2, 16
SPACE = (64, 96)  # an image of 4 x 6 patches of 16 pixels
GRID = (4, 6)


def numbered(*grid: int) -> Tensor:
    """(B, C, *grid) in which each value is 1000 b + 100 c + its place, counted in rows."""
    places = torch.arange(float(torch.tensor(grid).prod())).reshape(grid)
    images = 1000.0 * torch.arange(BATCH).reshape(BATCH, 1, *[1] * len(grid))
    return images + 100.0 * torch.arange(CHANNELS).reshape(1, CHANNELS, *[1] * len(grid)) + places


def tokens(folded: Tensor, before: int = 0, after: int = 0) -> Tensor:
    """(B, N, C) of a map, between tokens that must not be taken for places."""
    sequence = folded.flatten(2).mT
    return torch.cat([*[-sequence[:, :1]] * before, sequence, *[-sequence[:, :1]] * after], 1)


def read(tensor: Tensor, space: tuple[int, ...] = SPACE, evidence: Evidence | None = None, **options) -> Grid:
    found = readings(tuple(tensor.shape), space, BATCH, evidence, **options)
    assert len(found) == 1, [grid.layout for grid in found]
    return found[0]


LAYOUTS = {
    "channels first": lambda folded: folded,
    "channels last": lambda folded: folded.movedim(1, -1),
    "sequence": lambda folded: folded.flatten(2).mT,
    "sequence, channels first": lambda folded: folded.flatten(2),
    "tokens before images": lambda folded: folded.flatten(2).permute(2, 0, 1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("grid", "space"), [(GRID, SPACE), ((6, 4), (96, 64)), ((2, 4, 6), (8, 64, 96))])
def test_each_place_comes_back_to_its_row_and_column(
    layout: str, grid: tuple[int, ...], space: tuple[int, ...]
) -> None:
    folded = numbered(*grid)
    tensor = LAYOUTS[layout](folded)
    evidence = Evidence(grids={grid}) if len(grid) == 3 else None  # frames make too many grids of one length
    assert torch.equal(read(tensor, space, evidence).fold(tensor), folded)


@pytest.mark.parametrize("before", [0, 1, 2, 5])
def test_tokens_before_the_patches_are_left_out(before: int) -> None:
    folded = numbered(*GRID)
    tensor = tokens(folded, before)
    for evidence in (None, Evidence(grids={GRID}, prefixes={before})):
        grid = read(tensor, evidence=evidence)
        assert grid.others == tuple(range(before))
        assert torch.equal(grid.fold(tensor), folded)


def test_tokens_after_the_patches_are_left_out_where_they_are_declared() -> None:
    folded = numbered(*GRID)
    tensor = tokens(folded, before=1, after=10)
    known = {tuple(tensor.shape): {-1}}  # as a LayerNorm of the forward had them: sixteen channels are no places here
    grid = read(tensor, evidence=Evidence(known, grids={GRID}, prefixes={1}, suffix=10))
    assert torch.equal(grid.fold(tensor), folded)


def test_folding_is_linear_and_carries_gradients() -> None:
    """The gradient of a sum with weights over the folded map is the weights, unfolded; 0 at the class token."""
    weights = numbered(*GRID)
    tensor = tokens(torch.zeros_like(weights), before=1).requires_grad_()
    grid = read(tensor)
    (grid.fold(tensor) * weights).sum().backward()
    expected = tokens(weights, before=1)
    expected[:, 0] = 0
    assert torch.equal(tensor.grad, expected)


def test_merged_patches_have_half_the_grid_of_the_map_before() -> None:
    """5 x 7 cells become 3 x 4 with padding and 2 x 3 without; twelve tokens are the former."""
    assert read(torch.zeros(BATCH, 12, CHANNELS), (80, 112), Evidence(grids={(5, 7)})).space == (3, 4)
    assert read(torch.zeros(BATCH, 6, CHANNELS), (80, 112), Evidence(grids={(5, 7)})).space == (2, 3)


def test_merging_ends_at_two_places_and_may_keep_the_frames() -> None:
    """2 x 4 cells become 1 x 2. Four frames of 8 x 8 become four or two of 4 x 4."""
    assert read(torch.zeros(BATCH, 2, CHANNELS), (32, 64), Evidence(grids={(2, 4)})).space == (1, 2)
    for length, space in ((64, (4, 4, 4)), (32, (2, 4, 4))):
        assert read(torch.zeros(BATCH, length, 50), (8, 128, 128), Evidence(grids={(4, 8, 8)})).space == space


def test_the_same_layer_is_read_for_inputs_of_another_size() -> None:
    like = Grid((24,), channel_axis=-1, others=(0,))  # of a signal of 192
    for length, places in ((2, None), (3, 2), (13, 12), (97, 96), (98, None)):  # two places at least, no finer
        expected = None if places is None else Grid((places,), 0, -1, (0,))
        assert layouts.read((BATCH, length, CHANNELS), (96,), BATCH, like) == expected
    assert layouts.read((BATCH, CHANNELS, 12), (96,), BATCH) == Grid((12,))
    assert layouts.read((BATCH, CHANNELS), (96,), BATCH) is None
    assert layouts.read((BATCH, CHANNELS, *GRID), SPACE, BATCH) == Grid(GRID)
    assert layouts.read((BATCH, 24, CHANNELS), SPACE, BATCH) is None  # tokens of images have many
    three = Grid(GRID, rows=Rows(3))
    assert layouts.read((3 * BATCH, CHANNELS, 8, 12), (128, 192), BATCH, three) == Grid((8, 12), rows=Rows(3))


def test_padded_windows_are_cut_off_and_shifted_ones_rolled_back() -> None:
    """A row of 5 cells in windows of 2: 0 1 | 2 3 | 4 and padding. Of 4, rolled back by one, 1 2 | 3 0."""
    evidence = Evidence(grids={(1, 5), (1, 4)})
    (padded,) = readings((3, 2, 1), (8, 40), 1, evidence, windows=Windows((1, 2), (0, 0)))
    assert padded.layout == "1 x 5, channels last, in windows of 1 x 2"
    assert padded.fold(torch.tensor([[0.0, 1], [2, 3], [4, -1]])[..., None]).flatten().tolist() == [0, 1, 2, 3, 4]
    (shifted,) = readings((2, 2, 1), (8, 40), 1, evidence, windows=Windows((1, 2), (0, 1)))
    assert shifted.layout == "1 x 4, channels last, in windows of 1 x 2 shifted by 0 x 1"
    assert shifted.fold(torch.tensor([[1.0, 2], [3, 0]])[..., None]).flatten().tolist() == [0, 1, 2, 3]
    assert readings((3, 2, 1), (8, 40), 1, evidence, windows=Windows((1, 2), (0, 1))) == []  # which was first?


def test_a_cube_is_read_along_the_axis_where_modules_had_their_channels() -> None:
    """(B, 8, 8, 8) is as good with channels first as last; a convolution or a Linear of the forward knows."""
    shape = (BATCH, 8, 8, 8)
    both = readings(shape, (64, 64), BATCH)
    assert [grid.channel_axis for grid in both] == [1, -1]
    for axis in (1, -1):
        (found,) = readings(shape, (64, 64), BATCH, Evidence(axes={shape: {axis}}))
        assert found.channel_axis == axis
    assert len(readings(shape, (64, 64), BATCH, Evidence(axes={shape: {1, -1}}))) == 2


def test_a_length_with_two_grids_is_ambiguous() -> None:
    """Nine tokens of 96 x 96 pixels: 3 x 3 patches, or 2 x 2 after a class token and four registers."""
    found = readings((BATCH, 9, 50), (96, 96), BATCH)
    assert {(grid.space, grid.others) for grid in found} == {((3, 3), ()), ((2, 2), (0, 1, 2, 3, 4))}


def test_attention_is_not_a_picture() -> None:
    """(B, heads, N, N) over a square input looks like a map of N x N."""
    evidence = Evidence(lengths={17})
    assert readings((BATCH, 3, 17, 17), (64, 64), BATCH, evidence) == []
    assert len(readings((BATCH, 3, 16, 16), (64, 64), BATCH, evidence)) == 1


@pytest.mark.parametrize(
    "shape",
    [
        (BATCH, 10),  # a vector
        (BATCH, CHANNELS, 1, 1),  # pooled
        (BATCH, 25, 25, CHANNELS),  # another aspect ratio
        (BATCH, 128, 192, CHANNELS),  # finer than the input
        (6 * BATCH, 4, CHANNELS),  # windows, one after the other
        (BATCH, 1, CHANNELS),  # the class token alone
        (BATCH, 100, CHANNELS),  # queries
        (24, BATCH + 1, CHANNELS),  # tokens before images, of another batch
        (4, BATCH, 6, CHANNELS),  # rows before images
    ],
)
def test_what_does_not_lie_over_the_input_has_no_grid(shape: tuple[int, ...]) -> None:
    assert readings(shape, SPACE, BATCH, Evidence(grids={GRID})) == []


def test_a_given_grid_is_taken_and_what_is_before_it_inferred() -> None:
    folded = numbered(3, 8)
    tensor = tokens(folded, before=4)
    grid = read(tensor, grid=(3, 8))
    assert grid.others == (0, 1, 2, 3)
    assert torch.equal(grid.fold(tensor), folded)
    assert torch.equal(read(folded.movedim(1, -1), grid=(3, 8)).fold(folded.movedim(1, -1)), folded)
    assert readings((BATCH, 23, CHANNELS), SPACE, BATCH, grid=(3, 8)) == []


def test_a_batch_as_large_as_a_sequence_is_no_reason_to_turn_it() -> None:
    """24 images of 24 tokens: images come first, unless the model's attention runs on (N, B, C)."""
    shape = (24, 24, CHANNELS)
    assert [grid.batch_axis for grid in readings(shape, SPACE, 24)] == [0]
    assert [grid.batch_axis for grid in readings(shape, SPACE, 24, Evidence(tokens_first=True))] == [1]


# signals: a sequence has as many axes as a map


@pytest.mark.parametrize("before", [0, 1])
def test_tokens_of_a_signal_are_told_by_the_map_that_they_were_made_of(before: int) -> None:
    folded = numbered(24)
    sequence = tokens(folded, before)
    known = {tuple(sequence.shape): {-1}, (BATCH, CHANNELS, 24): {1}}
    evidence = Evidence(known, widths={CHANNELS}, grids={(24,)})
    assert read(sequence, (192,), evidence) == Grid((24,), channel_axis=-1, others=tuple(range(before)))
    assert torch.equal(read(sequence, (192,), evidence).fold(sequence), folded)
    assert torch.equal(read(folded, (192,), evidence).fold(folded), folded)


def test_a_sequence_of_a_signal_that_nothing_is_known_of_has_the_fewest_tokens_before_its_places() -> None:
    for length, grid, before in ((24, 24, ()), (25, 24, (0,)), (23, 23, ())):
        known = Evidence({(BATCH, length, CHANNELS): {-1}})
        assert read(torch.zeros(BATCH, length, CHANNELS), (192,), known) == Grid((grid,), 0, -1, before)


def test_the_average_of_a_signal_is_no_series() -> None:
    assert not readings((BATCH, CHANNELS, 1), (192,), BATCH, Evidence(widths={1, CHANNELS}))


def test_the_grid_that_a_caller_says_of_a_signal_is_found_on_either_axis() -> None:
    folded = numbered(24)
    assert torch.equal(read(folded, (192,), grid=(24,)).fold(folded), folded)
    assert torch.equal(read(folded.mT, (192,), grid=(24,)).fold(folded.mT), folded)
