"""Small models of language with eyes, of random weights, one of each family, and what their processors make of photos.

The numbers of tokens are asked of the model. The grids are written down: what is found is held against them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn

IMAGE, VOCABULARY = 90, 100
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
TOWER = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
QWEN = {"image_token_id": IMAGE, "video_token_id": 92, "vision_start_token_id": 93, "vision_end_token_id": 94}
ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}


class Family(NamedTuple):
    """A model, and how its processor would make a call of photos.

    model: in eval mode. call: (photos (3, H, W) of bytes) -> the keywords. sizes: those of the photos to test it with.
    grid: that of its tokens over one such photo; None where they have no places.
    """

    model: nn.Module
    call: Callable[[Sequence[Tensor]], dict[str, Any]]
    sizes: list[tuple[int, int]]
    grid: tuple[int, ...] | None


FAMILIES: dict[str, Callable[[], Family]] = {}


def family(build: Callable[[], Family]) -> Callable[[], Family]:
    FAMILIES[build.__name__] = build
    return build


def made(kind: Any, config: Any) -> Any:
    """A model with random weights that are the same each time, large enough for its answers to differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config).eval()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.15)
    return model


def photo(height: int, width: int, seed: int = 0) -> Tensor:
    """A smooth picture, (3, H, W) of bytes: no two parts of it are alike."""
    coarse = torch.rand((1, 3, 6, 6), generator=torch.Generator().manual_seed(seed))
    return (nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 1) * 255).byte()


def scaled(photos: Sequence[Tensor]) -> dict[str, Tensor]:
    """Photos as the simplest processors give them."""
    return {"pixel_values": torch.stack([each.float() / 127.5 - 1 for each in photos])}


def prompted(
    model: Any, pixels: dict[str, Any], counts: Sequence[int] | None = None, image: int = IMAGE
) -> dict[str, Any]:
    """Some text, the tokens of each picture, and some text."""
    if counts is None:
        with torch.no_grad():
            features = model.get_image_features(**pixels).pooler_output
        counts = [sum(len(each.reshape(-1, each.shape[-1])) for each in features)]
    ids = [1, 5, 6]
    for number, count in enumerate(counts):
        ids += [image] * count + [7 + number]
    tokens = torch.tensor([[*ids, 11, 12, 13]])
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), **pixels}


def typed(call: dict[str, Any], name: str, image: int = IMAGE) -> dict[str, Any]:
    """With the kind of each token."""
    return {**call, name: (call["input_ids"] == image).long()}


@family
def llava() -> Family:
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**TOWER, image_size=32, patch_size=8),
        text_config=transformers.LlamaConfig(**TEXT),
        image_token_index=IMAGE,
        vision_feature_layer=-1,
    )
    model = made(transformers.LlavaForConditionalGeneration, config)
    return Family(model, lambda photos: prompted(model, scaled(photos), [16] * len(photos)), [(32, 32)], (4, 4))


@family
def llava_next() -> Family:
    config = transformers.LlavaNextConfig(
        vision_config=transformers.CLIPVisionConfig(**TOWER, image_size=32, patch_size=8),
        text_config=transformers.LlamaConfig(**TEXT),
        image_token_index=IMAGE,
        vision_feature_layer=-1,
        image_grid_pinpoints=[[32, 64], [64, 32], [64, 64]],
    )
    model = made(transformers.LlavaNextForConditionalGeneration, config)
    processor = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        image_grid_pinpoints=config.image_grid_pinpoints,
    )
    return Family(
        model, lambda photos: prompted(model, dict(processor(photos, return_tensors="pt"))), [(48, 64)], (6, 8)
    )


