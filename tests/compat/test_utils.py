"""Targets, pictures, layouts and projections: grad-cam's numbers on random inputs."""

from __future__ import annotations

import cv2
import matplotlib
import numpy as np
import pytest
import pytorch_grad_cam.sobel_cam
import torch
from matplotlib import pyplot as plt
from pytorch_grad_cam import sess as theirs_sess
from pytorch_grad_cam.utils import find_layers as theirs_find
from pytorch_grad_cam.utils import image as theirs_image
from pytorch_grad_cam.utils import model_targets as theirs_targets
from pytorch_grad_cam.utils import reshape_transforms as theirs_reshape
from pytorch_grad_cam.utils import svd_on_activations as theirs_svd
from torch import nn

from seewhy.compat.pytorch_grad_cam import sess
from seewhy.compat.pytorch_grad_cam.sobel_cam import sobel_cam
from seewhy.compat.pytorch_grad_cam.utils import find_layers, image, model_targets, reshape_transforms
from seewhy.compat.pytorch_grad_cam.utils import svd_on_activations as svd
from seewhy.errors import InputError
from tests.compat.models import OURS, UPSTREAM


@pytest.fixture
def draw():
    return np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(7,), (3, 7)], ids=str)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ClassifierOutputTarget", (4,)),
        ("ClassifierOutputSoftmaxTarget", (4,)),
        ("ClassifierOutputReST", (4,)),
        ("BinaryClassifierOutputTarget", (1,)),
        ("BinaryClassifierOutputTarget", (0,)),
        ("SoftmaxOutputTarget", ()),
        ("RawScoresOutputTarget", ()),
        ("FinerWeightedTarget", (4, [0, 2, 6], 0.7)),
    ],
)
def test_targets_of_class_scores(name, arguments, shape):
    scores = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found, theirs = (getattr(module, name)(*arguments)(scores) for module in (model_targets, theirs_targets))
    torch.testing.assert_close(found, theirs)


def test_weights_of_classes_that_are_very_unlikely():
    """Their probabilities are 0 in float32, and grad-cam's target is 0 whatever the scores."""
    scores = torch.tensor([200.0, 2.0, 2.0])
    assert theirs_targets.FinerWeightedTarget(0, [1, 2], 0.5)(scores) == 0
    assert model_targets.FinerWeightedTarget(0, [1, 2], 0.5)(scores) == 199


def test_target_of_a_region(draw):
    scores, mask = torch.from_numpy(draw.normal(size=(3, 5, 6))), draw.random((5, 6)) > 0.5
    found = model_targets.SemanticSegmentationTarget(2, np.float32(mask))(scores)
    torch.testing.assert_close(found, theirs_targets.SemanticSegmentationTarget(2, np.float32(mask))(scores))


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_target_of_boxes(draw, threshold):
    corners = np.float32(draw.random((6, 2)) * 10)
    boxes = np.concatenate([corners, corners + 3], 1)
    moved = torch.from_numpy(boxes + np.float32(draw.random((6, 4)))).requires_grad_()
    detected = {"boxes": moved, "labels": torch.tensor([1, 2, 1, 2, 9, 1]), "scores": torch.rand(6)}
    scores = [
        module.FasterRCNNBoxScoreTarget([1, 2, 1, 2, 1, 1], boxes, threshold)(detected)
        for module in (model_targets, theirs_targets)
    ]
    torch.testing.assert_close(*scores)
    assert scores[0] > (0 if threshold < 0.9 else -1)
    nothing = {name: values[:0] for name, values in detected.items()}
    assert model_targets.FasterRCNNBoxScoreTarget([1], boxes[:1])(nothing).tolist() == [0]


