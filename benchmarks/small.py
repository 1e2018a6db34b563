"""How transformers' models are built small, and what they are given, where their own defaults do not do.

Some defaults make no model, some make one that takes days. Beside an image some are given a prompt, or patches instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_VIT = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4}
_LCNET = {
    "model_type": "pp_lcnet_v4", "out_features": ["stage1", "stage2", "stage3", "stage4"],
    "stem_channels": [3, 16, 16], "stem_type": "large",  # blocks: kernel, channels in and out, stride, squeezing
    "block_configs": [
        [[3, 16, 16, 1, False]], [[3, 16, 24, 2, False]], [[3, 24, 32, 2, False]], [[5, 32, 48, 2, True]],
    ],
}  # fmt: skip
_LONG = {"long": 7, "mid": 5, "short": 3}  # kernels of PP-OCR's intra-class blocks: size, stride, padding
_INTRACLASS = {
    "reduce_channel": [1, 1, 0],
    "return_channel": [1, 1, 0],
    **{f"vertical_long_to_small_conv_{name}ratio": [[k, 1], [1, 1], [k // 2, 0]] for name, k in _LONG.items()},
    **{f"horizontal_small_to_long_conv_{name}ratio": [[1, k], [1, 1], [0, k // 2]] for name, k in _LONG.items()},
    **{f"symmetric_conv_long_{name}ratio": [[k, k], [1, 1], [k // 2, k // 2]] for name, k in _LONG.items()},
}
_OCR = {"intraclass_block_config": _INTRACLASS, "scale_factor_list": [1, 2, 4, 8], "kernel_list": [3, 2, 2]}

CONFIGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("eomt", "eomt_dinov3", "videomt"), _VIT | {"num_blocks": 2, "num_queries": 20, "image_size": 224}),
    "rf_detr": {"num_queries": 20},
    "lw_detr": {"projector_scale_factors": [1.0], "num_queries": 20},
    "pp_doclayout_v2": {"class_thresholds": [0.5] * 10, "class_order": list(range(10))},
    "pp_ocrv5_server_det": _OCR,
    "pp_ocrv6_medium_det": {"backbone_config": _LCNET, "neck_out_channels": 32} | _OCR,
    "pp_ocrv6_small_det": {"backbone_config": _LCNET, "layer_list_out_channels": [16, 24, 32, 48]},
    "sapiens2": _VIT | {
        "intermediate_size": 192, "head_config": {"upsample_out_channels": [32, 32], "conv_out_channels": [32]},
    },
    "depth_pro": {
        "patch_size": 32, "fusion_hidden_size": 32, "intermediate_hook_ids": [3, 1], "scaled_images_ratios": [0.5, 1],
        "intermediate_feature_dims": [32, 32], "scaled_images_overlap_ratios": [0.0, 0.25],
        "scaled_images_feature_dims": [32, 32],
        **{f"{part}_model_config": _VIT | {"model_type": "vit", "patch_size": 8} for part in ("image", "patch", "fov")},
    },
    "perceiver": {"num_cross_attention_heads": 1, "num_self_attends_per_block": 4},
    "beit": {"out_indices": [3, 5, 7, 11]},
    "imagegpt": {"n_layer": 4},
    "vivit": {"num_frames": 8},
    "vjepa2": {
        "frames_per_clip": 8, "crop_size": 128, "hidden_size": 192, "num_attention_heads": 3, "pred_hidden_size": 96,
        "pred_num_attention_heads": 3, "pred_num_hidden_layers": 2,
    },
    "videoprism_vision_model": {
        "num_frames": 4, "image_size": 144, "num_spatial_layers": 4, "num_temporal_layers": 2,
    },
    "videoprism": {
        "vision_config": {
            "num_frames": 4, "image_size": 144, "num_spatial_layers": 4, "num_temporal_layers": 2,
            "num_auxiliary_layers": 1, "hidden_size": 96, "intermediate_size": 192, "num_attention_heads": 4,
        },
        "text_config": {"hidden_size": 96, "intermediate_size": 192, "num_attention_heads": 4, "num_hidden_layers": 2},
    },
    "blip-2": {
        "vision_config": {
            "hidden_size": 96, "intermediate_size": 192, "num_attention_heads": 4, "num_hidden_layers": 4,
            "image_size": 128,
        },
        "qformer_config": {
            "hidden_size": 96, "intermediate_size": 192, "num_attention_heads": 4, "num_hidden_layers": 1,
            "encoder_hidden_size": 96, "vocab_size": 512, "use_qformer_text_input": True,
        },
        "image_text_hidden_size": 32,
    },
    "shieldgemma2": {
        "vision_config": {
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
            "image_size": 256, "patch_size": 16,
        },
        "text_config": {
            "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        },
        "mm_tokens_per_image": 64, "image_token_index": 500, "boi_token_index": 501, "eoi_token_index": 502,
        "yes_token_index": 1, "no_token_index": 2,
    },
}  # fmt: skip


def _prompt(images: Tensor) -> dict[str, Tensor]:
    """What ShieldGemma's processor makes: the image's tokens in a prompt."""
    prompt = torch.tensor([3, 501, *[500] * 64, 502, 4, 5, 6])
    return {"pixel_values": images, "input_ids": prompt.expand(len(images), -1)}


def _patches(images: Tensor) -> dict[str, Tensor]:
    """What SigLIP 2's processor makes: patches instead of an image."""
    rows, columns = images.shape[2] // 16, images.shape[3] // 16
    patches = F.unfold(images, 16, stride=16).mT
    shape = torch.tensor([[rows, columns]] * len(images))
    return {
        "pixel_values": patches,
        "pixel_attention_mask": torch.ones(patches.shape[:2], dtype=torch.int32),
        "spatial_shapes": shape,
    }


def _task(images: Tensor) -> dict[str, Tensor]:
    """What OneFormer's processor makes: the numbers of the words of a task beside the images."""
    return {"pixel_values": images, "task_inputs": torch.arange(77.0).expand(len(images), -1)}


def _colours(images: Tensor) -> dict[str, Tensor]:
    """What ImageGPT's processor makes: the numbers of 512 colours instead of an image."""
    return {"input_ids": torch.randint(512, (len(images), 32 * 32))}


class Queries(nn.Module):
    """BLIP-2's side of the images, for which transformers has no method: from pixels to (B, queries, D)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        seen = self.model.vision_model(pixel_values=images).last_hidden_state
        queries = self.model.query_tokens.expand(len(images), -1, -1)
        asked = self.model.qformer(query_embeds=queries, encoder_hidden_states=seen).last_hidden_state
        return self.model.vision_projection(asked)


INPUTS: dict[str, Callable[[Tensor], dict[str, Tensor]]] = {
    "shieldgemma2": _prompt,
    "siglip2": _patches,
    "oneformer": _task,
    "imagegpt": _colours,
}
