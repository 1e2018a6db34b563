"""Maps by comparison with other images: a place patched into a neutral run, a difference to a reference group."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seewhy
from seewhy.errors import InputError
from seewhy.images.absent import absent
from tests.methods.test_perturbation import CLASSES, images, slow, small
from tests.oracles import perturbation as oracle

each_size = pytest.mark.parametrize("dimensions", [2, 3])


def explained(method, dimensions, **options):
    model, batch = small(dimensions), images(dimensions)
    return seewhy.explain(model, batch, CLASSES, method=method, layers="1", **options).maps["1"]


def close(found, expected):
    torch.testing.assert_close(found, torch.tensor(np.stack(expected)).float(), rtol=1e-5, atol=1e-5)


@each_size
@pytest.mark.parametrize("baseline", ["blur", "mean", "zero", "given"])
def test_caap_equals_slow_twin(dimensions, baseline):
    batch = images(dimensions)
    option = torch.randn(batch.shape, generator=torch.Generator().manual_seed(1)) if baseline == "given" else baseline
    expected = []
    for image, other, category in zip(batch, absent(batch, option), CLASSES, strict=True):
        _, _, own = slow(small(dimensions), image, category)
        model, neutral, there = slow(small(dimensions), other, category)
        expected.append(oracle.caap(model, neutral, own, there))
    close(explained("caap", dimensions, baseline=option), expected)


def test_caap_of_several_targets_is_each_ones():
    model, batch = small(2), images(2)
    both = seewhy.explain(model, batch, torch.tensor([[2, 1], [0, 1]]), method="caap", layers="1").maps["1"]
    torch.testing.assert_close(both[:, 0], explained("caap", 2))
    torch.testing.assert_close(both[:, 1], seewhy.explain(model, batch, 1, method="caap", layers="1").maps["1"])


@each_size
def test_diff_cam_equals_slow_twin(dimensions):
    batch = images(dimensions)
    group = torch.randn(5, *batch.shape[1:], generator=torch.Generator().manual_seed(2))
    theirs = [slow(small(dimensions), image, 0)[2] for image in group]
    own = [slow(small(dimensions), image, 0)[2] for image in batch]
    close(explained("diff_cam", dimensions, reference=group), [oracle.diff_cam(A, theirs) for A in own])
    close(explained("diff_cam", dimensions, reference=group, batch_size=2), [oracle.diff_cam(A, theirs) for A in own])
    blurred = [slow(small(dimensions), image, 0)[2] for image in absent(batch, "blur")]
    expected = [oracle.diff_cam(A, [other]) for A, other in zip(own, blurred, strict=True)]
    close(explained("diff_cam", dimensions), expected)


def test_an_image_is_no_different_from_itself():
    with pytest.warns(seewhy.errors.MapWarning, match="zero everywhere"):
        found = seewhy.explain(small(2), images(2)[:1], 0, method="diff_cam", layers="1", reference=images(2)[:1])
    assert found.maps["1"].abs().max() < 1e-6


def test_references_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"references do not fit(.|\n)*\(R, 2, 8, 8\)"):
        explained("diff_cam", 2, reference=torch.zeros(3, 2, 6, 6))