def test_layouts(draw):
    tokens = torch.from_numpy(draw.normal(size=(2, 13, 5)))
    for name, options in (("vit", {"height": 3, "width": 4}), ("swinT", {"height": 1, "width": 13})):
        found, theirs = (
            getattr(module, f"{name}_reshape_transform")(tokens, **options)
            for module in (reshape_transforms, theirs_reshape)
        )
        torch.testing.assert_close(found, theirs, rtol=0, atol=0)
    pyramid = {"0": torch.randn(1, 4, 16, 12), "1": torch.randn(1, 4, 7, 6), "pool": torch.randn(1, 4, 4, 3)}
    torch.testing.assert_close(
        reshape_transforms.fasterrcnn_reshape_transform(pyramid), theirs_reshape.fasterrcnn_reshape_transform(pyramid)
    )


@pytest.mark.parametrize("shape", [(2, 6, 4, 5), (2, 3, 6, 5)], ids=str)
@pytest.mark.parametrize(
    "name", ["get_2d_projection", "get_2d_projection_kernel", "get_2d_projection_with_sign_correction"]
)
def test_projections(draw, name, shape):
    """But for the sign, which the last one has a rule for. NaN is 0. scikit-learn's solver stops at some 1e-5."""
    activations = np.float32(draw.normal(size=shape))
    activations[0, 1, 2, 3] = np.nan
    given = activations.copy()
    found, theirs = getattr(svd, name)(activations), getattr(theirs_svd, name)(activations)
    np.testing.assert_array_equal(activations, given)
    if "correction" not in name:
        signs = np.sign((found * theirs).sum((1, 2), keepdims=True))
        theirs = signs * theirs
    np.testing.assert_allclose(found, theirs, atol=1e-4)


def test_the_sign_of_a_projection_is_that_of_the_sum_unless_asked():
    activations = np.zeros((1, 2, 2, 2), np.float32)
    activations[0, :, 0, 0] = -3.0
    assert svd.get_2d_projection(activations)[0, 0, 0] < 0
    np.testing.assert_allclose(
        svd.get_2d_projection(activations, upstream_exact=True), theirs_svd.get_2d_projection(activations), atol=1e-6
    )


def small() -> nn.Sequential:
    relu = nn.ReLU()
    return nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), relu), relu, nn.Sequential(nn.Sigmoid(), nn.ReLU6()))


def test_layers_are_found_once_each():
    """grad-cam lists a shared one wherever it stands."""
    model = small()
    found = find_layers.find_layer_types_recursive(model, [nn.ReLU, nn.Conv2d])
    assert found == [model[0][0], model[0][1]]
    assert theirs_find.find_layer_types_recursive(model, [nn.ReLU, nn.Conv2d]) == [*found, model[1]]
    assert find_layers.find_layer_predicate_recursive(model, lambda layer: isinstance(layer, nn.Sequential)) == [
        model[0],
        model[2],
    ]


def test_layers_are_replaced():
    for module in (find_layers, theirs_find):
        model, new = small(), nn.Tanh()
        assert module.replace_layer_recursive(model, model[2][1], new)
        assert model[2][1] is new
        assert not module.replace_layer_recursive(model, nn.GELU(), new)
        module.replace_all_layer_type_recursive(model, nn.ReLU, new)
        assert [type(layer).__name__ for layer in (*model[0], model[1], *model[2])] == [
            "Conv2d", "Tanh", "Tanh", "Sigmoid", "Tanh",
        ]  # fmt: skip


@pytest.mark.parametrize("step", [3, 5, 9], ids=["overlapping", "side by side", "apart"])
@pytest.mark.parametrize("length", [4, 5, 11, 20])
def test_windows(length, step):
    assert sess.window_starts(length, step, 5) == theirs_sess.window_starts(length, step, 5)
    assert sess.sliding_window(length, 13, step, 5) == theirs_sess.sliding_window(length, 13, step, 5)


