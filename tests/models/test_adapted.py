"""Adapted and quantised models: LoRA's map is that of the merged weights; int8 is explained, or refused in words."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers

import seewhy
from seewhy.errors import MethodError

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
METHODS = ["layer_cam", "attention_relevance", "guided_backprop"]


def vit() -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8,
        num_labels=3,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config).eval()


@pytest.mark.parametrize("method", METHODS)
def test_lora_has_the_map_of_the_merged_weights(method: str) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["query", "value", "q_proj", "v_proj"], r=4, init_lora_weights=False)
    model = peft.get_peft_model(vit(), config).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = seewhy.explain(model, IMAGES, 1, method=method)
    expected = seewhy.explain(copy.deepcopy(model).merge_and_unload(), IMAGES, 1, method=method)
    torch.testing.assert_close(found.heatmap, expected.heatmap, rtol=0, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_8_bits_have_nearly_the_same_map(method: str) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    model = vit()
    expected = seewhy.explain(model, IMAGES, 1, method=method)
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    found = seewhy.explain(model, IMAGES, 1, method=method)
    torch.testing.assert_close(found.heatmap, expected.heatmap, rtol=0, atol=0.06)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=2e-3)


def test_activations_of_8_bits_have_no_gradient_and_that_is_said() -> None:
    quantization = pytest.importorskip("torchao.quantization")
    model = vit()
    expected = seewhy.explain(model, IMAGES, 1, method="rise", masks=200, cells=4)
    quantization.quantize_(model, quantization.Int8DynamicActivationInt8WeightConfig())
    for method in ("attention_relevance", "full_grad", "layer_cam"):
        with pytest.raises(MethodError, match="the model is quantised"):
            seewhy.explain(model, IMAGES, 1, method=method)
    found = seewhy.explain(model, IMAGES, 1, method="rise", masks=200, cells=4)
    correlation = torch.corrcoef(torch.stack([found.heatmap.flatten(), expected.heatmap.flatten()]))[0, 1]
    assert correlation > 0.8
