"""Small models of language with eyes, of random weights, one of each family, with what their processors make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn

IMAGE, NEWLINE, VOCABULARY = 90, 91, 100
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOWER = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 8,
}


class Asked(NamedTuple):
    """A model, a call of it, and the grid that the tokens of its pictures have: None where they have no places."""

    model: nn.Module
    inputs: dict[str, Tensor]
    grid: tuple[int, ...] | None


FAMILIES: dict[str, Callable[[], Asked]] = {}


def family(build: Callable[[], Asked]) -> Callable[[], Asked]:
    FAMILIES[build.__name__] = build
    return build


def made(kind: Any, config: Any) -> Any:
    """A model with random weights that are the same each time, and no longer all but zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config).eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.15) if parameter.ndim > 1 else None
    return model


def pixels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def photo(height: int, width: int, seed: int = 0) -> Tensor:
    """A smooth picture, uint8 (3, H, W): no two parts of it are alike."""
    coarse = torch.rand((1, 3, 5, 5), generator=torch.Generator().manual_seed(seed))
    return (nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 1) * 255).byte()


def prompt(*counts: int, row: int = 1) -> dict[str, Tensor]:
    """Some text, so many tokens of each picture with text between them, and some text."""
    ids = [1, 5, 6]
    for number, count in enumerate(counts):
        ids += [IMAGE] * count + [7 + number]
    ids += [11, 12, 13]
    tokens = torch.tensor([ids] * row)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


@family
def llava() -> Asked:
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**TOWER, image_size=32),
        text_config=transformers.LlamaConfig(**TEXT),
        image_token_index=IMAGE,
        vision_feature_layer=-1,
        image_seq_length=16,
    )
    model = made(transformers.LlavaForConditionalGeneration, config)
    return Asked(model, {**prompt(16), "pixel_values": pixels(1, 3, 32, 32)}, (4, 4))


@family
def qwen2_vl() -> Asked:
    tower = {"depth": 2, "embed_dim": 24, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 8}
    config = transformers.Qwen2VLConfig(
        vision_config=tower,
        text_config={**TEXT, "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}},
        image_token_id=IMAGE,
        video_token_id=92,
        vision_start_token_id=93,
        vision_end_token_id=94,
    )
    model = made(transformers.Qwen2VLForConditionalGeneration, config)
    processor = transformers.Qwen2VLImageProcessor(
        patch_size=8, merge_size=2, size={"shortest_edge": 256, "longest_edge": 64 * 96}
    )
    inputs = dict(processor(images=[photo(64, 96)], return_tensors="pt"))
    asked = prompt(24)
    asked["mm_token_type_ids"] = (asked["input_ids"] == IMAGE).int()
    return Asked(model, {**asked, **inputs}, (4, 6))
