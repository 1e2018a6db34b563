"""Maps against masks: by hand, from the oracle, and beside quantus and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import quantus
import torch
from sklearn.metrics import average_precision_score

from seewhy import metrics
from seewhy.errors import InputError
from tests.metrics.cases import images, maps, seeded, tied
from tests.oracles.metrics import localization as oracle

OPTIONS = {"pointing_game": {"tolerance": 2}, "top_k_intersection": {"k": 7}}
NAMES = (
    "average_precision",
    "best_iou",
    "pointing_game",
    "relevance_mass",
    "relevance_rank",
    "top_k_intersection",
)


def close(found, expected, atol=1e-12):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), rtol=0, atol=atol, equal_nan=True)


def masks(like, share=0.2, seed=5):
    return torch.rand(like.shape, generator=seeded(seed)) < share


def test_all_of_them_by_hand():
    """Values 6 5 4 3 2 -1, the mask on 6, 4 and 2: precisions 1/1, 2/3 and 3/5 at recalls 1/3, 2/3 and 1."""
    heat = torch.tensor([[[6.0, 5.0, 4.0], [3.0, 2.0, -1.0]]])
    mask = torch.tensor([[[True, False, True], [False, True, False]]])
    close(metrics.average_precision(heat, mask), [(1 + 2 / 3 + 3 / 5) / 3], 1e-6)
    close(metrics.best_iou(heat, mask), [3 / 5], 1e-6)  # the five highest; the three highest have 2 / 4
    close(metrics.pointing_game(heat, mask), [1])
    close(metrics.relevance_mass(heat, mask), [12 / 20], 1e-6)
    close(metrics.relevance_rank(heat, mask), [2 / 3], 1e-6)
    close(metrics.top_k_intersection(heat, mask, k=2), [1 / 2])
    close(metrics.energy_pointing(heat, [torch.tensor([[0.0, 0.0, 2.0, 1.0]])]), [11 / 20], 1e-6)
    close(metrics.grid_pointing(torch.arange(16.0).reshape(1, 4, 4), torch.tensor([3])), [(10 + 11 + 14 + 15) / 120])


def test_equal_values_by_hand():
    """3 3 1 1, the mask on the first 3 and the first 1: what it is on average over orders."""
    heat, mask = torch.tensor([[[3.0, 3.0, 1.0, 1.0]]]), torch.tensor([[[True, False, True, False]]])
    close(metrics.pointing_game(heat, mask), [1 / 2])
    close(metrics.top_k_intersection(heat, mask, k=3), [(1 + 1 / 2) / 3])
    close(metrics.relevance_rank(heat, mask), [1 / 2])
    close(metrics.average_precision(heat, mask), [1 / 2 * 1 / 2 + 1 / 2 * 2 / 4])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [maps, tied], ids=["distinct", "tied"])
def test_from_the_oracle(name, make):
    heat = make(images(4)) - 0.1
    mask = masks(heat)
    options = OPTIONS.get(name, {})
    expected = [getattr(oracle, name)(a.numpy(), m.numpy(), *options.values()) for a, m in zip(heat, mask, strict=True)]
    close(getattr(metrics, name)(heat, mask, **options), expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_volume_from_the_oracle(name):
    heat = maps(images(2, side=4, dims=3))
    mask = masks(heat)
    options = OPTIONS.get(name, {})
    expected = [getattr(oracle, name)(a.numpy(), m.numpy(), *options.values()) for a, m in zip(heat, mask, strict=True)]
    close(getattr(metrics, name)(heat, mask, **options), expected)


@pytest.mark.parametrize("make", [maps, tied], ids=["distinct", "tied"])
def test_average_precision_is_that_of_scikit_learn(make):
    heat = make(images(3, side=30))
    mask = masks(heat)
    expected = [average_precision_score(m.flatten(), a.flatten()) for a, m in zip(heat, mask, strict=True)]
    close(metrics.average_precision(heat, mask), expected)


def test_beside_quantus():
    x = images(4).float()
    heat = maps(x).float()
    mask = masks(heat)
    data = {"x_batch": x.numpy(), "y_batch": np.zeros(4, int), "a_batch": heat[:, None].numpy()}

    def theirs(metric, **options):
        return metric(disable_warnings=True, **options)(
            model=None, s_batch=mask[:, None].numpy(), channel_first=True, **data
        )

    close(metrics.pointing_game(heat, mask), np.array(theirs(quantus.PointingGame), float))
    close(metrics.relevance_mass(heat, mask), theirs(quantus.RelevanceMassAccuracy), 1e-6)
    close(metrics.relevance_rank(heat, mask), theirs(quantus.RelevanceRankAccuracy), 1e-6)
    close(metrics.top_k_intersection(heat, mask, k=9), theirs(quantus.TopKIntersection, k=9), 1e-6)


def test_quantus_takes_a_flat_map_for_a_hit():
    """Any of the hottest pixels, here half of all; and an empty mask is a hit too, as NaN is put into booleans."""
    heat, mask = torch.ones(2, 8, 8), torch.zeros(2, 8, 8, dtype=torch.bool)
    heat[:, :, 4:] = 0
    mask[0, 2:4, 2:4] = True
    found = quantus.PointingGame(disable_warnings=True)(
        model=None,
        x_batch=np.zeros((2, 1, 8, 8), np.float32),
        y_batch=np.zeros(2, int),
        a_batch=heat[:, None].numpy(),
        s_batch=mask[:, None].numpy(),
        channel_first=True,
    )
    assert list(found) == [True, True]
    close(metrics.pointing_game(heat, mask), [4 / 32, math.nan])


def test_grid_pointing_beside_quantus():
    heat = maps(images(4)).float() - 0.3
    cells = torch.tensor([0, 1, 2, 3])
    found = quantus.Focus(disable_warnings=True, normalise=False)(
        model=torch.nn.Identity(),
        x_batch=np.zeros((4, 1, 8, 8), np.float32),
        y_batch=np.zeros(4, int),
        a_batch=heat[:, None].numpy(),
        custom_batch=[tuple(int(cell == i) for i in range(4)) for cell in cells],
        channel_first=True,
    )
    close(metrics.grid_pointing(heat, cells), found, 1e-6)


def test_mosaics_row_by_row():
    x = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 2, 3)
    mosaic = metrics.mosaics(torch.cat([x, x + 4]))
    assert mosaic.shape == (2, 3, 4, 6)
    assert mosaic[0, 0, ::2, ::3].tolist() == [[0, 1], [2, 3]]
    assert mosaic[1, 2, 1::2, 2::3].tolist() == [[4, 5], [6, 7]]
    for cell in range(4):
        heat = (mosaic[:1, 0] == cell).float()
        close(metrics.grid_pointing(heat.expand(4, 4, 6), torch.arange(4)), (torch.arange(4) == cell).float())
    with pytest.raises(InputError, match="fill the mosaics"):
        metrics.mosaics(x[:3])


def test_boxes_as_masks():
    boxes = [torch.tensor([[1.0, 0.0, 3.0, 2.0], [3.4, 2.0, 9.0, 3.0]]), torch.zeros(0, 4)]
    mask = metrics.box_masks(boxes, (3, 4))
    assert mask[0].int().tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]  # 3.5 is inside
    assert not mask[1].any()
    volume = metrics.box_masks([torch.tensor([[0.0, 1.0, 2.0, 1.0, 2.0, 4.0]])], (4, 2, 3))
    assert volume[0].nonzero().tolist() == [[2, 1, 0], [3, 1, 0]]
    with pytest.raises(InputError, match="image 0"):
        metrics.box_masks([torch.zeros(1, 6)], (3, 4))


def test_the_same_pixels_as_an_explanations_boxes():
    from seewhy.images import arrays

    heat = torch.zeros(5, 6)
    heat[1:3, 2:5] = 1
    assert metrics.box_masks([arrays.boxes(heat).float()], (5, 6))[0].equal(heat > 0)


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_judged(name):
    heat = maps(images(3))
    mask = masks(heat)
    mask[1] = False
    options = {"k": 10} if name == "top_k_intersection" else {}
    metric = getattr(metrics, name)
    assert metric(heat, mask, **options).isnan().tolist() == [False, True, False]
    close(metric(torch.ones_like(heat), mask, **options)[0], mask[0].double().mean())  # chance: the mask's share
    close(metric(heat[:1], mask[:1], **options), metric(heat, mask, **options)[:1])
    with pytest.raises(InputError, match="differ in shape"):
        metric(heat, mask[:, :4], **options)
    with pytest.raises(InputError, match="masks > 0"):
        metric(heat, mask.float(), **options)
    with pytest.raises(InputError, match=r"images \[2\]"):
        metric(heat.index_fill(0, torch.tensor([2]), math.inf), mask, **options)


def test_no_heat_has_no_share_anywhere():
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    assert metrics.relevance_mass(-torch.ones(1, 4, 4), mask).isnan().all()
    assert metrics.grid_pointing(torch.zeros(1, 4, 4), torch.tensor([0])).isnan().all()
    assert metrics.energy_pointing(torch.ones(1, 4, 4), [torch.zeros(0, 4)]).isnan().all()
    with pytest.raises(InputError, match="no such cell"):
        metrics.grid_pointing(torch.ones(1, 4, 4), torch.tensor([4]))
    with pytest.raises(InputError, match="do not fit"):
        metrics.grid_pointing(torch.ones(1, 5, 4), torch.tensor([0]))
