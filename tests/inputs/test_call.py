"""What a model may be given: the images are found, and each image's own map comes out."""

from __future__ import annotations

from collections import UserDict

import pytest
import torch
from torch import nn

import seewhy
from seewhy.engine.tape import record
from seewhy.errors import InputError, InputTypeError
from seewhy.hooks.activations import activation_in
from seewhy.images import arrays
from seewhy.inputs import Canvas, Inputs
from tests.looking import seen_in

IMAGES = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "inputs",
    [
        IMAGES,
        (IMAGES,),
        (torch.zeros(2, 5), IMAGES),
        (IMAGES, -IMAGES),
        {"pixel_values": IMAGES, "input_ids": torch.zeros(2, 4, dtype=torch.long)},
        UserDict(pixel_values=IMAGES),
        ([torch.zeros(2)], {"image": IMAGES}),
        list(IMAGES),
        (list(IMAGES), [{"boxes": torch.zeros(0, 4)}]),
    ],
    ids=["tensor", "tuple", "second", "two", "keywords", "BatchFeature", "nested", "list", "list and more"],
)
def test_the_images_are_found(inputs):
    call = Inputs.of(inputs, nn.Identity())
    assert (call.batch, call.size, call.space, call.sizes) == (2, (8, 12), (8, 12), ((8, 12),) * 2)
    assert torch.equal(torch.stack(list(call.images)), IMAGES)
    assert call.images[0].data_ptr() != IMAGES.data_ptr()
    turned = call.seen_as(lambda image: image.flip(-1))
    assert torch.equal(torch.stack(list(turned.images)), IMAGES.flip(-1))


def test_a_class_derived_from_torchvisions_is_known():
    class Mine(GeneralizedRCNNTransform):
        pass

    assert Inputs.of([torch.zeros(3, 4, 8)], Mine()).canvas == Canvas((8, 16), ((0.5, 0.5),))


def test_images_of_several_sizes():
    images = [torch.zeros(3, 8, 5), torch.zeros(3, 4, 12)]
    with pytest.raises(InputError, match=r"got: \(8, 5\), \(4, 12\)\n(.|\n)*one at a time"):
        Inputs.of(images, nn.Identity())
    call = Inputs.of(images, GeneralizedRCNNTransform())
    assert (call.batch, call.sizes, call.size) == (2, ((8, 5), (4, 12)), (8, 12))
    with pytest.raises(InputError, match=r"got: \(8, 5\), \(4, 12\)\n(.|\n)*one at a time"):
        call.image  # noqa: B018


@pytest.mark.parametrize("inputs", [[], {}, torch.zeros(2, 3), "photo.jpg", [torch.zeros(2)], (torch.zeros(3, 8, 8),)])
def test_no_image_is_told(inputs):
    with pytest.raises(InputTypeError, match="no image among the inputs"):
        Inputs.of(inputs, nn.Identity())


class Siamese(nn.Module):
    """Takes two images and says how much brighter the first is; keywords may come in any order."""

    def __init__(self):
        super().__init__()
        self.features = nn.AvgPool2d(4)

    def forward(self, image, other, scale=1.0):
        return scale * (self.features(image) - self.features(other)).mean((1, 2, 3))[:, None]


@pytest.mark.parametrize(
    "inputs", [(IMAGES, IMAGES / 2), {"image": IMAGES, "scale": 1.0, "other": IMAGES / 2}], ids=["tuple", "dict"]
)
@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_two_images_have_a_map_each(inputs):
    """Need 5: two images. The layer ran twice.

    HiResCAM is the mean over channels / 6 places, and its negative for the other image.
    """
    found = seewhy.explain(Siamese(), inputs, 1, layers="features", method="hires_cam").images
    expected = nn.functional.avg_pool2d(IMAGES, 4).mean(1) / 6
    assert list(found) == ["image", "other"]
    torch.testing.assert_close(dict(found["image"].maps), {"features#0": expected})
    torch.testing.assert_close(dict(found["other"].maps), {"features#1": -expected / 2})


# what is no picture yet, and what is many


class Patches(nn.Module):
    """Cuts an image into patches of 4 x 4, as the processors of some models do, and hands them to such a model."""

    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, image):
        return self.model(nn.functional.unfold(image, 4, stride=4).mT).mean(1)