def test_what_a_bias_adds():
    """Of convolutions and of batch normalisations with their running statistics, in the order of the model."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False)).eval()
    for tensor in (model[1].weight.data, model[1].running_mean, model[1].running_var):
        tensor.uniform_(0.5, 2)
    found, theirs = (package.FullGrad(model, []) for package in (OURS, UPSTREAM))
    assert len(found.bias_data) == len(theirs.bias_data) == 2
    for one, other in zip(found.bias_data, theirs.bias_data, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    torch.testing.assert_close(found.get_bias_data(model[1]), theirs.get_bias_data(model[1]))


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_into_the_form_of_the_model_and_back(draw, kind):
    picture = (draw.random((5, 6, 3)) * (255 if kind is np.uint8 else 1)).astype(kind)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    found, theirs = (module.preprocess_image(picture, mean, std) for module in (image, theirs_image))
    torch.testing.assert_close(found, theirs)
    torch.testing.assert_close(image.preprocess_image(picture), theirs_image.preprocess_image(picture))
    values = draw.normal(size=(5, 6, 3)).astype(np.float32) * 40
    np.testing.assert_array_equal(image.deprocess_image(values), theirs_image.deprocess_image(values))


EVERY_LEVEL = (np.arange(256, dtype=np.float32).reshape(16, 16) + 0.5) / 256
LEVEL = 1  # the tables' rounding: OpenCV's jet has one entry of 768 that it rounds down from 1.5


@pytest.mark.parametrize("options", [{}, {"use_rgb": True}, {"image_weight": 0.3}, {"image_weight": 0.0}], ids=str)
def test_overlay(draw, options):
    photo = np.float32(draw.random((16, 16, 3)))
    found, theirs = (module.show_cam_on_image(photo, EVERY_LEVEL, **options) for module in (image, theirs_image))
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - theirs).max() <= LEVEL
    assert (found != theirs).mean() < 0.01


COLORMAPS = {name.removeprefix("COLORMAP_"): getattr(cv2, name) for name in dir(cv2) if name.startswith("COLORMAP_")}


def test_overlay_in_all_colours_but_one():
    """Of OpenCV's 22 numbers all but Parula, which is a table without a formula, to one level of 255."""
    assert sorted(COLORMAPS.values()) == list(range(22))
    photo, different = np.zeros((16, 16, 3), np.float32), {}
    for name, number in COLORMAPS.items():
        options = {"colormap": number, "image_weight": 0, "use_rgb": True}
        if name == "PARULA":
            with pytest.raises(InputError, match="OpenCV's number 12"):
                image.show_cam_on_image(photo, EVERY_LEVEL, **options)
            continue
        found, theirs = (module.show_cam_on_image(photo, EVERY_LEVEL, **options) for module in (image, theirs_image))
        different[name] = int(np.abs(found.astype(int) - theirs).max())
    assert len(different) == 21
    assert max(different.values()) <= LEVEL, different


def test_overlay_in_matplotlibs_colours():
    photo = np.zeros((16, 16, 3), np.float32)
    for colormap in ("viridis", matplotlib.colormaps["viridis"]):
        named = image.show_cam_on_image(photo, EVERY_LEVEL, colormap=colormap, image_weight=0)
        numbered = image.show_cam_on_image(photo, EVERY_LEVEL, colormap=cv2.COLORMAP_VIRIDIS, image_weight=0)
        np.testing.assert_array_equal(named, numbered)


def test_overlay_refuses_what_would_be_drawn_wrong():
    photo = np.zeros((2, 2, 3), np.float32)
    with pytest.raises(InputError, match="from 0 to 255"):  # grad-cam's 8 bits wrap round
        image.show_cam_on_image(photo, np.array([[0.0, 255.0], [0.0, 0.0]]))
    with pytest.raises(InputError, match="OpenCV's number 22"):
        image.show_cam_on_image(photo, photo[..., 0], colormap=22)
    black = image.show_cam_on_image(photo, photo[..., 0], image_weight=1.0)  # grad-cam divides 0 by 0
    assert black.max() == 0


def test_concepts_in_colours(draw):
    """OpenCV's colours of 8 bits are kept; what is added up and cut off may still be one level apart."""
    photo, maps = np.float32(draw.random((20, 30, 3))), np.float32(draw.random((4, 20, 30)))
    colours = [np.array([1.0, 0.1, 0.2]), np.array([0.3, 0.9, 0.1]), np.array([0.2, 0.4, 1.0]), np.array([0.5] * 3)]
    found = image.show_factorization_on_image(photo, maps, colours, 0.4)
    theirs = theirs_image.show_factorization_on_image(photo, maps.copy(), colours, 0.4)
    assert np.abs(found.astype(int) - theirs).max() <= LEVEL
    assert (found != theirs).mean() < 0.02


