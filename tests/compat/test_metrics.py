"""grad-cam's metrics: its numbers where no two pixels of a map are equal, and both numbers where they are."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_grad_cam.metrics.arcc
import pytorch_grad_cam.metrics.cam_mult_image
import pytorch_grad_cam.metrics.perturbation_confidence
import pytorch_grad_cam.metrics.road
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget, ClassifierOutputTarget

from seewhy.compat.pytorch_grad_cam.metrics import arcc, cam_mult_image, perturbation_confidence, road
from seewhy.errors import TargetError
from tests.compat.models import OURS, UPSTREAM, cnn, images

theirs = pytorch_grad_cam.metrics
TARGETS = [ClassifierOutputTarget(1), ClassifierOutputSoftmaxTarget(3)]
CLOSE = 2e-6  # of scores near 0.1: an imputed pixel is exact to 1e-6


@pytest.fixture
def maps():
    """No two pixels are equal."""
    return np.random.default_rng(0).permutation(2 * 32 * 32).reshape(2, 32, 32).astype(np.float32) / 2048


@pytest.fixture
def without_noise(monkeypatch):
    """Each package draws its own."""
    for module in (road, theirs.road):
        noisy = module.NoisyLinearImputer
        silent = type("Silent", (noisy,), {"__init__": lambda self, noisy=noisy: noisy.__init__(self, 0.0)})
        monkeypatch.setattr(module, "NoisyLinearImputer", silent)


@pytest.mark.parametrize("name", ["CamMultImageConfidenceChange", "DropInConfidence", "IncreaseInConfidence"])
def test_the_image_times_its_map(maps, name):
    found, expected = (
        getattr(m, name)()(images(), maps, TARGETS, cnn()) for m in (cam_mult_image, theirs.cam_mult_image)
    )
    np.testing.assert_allclose(found, expected, atol=CLOSE)
    assert found.dtype == np.float32


def test_what_a_metric_returns(maps):
    """The scores afterwards instead of their change, and the images; for any perturbation of one image."""

    def shaded(image, mask):
        return image * (mask > 0.5) + mask

    found, expected = (
        module.PerturbationConfidenceMetric(shaded)(images(), maps, TARGETS, cnn(), True, False)
        for module in (perturbation_confidence, theirs.perturbation_confidence)
    )
    np.testing.assert_allclose(found[0], expected[0], atol=CLOSE)
    torch.testing.assert_close(found[1], expected[1])


ROADS = [
    ("ROADMostRelevantFirst", {}),
    ("ROADLeastRelevantFirst", {}),
    ("ROADMostRelevantFirst", {"percentile": 35}),
    ("ROADLeastRelevantFirst", {"percentile": 65}),
    ("ROADMostRelevantFirstAverage", {}),
    ("ROADLeastRelevantFirstAverage", {"percentiles": [10, 60]}),
    ("ROADCombined", {"percentiles": [20, 40, 60, 80]}),
]


@pytest.mark.parametrize("exact", [{}, {"upstream_exact": True}], ids=str)
@pytest.mark.parametrize(("name", "options"), ROADS)
@pytest.mark.usefixtures("without_noise")
def test_road(maps, name, options, exact):
    expected = getattr(theirs.road, name)(**options)(images(), maps, TARGETS, cnn())
    found = getattr(road, name)(**options, **exact)(images(), maps, TARGETS, cnn())
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=CLOSE)


@pytest.mark.usefixtures("without_noise")
def test_road_of_a_map_with_zeros(maps):
    """grad-cam takes the whole image at percentile 50 if more than half of the map is 0; here half of it goes."""
    maps = np.where(maps > 0.7, maps, 0).astype(np.float32)
    removed = {}
    for name, module, exact in (
        ("theirs", theirs.road, {}),
        ("exact", road, {"upstream_exact": True}),
        ("ours", road, {}),
    ):
        metric = module.ROADMostRelevantFirst(50, **exact)
        scores, changed = metric(images(), maps, TARGETS, cnn(), return_visualization=True)
        removed[name] = scores, (changed != images()).any(1).float().mean((1, 2)).tolist()
    assert removed["theirs"][1] == removed["exact"][1] == [1, 1]
    np.testing.assert_allclose(removed["exact"][0], removed["theirs"][0], atol=CLOSE)
    assert removed["ours"][1] == [0.5, 0.5]  # 1024 - ceil(1023 / 2) pixels


@pytest.mark.parametrize("name", ["RemoveMostRelevantFirst", "RemoveLeastRelevantFirst"])
def test_the_threshold_of_otsu(maps, name):
    """grad-cam keeps what is above it, and so takes the least relevant pixels first for the most relevant."""
    mask = torch.from_numpy(maps[0] ** 3)

    def kept(image, mask):
        return mask > 0.5

    expected = getattr(theirs.perturbation_confidence, name)("auto", kept)(images()[0], mask)
    ours = getattr(perturbation_confidence, name)
    assert 0.05 < expected.float().mean() < 0.95
    assert ours("auto", kept, upstream_exact=True)(images()[0], mask).equal(expected)
    found = ours("auto", kept)(images()[0], mask)
    assert found.equal(~expected)
    assert (mask[found].mean() < mask[~found].mean()) == (name == "RemoveMostRelevantFirst")


def test_the_imputer(maps):
    image, mask = images()[0], torch.from_numpy(maps[0] > 0.6).float()
    expected = theirs.road.NoisyLinearImputer(0.0)(image, mask)
    found = road.NoisyLinearImputer(0.0)(image, mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=CLOSE)
    assert dict(road.neighbors_weights) == dict(theirs.road.neighbors_weights)
    direct = [((0, 1), 1 / 4), ((0, -1), 1 / 4), ((1, 0), 1 / 4), ((-1, 0), 1 / 4)]
    assert theirs.road.NoisyLinearImputer(0.0, direct)(image, mask).equal(expected)  # it does not look at them
    assert (road.NoisyLinearImputer(0.0, direct)(image, mask) - expected).abs().max() > 0.1
    noisy = road.NoisyLinearImputer()(image, mask) - found
    assert float(noisy[:, mask == 0].std()) == pytest.approx(0.01, abs=0.001)


@pytest.mark.usefixtures("without_noise")
def test_arcc(maps):
    """Of several classes' maps; the parts are grad-cam's to what it adds to what it divides by, 1e-8."""
    found, expected = [], []
    for package, module, results in ((OURS, arcc, found), (UPSTREAM, theirs.arcc, expected)):
        model = cnn()
        cam = package.GradCAM(model, [model[4]])
        shown = cam(images(), TARGETS)
        results += [module.Complexity()(shown), module.Coherency()(images(), shown, TARGETS, model, cam)]
        results += [module.ARCC(cam)(images(), maps, TARGETS, model)]
        results += [module.batch_pearson_coherency(shown, maps)]
    for ours, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, other, atol=1e-4)
    assert arcc.batch_pearson_coherency(maps, np.ones_like(maps)).tolist() == [0, 0]


def test_the_model_and_the_random_state_are_left_as_they_were(maps):
    """In training mode, too: the scores are those of eval mode, and grad-cam's would be of the batch's statistics."""
    model = cnn().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    found = road.ROADMostRelevantFirst()(images(), maps, TARGETS, model)
    assert torch.get_rng_state().equal(state)
    assert model.training
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    np.testing.assert_array_equal(found, road.ROADMostRelevantFirst()(images(), maps, TARGETS, cnn()))
    with pytest.raises(TargetError, match="1 target for 2 images"):
        road.ROADMostRelevantFirst()(images(), maps, TARGETS[:1], model)
