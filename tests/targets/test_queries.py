"""Detectors that answer with queries or with raw tensors, random or by hand, and no layer named: a map for each box."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import seewhy
from seewhy import Box
from tests.looking import candidates_in, seen_in

transformers = pytest.importorskip("transformers")

IMAGE = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
NAMES = ["cat", "dog", "bird"]
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1] * 4, "layer_type": "basic"}
NO_HUB = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
SMALL = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "num_queries": 7,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "id2label": dict(enumerate(NAMES)),
}  # fmt: skip


def resnet(*stages):
    return transformers.ResNetConfig(**RESNET, out_features=list(stages))


def detr(**options):
    return transformers.DetrForObjectDetection(
        transformers.DetrConfig(backbone_config=resnet("stage4"), **NO_HUB, **{**SMALL, **options})
    )


def conditional_detr():
    config = transformers.ConditionalDetrConfig(backbone_config=resnet("stage4"), **NO_HUB, **SMALL)
    return transformers.ConditionalDetrForObjectDetection(config)


def deformable_detr():
    config = transformers.DeformableDetrConfig(
        backbone_config=resnet("stage2", "stage3", "stage4"), num_feature_levels=3, **NO_HUB, **SMALL
    )
    return transformers.DeformableDetrForObjectDetection(config)


def rt_detr():
    backbone = transformers.RTDetrResNetConfig(**RESNET, out_features=["stage2", "stage3", "stage4"])
    config = transformers.RTDetrConfig(
        backbone_config=backbone, encoder_hidden_dim=16, encoder_in_channels=[16] * 3, decoder_in_channels=[16] * 3,
        num_denoising=0, **SMALL | {"d_model": 16},
    )  # fmt: skip
    return transformers.RTDetrForObjectDetection(config)


def yolos():
    config = transformers.YolosConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=[64, 96],
        patch_size=16, num_detection_tokens=7, id2label=dict(enumerate(NAMES)),
    )  # fmt: skip
    return transformers.YolosForObjectDetection(config)


DETECTORS = {
    "detr": (detr, "model.encoder"),
    "conditional_detr": (conditional_detr, "model.encoder"),
    # the levels are one sequence from here on: the last that are maps, of all levels
    "deformable_detr": (deformable_detr, *(f"model.input_proj.{level}" for level in range(3))),
    "rt_detr": (rt_detr, *(f"model.decoder_input_proj.{level}" for level in range(3))),
    "yolos": (yolos, "vit.encoder.layer.2.layernorm_before"),
}


def built(make, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make(**options).eval()
        for parameter in model.parameters():  # some heads start at zero, some attentions where they see nothing
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=min(0.2, (2 / parameter[0].numel()) ** 0.5))
    return model


@pytest.mark.few(1)
@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.filterwarnings("ignore:.*nothing positive:seewhy.errors.MapWarning")
def test_two_queries_have_two_maps(name):
    """Need 1: one map per detected box, of DETR and its kin."""
    make, *layers = DETECTORS[name]
    model = built(make)
    # of 2 x 3 places random attention shows too little: an encoder of 4 x 6 can be told from chance
    image = torch.randn(1, 3, 128, 192, generator=torch.Generator().manual_seed(2)) if "detr" in name else IMAGE
    with torch.no_grad():
        output = model(image)
    explanation = seewhy.explain(model, image, Box(index=[[0, 3]]), method="layer_cam", labels=NAMES)
    assert explanation.layers == tuple(layers)
    torch.testing.assert_close(explanation.scores[0], output.logits[0, [0, 3], :3].amax(1), rtol=1e-4, atol=1e-5)
    x, y, width, height = (output.pred_boxes[0, 3] * torch.tensor([image.shape[3], image.shape[2]] * 2)).tolist()
    corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    assert explanation.targets.box[0, 1].tolist() == pytest.approx(corners, rel=1e-4, abs=1e-3)
    grid = explanation.maps[layers[-1]][0]
    assert grid.isfinite().all()
    assert (grid.flatten(1).std(1) > 0).all()
    first, second = grid  # random attention looks almost evenly: they differ by 8 % in one, by far more in the others
    assert float((first - second).norm() / first.norm()) > 0.05


@pytest.mark.filterwarnings("ignore:.*nothing positive:seewhy.errors.MapWarning")
def test_as_many_queries_as_places_are_still_no_places():
    """DETR asks 100 queries: of an image of 320 x 320 it sees 10 x 10 places. Here 6 are as many as 2 x 3."""
    model = built(detr, num_queries=6)
    names = {seen.label.name for seen in candidates_in(model, IMAGE)}
    assert not {name for name in names if name.startswith(("class_labels", "bbox", "model.decoder", "model.query"))}
    assert seewhy.explain(model, IMAGE, Box(index=0), labels=NAMES, method="grad_cam").layers == (
        "model.input_projection",
    )


def test_a_position_embedding_is_no_evidence():
    """It has the grid of the map that it is added to and the gradient reaches it, but it does not see the image."""
    model = built(detr)
    seen = seen_in(model, IMAGE)
    position = next(call for call in seen if call.label.name == "model.position_embedding")
    assert position.grid is not None
    assert not position.handed
    assert position not in candidates_in(model, IMAGE)


class Yolo(nn.Module):
    """A raw head by hand: at each place a box of 16 x 16 pixels around it, and how red and how green it is there."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 8, stride=8, bias=False), nn.ReLU())
        self.head = nn.Conv2d(4, 2, 1, bias=False)
        kernel = torch.zeros(4, 3, 8, 8)
        kernel[0, 0] = kernel[1, 1] = kernel[2, 2] = 1 / 64
        self.load_state_dict({"features.0.weight": kernel, "head.weight": torch.eye(4)[:2, :, None, None]})

    def forward(self, images):
        scores = self.head(self.features(images))
        rows, columns = scores.shape[2:]
        y, x = torch.meshgrid(8.0 * torch.arange(rows) + 4, 8.0 * torch.arange(columns) + 4, indexing="ij")
        boxes = torch.stack([x, y, torch.full_like(x, 16), torch.full_like(x, 16)])
        return torch.cat([boxes.expand(len(images), -1, -1, -1), scores], 1).flatten(2)


