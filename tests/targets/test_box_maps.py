"""Detectors of queries: two boxes of one picture have two maps, each with its heat at its own box."""

from __future__ import annotations

import pytest
import torch

import seewhy
from seewhy import Box, metrics
from tests.targets.test_queries import NAMES, SMALL, built, rt_detr

transformers = pytest.importorskip("transformers")

IMAGE = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(2))
SIDES = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
TEXT = SIDES | {"num_hidden_layers": 1, "vocab_size": 64, "max_position_embeddings": 8}


def d_fine():
    backbone = transformers.HGNetV2Config(
        embedding_size=8, hidden_sizes=[8, 16, 16, 16], depths=[1] * 4, stem_channels=[3, 8, 8],
        stage_in_channels=[8, 8, 16, 16], stage_mid_channels=[8] * 4, stage_out_channels=[8, 16, 16, 16],
        stage_num_blocks=[1] * 4, stage_numb_of_layers=[1] * 4, out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.DFineConfig(
        backbone_config=backbone, encoder_hidden_dim=16, encoder_in_channels=[16] * 3, decoder_in_channels=[16] * 3,
        num_denoising=0, **SMALL | {"d_model": 16},
    )  # fmt: skip
    return transformers.DFineForObjectDetection(config)


def owl_vit():
    config = transformers.OwlViTConfig(
        text_config=TEXT | {"bos_token_id": 1, "eos_token_id": 9},
        vision_config=SIDES | {"num_hidden_layers": 2, "image_size": 128, "patch_size": 16},
        projection_dim=16,
    )
    return transformers.OwlViTForObjectDetection(config)


PROMPTS = {
    "input_ids": torch.tensor([[1, 5, 9], [1, 7, 9]]),
    "attention_mask": torch.ones(2, 3, dtype=torch.long),
}
DETECTORS = {"rt_detr": (rt_detr, {}), "d_fine": (d_fine, {}), "owl_vit": (owl_vit, PROMPTS)}


@pytest.mark.few(1)
@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.filterwarnings("ignore:.*nothing positive:seewhy.errors.MapWarning")
def test_a_box_has_more_heat_at_itself_than_another_box_has_there(name):
    """Of random weights, for the two boxes that are farthest apart; within 16 pixels of each."""
    make, prompt = DETECTORS[name]
    model, inputs = built(make), {**prompt, "pixel_values": IMAGE}
    with torch.no_grad():
        middles = model(**inputs).pred_boxes[0, :, :2]
    pair = divmod(int(torch.cdist(middles, middles).argmax()), len(middles))
    asked = Box(label=1, index=[list(pair)]) if prompt else Box(index=[list(pair)])
    found = seewhy.explain(model, inputs, asked, method="layer_cam", labels=None if prompt else NAMES)
    margin = torch.tensor([-16.0, -16, 16, 16])
    near = metrics.box_masks([(box + margin)[None] for box in found.targets.box[0]], found.size)
    own = metrics.relevance_mass(found.heatmap[0], near)
    others = metrics.relevance_mass(found.heatmap[0].flip(0), near)
    assert bool((own > others).all()), (own, others)