def test_the_colours_of_concepts_by_default(draw, monkeypatch):
    """grad-cam asks matplotlib for them by a function that is gone."""
    photo, maps = np.zeros((20, 30, 3), np.float32), np.float32(draw.random((3, 20, 30)))
    with pytest.raises(AttributeError, match="get_cmap"):
        theirs_image.show_factorization_on_image(photo, maps.copy())
    monkeypatch.setattr(plt.cm, "get_cmap", matplotlib.colormaps.get, raising=False)
    monkeypatch.setattr(plt.cm, "get_cmap", matplotlib.colormaps.__getitem__)
    theirs = theirs_image.show_factorization_on_image(photo, maps.copy())
    assert np.abs(image.show_factorization_on_image(photo, maps).astype(int) - theirs).max() <= LEVEL


def test_the_legend_of_concepts(draw):
    """To the right, a line in each concept's colour, in grad-cam's order; its margins are not grad-cam's."""
    scores = np.float32(draw.random((3, 5)))
    names = {k: f"name {k},other,third,fourth" for k in range(5)}
    labels = image.create_labels_legend(scores, names, top_k=2)
    assert labels == theirs_image.create_labels_legend(scores, names, top_k=2)
    photo, maps = np.float32(draw.random((120, 160, 3))), np.float32(draw.random((3, 120, 160)))
    colours = [np.eye(3)[k] for k in range(3)]
    before = dict(matplotlib.rcParams)
    found = image.show_factorization_on_image(photo, maps, colours, concept_labels=labels)
    assert dict(matplotlib.rcParams) == before
    with matplotlib.rc_context():
        theirs = theirs_image.show_factorization_on_image(photo, maps.copy(), colours, concept_labels=labels)
    assert found.shape == theirs.shape == (120, 320, 3)
    for picture in (found, theirs):
        rows = [np.nonzero((picture[:, 160:] == 255 * colour).all(-1))[0] for colour in colours]
        assert 0 < rows[0].max() < rows[1].min() <= rows[1].max() < rows[2].min()


@pytest.mark.parametrize("size", [None, (12, 9), (3, 2)], ids=str)
def test_scaled_maps(draw, size):
    maps = np.float32(draw.normal(size=(3, 5, 4)))
    maps[1] = 2.0
    found, theirs = (module.scale_cam_image(maps, size) for module in (image, theirs_image))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, theirs, atol=1e-6)
    assert found[1].max() == 0
    if size is not None:
        layer = np.float32(draw.normal(size=(2, 3, 5, 4)))
        pair = [module.scale_accross_batch_and_channels(layer, size) for module in (image, theirs_image)]
        np.testing.assert_allclose(*pair, atol=1e-6)


def test_a_faint_map_is_scaled_as_grad_cams():
    faint = np.array([[[0.0, 1e-7]]])
    assert image.scale_cam_image(faint).max() == theirs_image.scale_cam_image(faint).max() == 0.5


def test_volumes_keep_their_centres():
    """Twice as long, half-pixel rule: by hand. grad-cam's cubic splines with aligned corners give others."""
    volume = np.zeros((1, 2, 1, 1), np.float32)
    volume[0, 1] = 1
    np.testing.assert_allclose(image.scale_cam_image(volume, (1, 1, 4))[0, :, 0, 0], [0, 0.25, 0.75, 1], atol=1e-6)
    np.testing.assert_allclose(
        theirs_image.scale_cam_image(volume, (1, 1, 4))[0, :, 0, 0], [0, 7 / 27, 20 / 27, 1], atol=1e-6
    )


def test_edges(draw):
    picture = np.uint8(draw.integers(0, 256, (12, 15, 3)))
    found, theirs = sobel_cam(picture), pytorch_grad_cam.sobel_cam.sobel_cam(picture)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, theirs)
