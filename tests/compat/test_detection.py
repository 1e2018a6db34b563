"""A detector, as grad-cam's tutorial explains it: a box's score, at the feature pyramid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

import seewhy
from seewhy.compat.pytorch_grad_cam.utils.model_targets import FasterRCNNBoxScoreTarget
from seewhy.compat.pytorch_grad_cam.utils.reshape_transforms import fasterrcnn_reshape_transform
from tests.compat.models import OURS


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    options = {"num_classes": 4, "min_size": 64, "max_size": 64, "box_score_thresh": 0.0}
    return fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None, **options).eval()


@pytest.mark.few(2)
@pytest.mark.parametrize("reshape_transform", [None, fasterrcnn_reshape_transform])
@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("EigenCAM", {"method": "eigen_cam", "centred": True}, {}),
        ("GradCAM", {"method": "grad_cam"}, {}),
        ("AblationCAM", {}, {"ratio": 0.3}),
    ],
)
@pytest.mark.filterwarnings("ignore::seewhy.errors.ReplayWarning", "ignore::seewhy.errors.MapWarning")
def test_a_box_of_a_detector(detector, reshape_transform, name, method, options):
    """With grad-cam's reshape_transform or none: each level of the pyramid is a map, and their mean is the result."""
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        (found,) = detector(image)
    target = FasterRCNNBoxScoreTarget(found["labels"][:4], found["boxes"][:4].numpy())
    given = {"reshape_transform": reshape_transform}
    if options:
        given |= {"ablation_layer": OURS.AblationLayerFasterRCNN(), "ratio_channels_to_ablate": options["ratio"]}
    made = getattr(OURS, name)(detector, [detector.backbone], **given)
    cam = made(image, targets=[target])
    assert cam.shape == (1, 64, 64)
    assert cam.max() > 0.99
    assert len(made.outputs[0]["boxes"]) == len(found["boxes"])
    if not options:
        explained = seewhy.explain(detector, image, lambda outputs: target(outputs[0]), layers="backbone", **method)
        sides = [made._scaled(map_.numpy(), image) for map_ in explained.maps.values()]
        np.testing.assert_allclose(cam, made.aggregate_multi_layers(sides), atol=1e-5)
        assert len(sides) > 1
