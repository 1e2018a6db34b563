"""Small vision transformers of every library, with weights large enough that attention matters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
import transformers
from open_clip.transformer import VisionTransformer as Tower
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

SMALL = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2}
HF = {**SMALL, "image_size": 32, "patch_size": 8}


@dataclass(frozen=True)
class Case:
    """tokens: of the sequence, or None where attention runs in windows. prefix: those before the patches."""

    name: str
    build: Callable[[], nn.Module]
    tokens: int | None
    layers: int = 2
    size: tuple[int, int] = (32, 32)
    prefix: int = 1

    def model(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model = self.build()
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1:
                    nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
                elif "bias" in name or name.endswith(("gamma", "lambda1", "lambda_1", "lambda_2", "scale1")):
                    nn.init.normal_(parameter, mean=float("bias" not in name), std=0.3)
        return model.eval()

    def images(self, batch: int = 3) -> Tensor:
        return torch.randn(batch, 3, *self.size, generator=torch.Generator().manual_seed(4))


def _timm(name: str, size=(32, 32), **options: object) -> Callable[[], nn.Module]:
    small = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
    return lambda: timm.create_model(name, img_size=size, **{**small, **options})


def _unfused(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        model = build()
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False
        return model

    return made


def _hf(kind: str, attention: str, pooled: bool = False, **options: object) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        config = getattr(transformers, f"{kind}Config")(**{**HF, **options}, attn_implementation=attention)
        if pooled:
            return Pooled(getattr(transformers, f"{kind}Model")(config))
        return getattr(transformers, f"{kind}ForImageClassification")(config)

    return made


class Pooled(nn.Module):
    """A vision tower with a linear head on the embedding it pools."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        found = self.tower(images)
        return self.head(found if isinstance(found, Tensor) else found.pooler_output)


def _open_clip() -> nn.Module:
    return Pooled(Tower(image_size=32, patch_size=8, width=16, layers=2, heads=2, mlp_ratio=2, output_dim=16))


def _torchvision() -> nn.Module:
    return VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=24, num_classes=5)


def _torchvision_swin() -> nn.Module:
    return SwinTransformer([4, 4], 8, [2, 2], [2, 2], [2, 2], num_classes=5)


def _timm_swin() -> nn.Module:
    return timm.models.SwinTransformer(
        img_size=32, window_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 2), num_classes=5
    )


vit, beit = _timm("vit_tiny_patch16_224", (32, 48)), _timm("beit_base_patch16_224")
dinov2 = _timm("vit_small_patch14_reg4_dinov2", init_values=1.0)
siglip = _timm("vit_base_patch16_siglip_224")
CASES = [
    Case("timm vit", vit, 25, size=(32, 48)),
    Case("timm vit unfused", _unfused(vit), 25, size=(32, 48)),
    Case("timm deit distilled", _timm("deit_tiny_distilled_patch16_224"), 18, prefix=2),
    Case("timm beit", beit, 17),
    Case("timm beit unfused", _unfused(beit), 17),
    Case("timm dinov2 with registers", dinov2, 21, prefix=5),
    Case("timm siglip", siglip, 16, layers=3, prefix=0),
    Case("timm siglip unfused", _unfused(siglip), 16, layers=3, prefix=0),
    Case("timm swin", _timm_swin, None, layers=4),
    Case("timm swin unfused", _unfused(_timm_swin), None, layers=4),
    Case("torchvision vit", _torchvision, 17),
    Case("torchvision swin", _torchvision_swin, None, layers=4),
    Case("open_clip vit", _open_clip, 17),
    *[
        Case(f"transformers {kind} {attention}", _hf(kind, attention, **options), tokens, prefix=prefix)
        for attention in ("sdpa", "eager")
        for kind, tokens, prefix, options in (
            ("ViT", 17, 1, {}),
            ("DeiT", 18, 2, {}),
            ("Beit", 17, 1, {"use_relative_position_bias": True}),
            ("Dinov2", 17, 1, {"mlp_ratio": 2}),
            ("Dinov2WithRegisters", 21, 5, {"mlp_ratio": 2}),
        )
    ],
    *[
        Case(f"transformers {kind} {attention}", _hf(kind, attention, pooled=True), tokens, layers, prefix=prefix)
        for attention in ("sdpa", "eager")
        for kind, tokens, layers, prefix in (("CLIPVision", 17, 2, 1), ("SiglipVision", 16, 3, 0))
    ],
]  # fmt: skip