def test_patches_are_no_image_and_a_module_that_cuts_them_is_the_way():
    patches = {"pixel_values": nn.functional.unfold(IMAGES, 4, stride=4).mT, "spatial_shapes": torch.tensor([[2, 3]])}
    with pytest.raises(
        InputTypeError, match=r"'pixel_values': \(2, 6, 48\), 'spatial(.|\n)*is given the image and makes"
    ):
        Inputs.of(patches, nn.Identity())
    torch.manual_seed(0)
    model = Patches().eval()
    found = seewhy.explain(model, IMAGES, 1, layers="model.1", method="hires_cam").maps["model.1"]
    with torch.no_grad():
        tokens = model.model[:2](patches["pixel_values"])
    expected = (tokens @ model.model[2].weight[1]).unflatten(1, (2, 3)) / 6
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.few(1)
@pytest.mark.parametrize("method", ["grad_cam", "guided_backprop", "score_cam", "rise"])
@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_videos_of_transformers_have_their_frames_before_the_channels(method):
    """Both values: the same model behind a module that takes them the other way round has the same map."""
    transformers = pytest.importorskip("transformers")
    config = transformers.VideoMAEConfig(
        image_size=32, patch_size=8, num_frames=6, tubelet_size=2, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=32, num_labels=4, use_mean_pooling=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.VideoMAEForVideoClassification(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)

    class ChannelsFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, video):
            return self.inner(video.transpose(1, 2)).logits

    video = torch.rand(2, 6, 3, 32, 32)
    options = {"masks": 8} if method == "rise" else {}
    ours = seewhy.explain(model, video, 1, method=method, **options)
    other = seewhy.explain(ChannelsFirst(), video.transpose(1, 2), 1, method=method, **options)
    assert ours.heatmap.shape == (2, 6, 32, 32)
    assert ours.heatmap.flatten(1).std(1).min() > 0
    torch.testing.assert_close(ours.heatmap, other.heatmap)


@pytest.mark.slow
def test_scores_of_one_query_and_frames_before_places():
    """VideoPrism looks at each frame, then at each place through time, and pools by one query: scores (B, 1, K)."""
    transformers = pytest.importorskip("transformers")
    config = transformers.VideoPrismVisionConfig(
        image_size=32, tubelet_size=[1, 8, 8], num_frames=6, hidden_size=16, num_spatial_layers=1,
        num_temporal_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=4,
    )  # fmt: skip
    torch.manual_seed(0)
    model, video = transformers.VideoPrismForVideoClassification(config).eval(), torch.rand(2, 6, 3, 32, 32)
    assert model(video).logits.shape == (2, 1, 4)
    found = seewhy.explain(model, video, 1, method="grad_cam")
    assert found.heatmap.shape == (2, 6, 32, 32)
    changed = video.clone()
    changed[:, 4, :, :8, 24:] += 5  # a patch of the fifth frame
    calls = {str(call.label): call for call in seen_in(model, video)}
    grid, moved = calls[found.layers[0]].grid, []
    layer = model.get_submodule(found.layers[0])
    with layer.register_forward_hook(lambda *args: moved.append(activation_in(args[2]))), torch.no_grad():
        model(video)
        model(changed)
    most = grid.fold(moved[1] - moved[0]).abs().mean(1).flatten(1).argmax(1)
    assert grid.space == (6, 4, 4)
    assert most.tolist() == [4 * 16 + 3] * 2


@pytest.mark.slow
def test_frames_of_patches_or_patches_of_frames_no_length_tells():
    """TimeSformer has the frames of each patch side by side. Read as the patches of each frame the map is wrong.

    Its attention over places has a row for each frame: there it can be seen which place is which.
    """
    transformers = pytest.importorskip("transformers")
    config = transformers.TimesformerConfig(
        image_size=32, patch_size=8, num_frames=6, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, num_labels=4,
    )  # fmt: skip
    torch.manual_seed(0)
    model, video = transformers.TimesformerForVideoClassification(config).eval(), torch.rand(2, 6, 3, 32, 32)
    chosen = seewhy.explain(model, video, 1, method="grad_cam")
    (name,) = chosen.layers
    assert chosen.maps[name].shape == (2, 6, 4, 4)

    def frames(tokens):
        return tokens[:, 1:].unflatten(1, (4, 4, 6)).permute(0, 4, 3, 1, 2)

    (label,) = (found := seewhy.explain(model, video, 1, layers="timesformer.encoder.layer.0", grid=frames)).layers
    assert found.maps[label].shape == (2, 6, 4, 4)
    changed = video.clone()
    changed[:, 4, :, :8, 24:] += 5  # a patch of the fifth frame
    embedded = []
    with model.timesformer.embeddings.register_forward_hook(lambda *args: embedded.append(args[2])), torch.no_grad():
        model(video)
        model(changed)
    moved = frames(embedded[1] - embedded[0]).abs().amax(1) > 0
    rows = []
    with model.get_submodule(name).register_forward_hook(lambda *args: rows.append(args[2])), torch.no_grad():
        model(video)
        model(changed)
    most = (rows[1] - rows[0])[:, 1:].unflatten(0, (2, 6)).abs().sum(-1).flatten(1).argmax(1)
    assert most.tolist() == [4 * 16 + 3] * 2
    assert moved.nonzero().tolist() == [[0, 4, 0, 3], [1, 4, 0, 3]]