def test_raw_boxes_of_one_image_have_their_own_maps():
    """Need 1, for YOLO: a red and a green patch; each box's heat is its patch's, and plain Grad-CAM's is not."""
    image = torch.zeros(1, 3, 64, 96)
    image[0, 0, 8:16, 16:24] = 1  # red
    image[0, 1, 40:48, 72:80] = 0.5  # green
    boxes = torch.tensor([[[12.0, 4, 28, 20], [68, 36, 84, 52]]])
    found = seewhy.explain(Yolo(), image, Box([[0, 1]], boxes, num_classes=2), method="layer_cam")
    assert found.scores.tolist() == [[1, 0.5]]
    (grid,) = found.maps.values()
    expected = torch.zeros(1, 2, 8, 12)
    expected[0, 0, 1, 2], expected[0, 1, 5, 9] = 1, 0.5
    torch.testing.assert_close(grid, expected)
    rows, columns = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    for heat, (x0, y0, x1, y1) in zip(found.heatmap[0], boxes[0].tolist(), strict=True):
        assert x0 < float((heat * columns).sum() / heat.sum()) < x1
        assert y0 < float((heat * rows).sum() / heat.sum()) < y1
    image[0, :2] = image[0, :2].amax(0)  # both patches yellow: the mean gradient is the same for either box
    best = Box([[0, 0]], boxes, num_classes=2)
    (alike,) = seewhy.explain(Yolo(), image, best, method="grad_cam").maps.values()
    assert torch.equal(*alike[0])
    for method in ("odam", "hires_cam"):
        (apart,) = seewhy.explain(Yolo(), image, best, method=method).maps.values()
        assert float(torch.cosine_similarity(*apart[0].flatten(1), dim=0)) < 0.1


def test_boxes_of_older_heads_are_read_alike():
    """YOLOv5's and YOLOX's: (B, N, 5 + K), a score of there being any object before those of the classes."""

    class Older(Yolo):
        def forward(self, images):
            boxes, scores = super().forward(images).split([4, 2], 1)
            return torch.cat([boxes, torch.full_like(scores[:, :1], 0.5), scores], 1).mT

    image = torch.zeros(1, 3, 64, 96)
    image[0, 0, 8:16, 16:24] = 1
    image[0, 1, 40:48, 72:80] = 0.5
    boxes = torch.tensor([[[12.0, 4, 28, 20], [68, 36, 84, 52]]])
    found = seewhy.explain(Older(), image, Box([[0, 1]], boxes, num_classes=2), method="layer_cam")
    assert found.scores.tolist() == [[0.5, 0.25]]
    newer = seewhy.explain(Yolo(), image, Box([[0, 1]], boxes, num_classes=2), method="layer_cam")
    assert torch.equal(found.heatmap, newer.heatmap)


@pytest.mark.slow
def test_a_box_by_a_prompt_of_owl_vit():
    """Logits are of prompts: two boxes of one prompt have two maps, at the patches that these boxes are of."""
    torch.manual_seed(0)
    sides = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    text = {**sides, "num_hidden_layers": 1, "vocab_size": 64, "max_position_embeddings": 8, "bos_token_id": 1}
    config = transformers.OwlViTConfig(
        text_config={**text, "eos_token_id": 9},
        vision_config={**sides, "num_hidden_layers": 2, "image_size": 64, "patch_size": 8},
        projection_dim=16,
    )
    model = transformers.OwlViTForObjectDetection(config).eval()
    prompts = {"input_ids": torch.tensor([[1, 5, 9], [1, 7, 9]]), "attention_mask": torch.ones(2, 3, dtype=torch.long)}
    inputs = {**prompts, "pixel_values": torch.randn(1, 3, 64, 64)}
    with torch.no_grad():
        expected = model(**inputs).logits[0, [3, 44], 1]
    found = seewhy.explain(model, inputs, Box(label=1, index=[[3, 44]]), method="grad_cam")
    torch.testing.assert_close(found.scores[0], expected)
    slopes = seewhy.explain(model, inputs, Box(label=1, index=[[3, 44]]), method="hires_cam", layers="layer_norm")
    (grid,) = slopes.maps.values()
    assert grid[0].abs().flatten(1).argmax(1).tolist() == [3, 44]  # of 8 x 8 patches
