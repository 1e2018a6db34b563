"""Faithfulness: by hand, and ROAD's imputation against a dense solution of the paper's equations in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from seewhy.errors import InputError
from seewhy.metrics import faithfulness


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def test_the_lowest_of_maps_without_equal_values():
    maps = torch.arange(20.0)[torch.randperm(20, generator=seeded())].reshape(1, 4, 5)
    for percentile, count in ((0, 0), (30, 6), (50, 10), (100, 19)):  # ceil(0.3 * 19), ceil(9.5), 19
        below = faithfulness.lowest(maps, percentile, generator=seeded())
        assert below.equal(maps < count)


def test_as_many_of_a_map_of_zeros():
    maps = torch.zeros(2, 10, 10)
    maps[:, 3, 4:7] = torch.tensor([[0.1, 0.2, 0.3], [0.3, 0.1, 0.2]])
    below = faithfulness.lowest(maps, 80, generator=seeded())
    assert below.sum((1, 2)).tolist() == [80, 80]
    assert not below[maps > 0].any()
    assert below[0].equal(below[1])  # one draw
    assert below[0, :5].sum() < 50  # from all over the map
    assert not below.equal(faithfulness.lowest(maps, 80, generator=seeded(1)))
    with pytest.raises(InputError, match="101"):
        faithfulness.lowest(maps, 101, generator=seeded())


def dense(image: Tensor, known: Tensor) -> Tensor:
    """Every unknown pixel the mean of its neighbours inside the image, 1/6 direct and 1/12 diagonal, renormalised."""
    height, width = known.shape
    matrix, right = torch.eye(height * width, dtype=torch.float64), torch.zeros(height * width, 3, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            row = y * width + x
            if known[y, x]:
                right[row] = image[:, y, x]
                continue
            around = {
                (y + v, x + h): 1 / 6 if 0 in (v, h) else 1 / 12
                for v in (-1, 0, 1)
                for h in (-1, 0, 1)
                if (v or h) and 0 <= y + v < height and 0 <= x + h < width
            }
            for (v, h), weight in around.items():
                matrix[row, v * width + h] = -weight / sum(around.values())
    return torch.linalg.solve(matrix, right).mT.reshape(3, height, width)


def test_imputation_solves_the_equations():
    images = torch.randn(2, 3, 9, 7, generator=seeded(), dtype=torch.float64)
    known = torch.rand(2, 9, 7, generator=seeded(1)) > 0.8
    found = faithfulness.impute(images, known, generator=seeded(), noise=0)
    expected = torch.stack([dense(image, mask) for image, mask in zip(images, known, strict=True)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # it stops at 1e-7 of the right side
    kept = known[:, None].expand_as(images)
    assert found[kept].equal(images[kept])


def test_noise_is_added_to_what_is_imputed_only():
    image, known = torch.ones(1, 1, 64, 64), torch.zeros(1, 64, 64, dtype=torch.bool)
    known[:, :32] = True
    found = faithfulness.impute(image, known, generator=seeded(), noise=0.1)
    assert found[0, 0, :32].equal(image[0, 0, :32])
    assert float(found[0, 0, 32:].mean()) == pytest.approx(1, abs=0.01)  # 2048 pixels: a deviation of 0.002
    assert float(found[0, 0, 32:].std()) == pytest.approx(0.1, abs=0.01)


def test_an_image_alone_as_in_a_batch():
    images, known = torch.randn(3, 2, 8, 8, generator=seeded()), torch.rand(3, 8, 8, generator=seeded(1)) > 0.7
    known[1] = False
    together = faithfulness.impute(images, known, generator=seeded())
    for number in range(3):
        alone = faithfulness.impute(images[number, None], known[number, None], generator=seeded())
        torch.testing.assert_close(together[number], alone[0], rtol=0, atol=1e-6)
    assert together[1].abs().max() < 0.05  # nothing is known of it: noise of 0.01


def test_neighbours_on_one_side_only():
    """The mean of the pixels to the left and right: a straight line between what is known."""
    image = torch.tensor([[[[0.0, 9.0, 9.0, 9.0, 4.0]]]])
    known = image != 9
    found = faithfulness.impute(
        image, known[:, 0], generator=seeded(), noise=0, neighbours=((0, 0, 0), (0.5, 0, 0.5), (0, 0, 0))
    )
    torch.testing.assert_close(found.flatten(), torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]))
    with pytest.raises(InputError, match="turned by 180"):
        faithfulness.impute(image, known[:, 0], generator=seeded(), neighbours=((0, 0, 0), (0.5, 0, 0.4), (0, 0, 0)))


def test_parts_of_arcc_by_hand():
    maps = torch.tensor([[[0.0, 1.0], [0.5, 0.1]], [[2.0, 2.0], [2.0, 2.0]]])
    torch.testing.assert_close(faithfulness.complexity(maps - 0.2), torch.tensor([0.35, 1.8]))
    other = torch.tensor([[[1.0, -1.0], [0.0, 0.8]], [[1.0, 2.0], [3.0, 4.0]]])
    found = faithfulness.correlation(maps, other)
    torch.testing.assert_close(found[0], torch.tensor(-1.0))  # 1 - 2 x: a line that falls
    assert found[1].isnan()
    parts = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.25, 0.3]])
    torch.testing.assert_close(faithfulness.harmonic_mean(*parts), torch.tensor([3 / 7, 0.0]))


def test_what_is_absent_of_a_signal_is_a_straight_line() -> None:
    from seewhy.metrics.faithfulness._imputation import interpolate, interpolate_line

    torch.manual_seed(0)
    signals = torch.randn(3, 2, 40, dtype=torch.float64)
    known = torch.rand(3, 40) < 0.3
    known[2] = False
    found = interpolate_line(signals, known)
    torch.testing.assert_close(found, interpolate(signals[:, :, None], known[:, None])[:, :, 0], rtol=0, atol=1e-6)
    assert not found[2].any()
