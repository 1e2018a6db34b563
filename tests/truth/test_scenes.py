"""The scenes say truly where their marks are, and nothing else in them tells of a kind."""

from __future__ import annotations

import pytest
import torch

from tests.truth import scenes
from tests.truth.scenes import KINDS, SIZE, clever_hans, marks, mosaics, photographs, pictures, volumes

FAMILIES = ("patterns", "shapes")


@pytest.mark.parametrize("family", FAMILIES)
def test_masks_labels_and_targets_agree(family):
    seen = marks(40, family=family, seed=3)
    assert seen.images.shape == (40, 3, SIZE, SIZE)
    assert seen.masks.shape == (40, len(KINDS[family]), SIZE, SIZE)
    assert torch.equal(seen.labels, seen.masks.flatten(2).any(-1))
    assert seen.labels[torch.arange(40), seen.target].all()
    assert (seen.masks.sum(1) <= 1).all()  # no pixel is of two kinds
    assert (seen.labels.sum(1) >= 2).all()  # there is always something else to point at
    share = seen.truth.float().mean()
    assert 0.03 < share < 0.1
    shares = marks(400, family=family, seed=4).labels.float().mean(0)
    assert ((shares > 0.45) & (shares < 0.7)).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_gives_the_same_scenes(family):
    one, same, other = (marks(4, family=family, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.images, same.images)
    assert not torch.equal(one.images, other.images)


def test_what_a_mark_of_known_size_covers():
    """Discs of 8 pixels' radius: pi x 64 = 201 pixels each; squares 0.9 as large: (2 x 7.2)² = 207."""
    discs = marks(50, number=2, radius=(8.0, 8.0))
    covered = discs.masks.sum((1, 2, 3)).float() / 2
    assert abs(covered.median() - 201) < 4
    shapes = marks(80, family="shapes", number=2, radius=(8.0, 8.0), seed=5)
    squares = shapes.masks[shapes.target == 1, 1].sum((1, 2)).float()
    assert abs(squares.median() - 207) < 12


def test_small_and_large_marks():
    small, large = (marks(30, radius=radius).truth.float().mean() for radius in ((4.0, 5.0), (11.0, 13.0)))
    assert large > 4 * small


def test_marks_lie_in_the_image_and_beside_each_other():
    seen = marks(100, seed=6)
    assert (seen.boxes >= 0).all()
    assert (seen.boxes <= SIZE).all()
    middles = (seen.boxes[..., :2] + seen.boxes[..., 2:]) / 2
    gaps = torch.cdist(middles, middles) - seen.radii[:, None] - seen.radii[:, :, None] + 1e3 * torch.eye(4)
    assert (gaps > 0).float().mean() > 0.97


def test_images_of_distractors_alone():
    seen = marks(20, absent=1.0)
    assert not seen.labels.any()
    assert (seen.kinds == len(KINDS["patterns"])).all()


def test_the_cue_comes_with_its_kind_and_can_be_left_out():
    seen, faint = clever_hans(30, seed=8)
    without, _ = clever_hans(30, seed=8, cue=False)
    differs = (seen.images != without.images).any(1)
    assert torch.equal(differs.flatten(1).any(1), seen.labels[:, 0])
    assert not (differs & ~seen.masks[:, 0]).any()
    assert differs[seen.labels[:, 0]].sum() == seen.masks[:, 0][seen.labels[:, 0]].sum()
    assert not (faint & seen.masks[:, 0]).flatten(1).any(1).float().mean() > 0.1  # the cue is somewhere else


def test_volumes():
    seen = volumes(20)
    assert seen.images.shape == (20, 1, *scenes.VOLUME)
    assert torch.equal(seen.labels, seen.masks.flatten(2).any(-1))
    bright = seen.labels[:, 0]
    means = torch.stack([image[0][mask[0]].mean() for image, mask in
                         zip(pictures(seen.images)[bright], seen.masks[bright], strict=True)])  # fmt: skip
    assert (means - 0.9).abs().max() < 0.03


def test_mosaics_hold_the_photographs():
    seen = mosaics(4)
    for image, kinds, masks in zip(seen.images, seen.kinds, seen.masks, strict=True):
        for kind, photograph in enumerate(photographs()):
            cell = image[:, masks[kind]].reshape(3, 224, 224)
            assert torch.equal(cell, photograph) or torch.equal(cell, photograph.flip(-1))
            assert kinds[[0, 1, 2, 3]].tolist().count(kind) == 1
    assert (seen.masks.sum(1) == 1).all()
    assert -1 <= seen.images.min() < seen.images.max() <= 1