# what a detector makes of its images


class GeneralizedRCNNTransform(nn.Module):
    """As torchvision's: pads a list of images at the lower right to one batch of 8 x 16."""

    def forward(self, images):
        canvas = torch.zeros(len(images), 3, 8, 16)
        for place, image in zip(canvas, images, strict=True):
            place[:, : image.shape[1], : image.shape[2]] = image
        made = nn.Module()
        made.tensors, made.image_sizes = canvas, [tuple(image.shape[1:]) for image in images]
        return made, None


class Padding(nn.Module):
    def __init__(self):
        super().__init__()
        self.transform = GeneralizedRCNNTransform()
        self.features = nn.AvgPool2d(2)

    def forward(self, images):
        return self.features(self.transform(images)[0].tensors).sum((1, 2, 3))[:, None]


def test_the_heatmap_shows_each_image_without_its_padding():
    """Ramps from left to right: the padded part, half of the second canvas, must not squeeze them."""
    images = [torch.linspace(0, 1, 16).expand(3, 8, 16), torch.linspace(0, 1, 8).expand(3, 4, 8)]
    found = seewhy.explain(Padding(), images, 1, layers="features", grid=(4, 8), method="hires_cam")
    assert found.maps["features"].shape == (2, 4, 8)
    assert found.extents == ((1, 1), (0.5, 0.5))
    assert found.heatmap.shape == (2, 8, 16)
    whole, part = found.heatmap
    torch.testing.assert_close(whole, whole[:1].expand(8, -1))
    assert (part[:4].diff(dim=1)[:, 2:13] > 0).all(), "the ramp fills the width"
    alone = seewhy.explain(Padding(), images[1:], 1, layers="features", grid=(4, 8), method="hires_cam")
    assert alone.heatmap.shape == (1, 4, 8)
    assert found[1].extents == ((0.5, 0.5),)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_the_shown_part_is_what_cutting_first_would_give(mode):
    """Away from the cut, where a cut map would repeat its border instead of looking at what lies beyond."""
    maps = torch.rand(2, 3, 6, 8)
    found = arrays.resize(maps, (9, 12), mode, [(0.5, 0.75), (1, 1)])
    cut = arrays.resize(maps[:1, :, :3, :6], (9, 12), mode)
    torch.testing.assert_close(found[:1, :, :7, :11], cut[:, :, :7, :11])
    torch.testing.assert_close(found[1:], arrays.resize(maps[1:], (9, 12), mode))


# layers that return several tensors


class Pyramid(nn.Module):
    def forward(self, image):
        return {"fine": image * 1.0, "coarse": nn.functional.avg_pool2d(image, 2), "pool": image.mean((2, 3), True)}


class Reads(nn.Module):
    def __init__(self):
        super().__init__()
        self.fpn = Pyramid()

    def forward(self, image):
        levels = self.fpn(image)
        return levels["fine"].mean((1, 2, 3))[:, None] + 3 * levels["coarse"].mean((1, 2, 3))[:, None]


def test_each_level_of_a_pyramid_is_recorded():
    model, images = Reads(), torch.rand(2, 16, 8, 12)  # a few channels could be rows: 3 x 4 places of 6 channels
    tape = record(lambda: model(images), {"fpn": model.fpn})
    assert list(map(str, tape.activations)) == ["fpn[fine]", "fpn[coarse]"]  # a level of one place has no map
    found = seewhy.explain(model, images, 1, layers="fpn", method="hires_cam").maps
    torch.testing.assert_close(found["fpn[fine]"], images.mean(1) / 96)
    torch.testing.assert_close(found["fpn[coarse]"], 3 * nn.functional.avg_pool2d(images, 2).mean(1) / 24)
