"""Whole segmenters with random weights and no layer named: each region has its score and its map."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import segmentation

import seewhy
from seewhy import Pixel, Region

IMAGE = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
NAMES = {0: "road", 1: "car", 2: "tree"}
RANDOM = {"weights": None, "weights_backbone": None, "num_classes": 3}
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def segformer():
    import transformers

    config = transformers.SegformerConfig(
        hidden_sizes=[16] * 4, depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=16, id2label=NAMES
    )
    return transformers.SegformerForSemanticSegmentation(config)


def upernet():
    import transformers

    backbone = transformers.ConvNextConfig(
        hidden_sizes=[8, 16, 16, 16], depths=[1] * 4, out_features=STAGES, layer_scale_init_value=1.0
    )
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=16, auxiliary_in_channels=16, auxiliary_channels=8, id2label=NAMES
    )
    return transformers.UperNetForSemanticSegmentation(config)


def mask2former():
    import transformers

    backbone = transformers.SwinConfig(
        image_size=64, embed_dim=12, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4, out_features=STAGES
    )
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        dim_feedforward=16, encoder_layers=1, decoder_layers=4, num_attention_heads=2, num_queries=5, id2label=NAMES,
    )  # fmt: skip
    return transformers.Mask2FormerForUniversalSegmentation(config)


# the layer that is right: the last before the scores of each place; Mask2Former's decoder reads its levels one by one,
# and the finest meets the masks
SEGMENTERS = {
    "deeplabv3": (lambda: segmentation.deeplabv3_mobilenet_v3_large(**RANDOM), ("classifier.3",)),
    "deeplabv3_resnet50": (lambda: segmentation.deeplabv3_resnet50(**RANDOM), ("classifier.3",)),
    "fcn": (lambda: segmentation.fcn_resnet50(**RANDOM), ("classifier.3",)),
    "lraspp": (lambda: segmentation.lraspp_mobilenet_v3_large(**RANDOM), ("backbone[low]", "backbone[high]")),
    "segformer": (segformer, ("decode_head.dropout",)),
    "upernet": (upernet, ("decode_head.fpn_bottleneck",)),
    "mask2former": (
        mask2former,
        (
            *(f"model.transformer_module.input_projections.{level}" for level in range(3)),
            "model.pixel_level_module.decoder.adapter_1",
        ),
    ),
}
LOCAL = {"deeplabv3", "deeplabv3_resnet50", "fcn", "segformer", "upernet"}  # a 1 x 1 convolution follows the layer


def built(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SEGMENTERS[name][0]().eval()
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):  # at birth so small that depth makes the maps vanish
                nn.init.normal_(module.weight, std=(2 / module.weight[0].numel()) ** 0.5)
    return model


def place_scores(name, model):
    """(3, h, w), without seewhy: of Mask2Former as its processor combines the queries."""
    with torch.no_grad():
        output = model(IMAGE)
    if name == "mask2former":
        import transformers

        combined = transformers.Mask2FormerImageProcessor().post_process_semantic_segmentation
        masks, classes = output.masks_queries_logits[0].sigmoid(), output.class_queries_logits[0].softmax(-1)
        scores = (masks[:, None] * classes[:, :3, None, None]).sum(0)
        theirs = combined(output, [tuple(scores.shape[1:])])[0]
        assert (theirs == scores.argmax(0)).float().mean() > 0.95  # it resizes the masks to 384 x 384 in between
        return scores
    return (output["out"] if isinstance(output, dict) and "out" in output else output.logits)[0]


@pytest.mark.few(2)
@pytest.mark.parametrize("name", SEGMENTERS)
@pytest.mark.filterwarnings("ignore:.*nothing positive:seewhy.errors.MapWarning")
def test_regions_pixels_and_whole_classes(name):
    """Need 11: segmentation. Two regions, a pixel and the class wherever it is seen, each with its score and map."""
    model = built(name)
    scores = place_scores(name, model)
    rows, columns = scores.shape[1:]
    masks = torch.zeros(2, 64, 96)
    masks[0, 8:32, 16:40] = masks[1, 40:56, 56:96] = 1
    seen = scores.argmax(0).flatten().bincount(minlength=3).argmax().item()

    def explained(target):
        return seewhy.explain(model, IMAGE, target, method="layer_cam")

    regions = explained(Region([[1, 1]], masks[None]))
    assert regions.layers == SEGMENTERS[name][1]
    weights = F.avg_pool2d(masks, 64 // rows)
    expected = (weights * scores[1]).sum((1, 2)) / weights.sum((1, 2))
    torch.testing.assert_close(regions.scores[0], expected, rtol=1e-4, atol=1e-5)
    pixel = explained(Pixel(1, 9, 90))
    place = 9 * rows // 64, 90 * columns // 96
    torch.testing.assert_close(pixel.scores, scores[1, *place][None], rtol=1e-4, atol=1e-5)
    whole = explained(Region(seen))
    expected = scores[seen][scores.argmax(0) == seen].mean()
    torch.testing.assert_close(whole.scores[0], expected, rtol=1e-4, atol=1e-5)

    for explanation in (regions, pixel, whole):
        for grid in explanation.maps.values():
            assert grid.isfinite().all()
            assert grid.std() > 0
    first, second = torch.cat([grid[0].flatten(1) for grid in regions.maps.values()], 1)
    # Mask2Former's queries look everywhere, so its maps differ least: 0.98; those of local heads are disjoint
    assert float(torch.cosine_similarity(first, second, dim=0)) < 0.99
    if name in LOCAL:
        (grid,) = pixel.maps.values()
        down, right = grid.shape[1:]
        near = torch.zeros(down, right, dtype=torch.bool)  # the neighbours that bilinear interpolation reads
        at = 9 * down // 64, 90 * right // 96
        near[max(0, at[0] - 1) : at[0] + 2, max(0, at[1] - 1) : at[1] + 2] = True
        assert grid[0][near].abs().sum() > 0
        assert grid[0][~near].abs().sum() == 0
