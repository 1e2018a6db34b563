"""The promises on a model of transformers whose first forward attaches hooks of its own."""

from __future__ import annotations

import pytest
import torch

import seewhy

transformers = pytest.importorskip("transformers")


def test_a_model_that_hooks_itself_answers_as_before() -> None:
    """Forgetting that its hooks are there, it would attach them twice and see every hidden state twice."""
    config = transformers.SegformerConfig(
        hidden_sizes=[16] * 4, depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=16
    )
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    images = torch.rand(1, 3, 64, 64)
    target = seewhy.Pixel(0, 0, 0)
    first = seewhy.explain(model, images, target, layers="decode_head.linear_fuse", method="hires_cam")
    with torch.no_grad():
        assert torch.equal(model(images).logits, first.outputs.logits)
    again = seewhy.explain(model, images, target, layers="decode_head.linear_fuse", method="hires_cam")
    assert torch.equal(again.outputs.logits, first.outputs.logits)