@family
def llava_onevision() -> Family:
    config = transformers.LlavaOnevisionConfig(
        vision_config=transformers.SiglipVisionConfig(**TOWER, image_size=32, patch_size=8, vision_use_head=False),
        text_config=transformers.Qwen2Config(**TEXT),
        image_token_index=IMAGE,
        video_token_index=92,
        image_grid_pinpoints=[[32, 64], [64, 32], [64, 64]],
    )
    model = made(transformers.LlavaOnevisionForConditionalGeneration, config)
    processor = transformers.LlavaOnevisionImageProcessor(
        size={"height": 32, "width": 32}, image_grid_pinpoints=config.image_grid_pinpoints
    )

    def call(photos: Sequence[Tensor]) -> dict[str, Any]:
        return prompted(model, dict(processor(photos, return_tensors="pt")))

    return Family(model, call, [(64, 48)], (8, 6))


def _patches(model: nn.Module, size: int = 8) -> Callable[[Sequence[Tensor]], dict[str, Any]]:
    processor = transformers.Qwen2VLImageProcessor(
        patch_size=size, merge_size=2, size={"shortest_edge": 256, "longest_edge": 64 * 96}
    )

    def call(photos: Sequence[Tensor]) -> dict[str, Any]:
        found = dict(processor(list(photos), return_tensors="pt"))
        counts = (found["image_grid_thw"].prod(1) // 4).tolist()
        return typed(prompted(model, found, counts), "mm_token_type_ids")

    return call


@family
def qwen2_vl() -> Family:
    tower = {"depth": 2, "embed_dim": 24, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 8}
    config = transformers.Qwen2VLConfig(vision_config=tower, text_config={**TEXT, "rope_parameters": ROPE}, **QWEN)
    model = made(transformers.Qwen2VLForConditionalGeneration, config)
    return Family(model, _patches(model), [(64, 96)], (4, 6))


@family
def qwen2_5_vl() -> Family:
    tower = {
        "depth": 2, "hidden_size": 24, "out_hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "patch_size": 8,
        "window_size": 32, "fullatt_block_indexes": [1],
    }  # fmt: skip
    config = transformers.Qwen2_5_VLConfig(vision_config=tower, text_config={**TEXT, "rope_parameters": ROPE}, **QWEN)
    model = made(transformers.Qwen2_5_VLForConditionalGeneration, config)
    return Family(model, _patches(model), [(64, 96)], (4, 6))


@family
def qwen3_vl() -> Family:
    tower = {
        "depth": 2, "hidden_size": 24, "out_hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "patch_size": 8,
        "num_position_embeddings": 64, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    text = {**TEXT, "head_dim": 8, "rope_parameters": ROPE}
    config = transformers.Qwen3VLConfig(vision_config=tower, text_config=text, **QWEN)
    model = made(transformers.Qwen3VLForConditionalGeneration, config)
    return Family(model, _patches(model), [(96, 64)], (6, 4))


@family
def internvl() -> Family:
    config = transformers.InternVLConfig(
        vision_config=transformers.InternVLVisionConfig(**TOWER, image_size=[32, 32], patch_size=[4, 4]),
        text_config=transformers.Qwen2Config(**TEXT),
        image_token_id=IMAGE,
    )
    model = made(transformers.InternVLForConditionalGeneration, config)
    processor = transformers.GotOcr2ImageProcessor(
        size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=6
    )

    def call(photos: Sequence[Tensor]) -> dict[str, Any]:
        return prompted(model, {"pixel_values": processor(photos, return_tensors="pt")["pixel_values"]})

    return Family(model, call, [(64, 96)], (8, 12))


@family
def paligemma() -> Family:
    config = transformers.PaliGemmaConfig(
        vision_config=transformers.SiglipVisionConfig(
            **TOWER, image_size=32, patch_size=8, vision_use_head=False, projection_dim=32
        ),
        text_config=transformers.GemmaConfig(**TEXT, head_dim=8),
        image_token_index=IMAGE,
        projection_dim=32,
        hidden_size=32,
    )
    model = made(transformers.PaliGemmaForConditionalGeneration, config)

    def call(photos: Sequence[Tensor]) -> dict[str, Any]:
        found = prompted(model, scaled(photos))
        return {**found, "token_type_ids": torch.zeros_like(found["input_ids"])}

    return Family(model, call, [(32, 32)], (4, 4))


@family
def gemma3() -> Family:
    config = transformers.Gemma3Config(
        vision_config=transformers.SiglipVisionConfig(**TOWER, image_size=64, patch_size=8, vision_use_head=False),
        text_config=transformers.Gemma3TextConfig(**TEXT, head_dim=8, sliding_window=16, query_pre_attn_scalar=8),
        image_token_index=IMAGE,
        mm_tokens_per_image=16,
        boi_token_index=93,
        eoi_token_index=94,
    )
    model = made(transformers.Gemma3ForConditionalGeneration, config)
    return Family(model, lambda photos: typed(prompted(model, scaled(photos)), "token_type_ids"), [(64, 64)], (4, 4))


def _idefics(kind: Any, config: Any, processor: Any) -> Family:
    model = made(kind, config)

    def call(photos: Sequence[Tensor]) -> dict[str, Any]:
        return prompted(model, dict(processor(list(photos), return_tensors="pt")))

    return Family(model, call, [(64, 96)], (8, 12))


@family
def smolvlm() -> Family:
    config = transformers.SmolVLMConfig(
        vision_config={**TOWER, "image_size": 32, "patch_size": 4},
        text_config=transformers.LlamaConfig(**TEXT),
        image_token_id=IMAGE,
        scale_factor=2,
    )
    processor = transformers.SmolVLMImageProcessor(size={"longest_edge": 96}, max_image_size={"longest_edge": 32})
    return _idefics(transformers.SmolVLMForConditionalGeneration, config, processor)


@family
def idefics3() -> Family:
    config = transformers.Idefics3Config(
        vision_config={**TOWER, "image_size": 32, "patch_size": 4},
        text_config=transformers.LlamaConfig(**TEXT),
        image_token_id=IMAGE,
        scale_factor=2,
    )
    processor = transformers.Idefics3ImageProcessor(size={"longest_edge": 96}, max_image_size={"longest_edge": 32})
    return _idefics(transformers.Idefics3ForConditionalGeneration, config, processor)


@family
def florence2() -> Family:
    tower = {
        "depths": [1, 1, 1, 1], "embed_dim": [8, 16, 24, 32], "num_heads": [1, 2, 2, 4], "num_groups": [1, 2, 2, 4],
        "window_size": 4, "projection_dim": 32, "max_position_embeddings": 50,
    }  # fmt: skip
    text = {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "vocab_size": VOCABULARY,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 256,
        "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    }  # fmt: skip
    config = transformers.Florence2Config(vision_config=tower, text_config=text, image_token_id=IMAGE)
    model = made(transformers.Florence2ForConditionalGeneration, config)
    return Family(model, lambda photos: prompted(model, scaled(photos)), [(256, 256)], (8, 8))


@family
def blip2() -> Family:
    tower = {**TOWER, "image_size": 32, "patch_size": 8}
    queries = {**TOWER, "encoder_hidden_size": 24, "cross_attention_frequency": 1, "vocab_size": VOCABULARY}
    text = {
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "vocab_size": VOCABULARY,
        "word_embed_proj_dim": 32,
        "model_type": "opt",
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    config = transformers.Blip2Config(
        vision_config=tower, qformer_config=queries, text_config=text, num_query_tokens=9, image_token_index=IMAGE
    )
    model = made(transformers.Blip2ForConditionalGeneration, config)
    return Family(model, lambda photos: prompted(model, scaled(photos), [9]), [(32, 32)], None)


@family
def kosmos2() -> Family:
    text = {
        "vocab_size": VOCABULARY,
        "embed_dim": 32,
        "layers": 3,
        "ffn_dim": 48,
        "attention_heads": 4,
        "max_position_embeddings": 256,
    }
    config = transformers.Kosmos2Config(
        text_config=text, vision_config={**TOWER, "image_size": 32, "patch_size": 8}, latent_query_num=9
    )
    model = made(transformers.Kosmos2ForConditionalGeneration, config)

    def call(photos: Sequence[Tensor]) -> dict[str, Any]:
        return typed(prompted(model, scaled(photos), [9]), "image_embeds_position_mask")

    return Family(model, call, [(32, 32)], None)
