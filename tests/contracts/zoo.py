"""The models that every promise is checked on: small, random, and each with a trait that trips other libraries."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.resnet import BasicBlock
from torchvision.ops import Conv2dNormActivation

CLASSES = 10

# Options that make a method cheap: the promises do not depend on them.
CHEAP = {
    "rise": {"masks": 40, "cells": 4},
    "poly_cam": {"variant": "+"},
    "ss_cam": {"samples": 2, "noise": 0.1},
    "is_cam": {"steps": 2},
    "opti_cam": {"steps": 3},
    "group_cam": {"groups": 8, "sigma": 2.0},
    "eagle": {"regions": 2},
    "occlusion": {"window": 8, "stride": 8},
    "integrated_gradients": {"steps": 6},
    "guided_integrated_gradients": {"steps": 6},
    "local_integrated_gradients": {"steps": 3},
    "expected_gradients": {"samples": 4},
    "smooth_grad": {"samples": 3},
    "smooth_grad_squared": {"samples": 3},
    "var_grad": {"samples": 3},
    "lime": {"samples": 20, "regions": 9},
    "kernel_shap": {"samples": 20, "regions": 9},
    "sobol": {"designs": 4, "cells": 2},
    "hsic": {"samples": 16, "cells": 2},
}


class VggLike(nn.Module):
    """In-place ReLUs throughout, and a flattening head, so that no two positions weigh the same."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 8, 16, 16)
        blocks = [
            [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
            for before, after in itertools.pairwise(widths)
        ]
        self.features = nn.Sequential(*[layer for block in blocks for layer in block])
        self.classifier = nn.Sequential(nn.Linear(16 * 8 * 8, 32), nn.ReLU(inplace=True), nn.Linear(32, CLASSES))

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(self.features(image).flatten(1))


class SmallCnn(nn.Module):
    """What a person writes for 32x32 images: functional ReLUs and pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.fc = nn.Linear(16 * 8 * 8, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(image)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc(x.flatten(1))


class LeftInTrainMode(nn.Module):
    """Dropout and BatchNorm, handed over in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout2d(0.5),
            nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.5),
        )  # fmt: skip
        self.head = nn.Linear(16, CLASSES)
        self.train()

    def forward(self, image: Tensor) -> Tensor:
        return self.head(F.dropout(self.body(image).mean((-2, -1)), 0.5, self.training))


class CalledTwice(nn.Module):
    """One convolution and one ReLU, each called twice, the second time on the first one's result."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.shared = nn.Conv2d(12, 12, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.relu(self.shared(self.stem(image)))
        return self.head(self.relu(self.shared(x)).mean((-2, -1)))


class OneSigmoid(nn.Module):
    """A detector of one thing: its head is a convolution, its answer a probability of shape (B, 1, 1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=4, padding=2), nn.GELU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.GELU()
        )
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(self.head(F.adaptive_avg_pool2d(self.body(image), 1)))


class _ThinResNet(models.ResNet):
    """One block per stage, with a quarter of ResNet-18's channels: some methods run it once per channel."""

    def __init__(self) -> None:
        super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=CLASSES)
        self.fc = nn.Linear(128, CLASSES)

    def _make_layer(self, block, planes, *args, **kwargs):
        return super()._make_layer(block, planes // 4, *args, **kwargs)


def _mobilenet() -> nn.Module:
    model = models.mobilenet_v2(num_classes=CLASSES, width_mult=0.35)
    model.features[18] = Conv2dNormActivation(112, 64, kernel_size=1, activation_layer=nn.ReLU6)
    model.classifier[1] = nn.Linear(64, CLASSES)
    return model


def _volumes() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 8, 3, stride=2, padding=1), nn.BatchNorm3d(8), nn.ReLU(inplace=True),
        nn.Conv3d(8, 16, 3, stride=2, padding=1), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, CLASSES),
    )  # fmt: skip


class TokensFirst(nn.Module):
    """Sequences as torch has them by default, (N, B, C), and a patch embedding that unfolds instead of convolving."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3 * 8 * 8, 24)
        self.blocks = nn.Sequential(*[nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 24), nn.GELU()) for _ in range(2)])
        self.qkv = nn.Linear(24, 72)
        self.norm = nn.LayerNorm(24)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.blocks(self.embed(F.unfold(image, 8, stride=8).permute(2, 0, 1).contiguous()))
        query, key, value = self.qkv(x).transpose(0, 1).chunk(3, -1)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(0, 1)
        return self.head(self.norm(x + attended.contiguous()).mean(0))


def _vit(**options: object) -> nn.Module:
    model = timm.models.VisionTransformer(
        img_size=(32, 48), patch_size=8, embed_dim=24, depth=3, num_heads=2, num_classes=CLASSES, **options
    )
    for module in model.modules():
        if isinstance(module, nn.Linear):  # at birth so small that in bf16 the blocks would not matter
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if isinstance(module, nn.LayerNorm):  # XGrad-CAM divides by a channel's sum, which would almost cancel
            nn.init.uniform_(module.bias, 1, 2)
    return model


def _swin() -> nn.Module:
    return timm.models.SwinTransformer(
        img_size=(32, 48), window_size=2, embed_dim=16, depths=(1, 2), num_heads=(1, 2), num_classes=CLASSES
    )


def _convnext() -> nn.Module:
    blocks = [CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 1)]
    model = ConvNeXt(blocks, num_classes=CLASSES)
    for name, parameter in model.named_parameters():
        if name.endswith("layer_scale"):  # 1e-6 at birth: the blocks would not matter
            nn.init.ones_(parameter)
    return model


@dataclass(frozen=True)
class Case:
    """A model, an input size for it, its last layer with space, and whether `cam`'s premise holds there.

    tokens: whether attention runs over all of the image.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    layer: str
    averaged: bool
    tokens: bool = False

    def model(self) -> nn.Module:
        """Random weights, the same each time, with BatchNorm statistics that matter; in eval mode unless stated."""
        return copy.deepcopy(_built(self))

    def inputs(self, batch: int = 2) -> Tensor:
        return torch.randn(batch, *self.shape, generator=torch.Generator().manual_seed(2))


@functools.cache
def _built(case: Case) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = case.build()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.normal_(module.running_mean, std=0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model if isinstance(model, LeftInTrainMode) else model.eval()


CASES = [
    Case("resnet", _ThinResNet, (3, 64, 64), "layer4", True),
    Case("vgg_like", VggLike, (3, 64, 64), "features", False),
    Case(
        "densenet",
        lambda: models.DenseNet(growth_rate=8, block_config=(2, 2), num_init_features=16, num_classes=CLASSES),
        (3, 64, 64),
        "features",
        False,  # a ReLU stands between the layer and the average
    ),
    Case("mobilenet", _mobilenet, (3, 64, 64), "features", True),
    Case("convnext", _convnext, (3, 32, 48), "features", False),
    Case("volumes", _volumes, (1, 8, 16, 16), "4", True),
    Case("small_cnn", SmallCnn, (3, 32, 32), "conv2", False),
    Case("left_in_train_mode", LeftInTrainMode, (3, 32, 32), "body", True),
    Case("called_twice", CalledTwice, (3, 32, 32), "relu#1", True),
    Case("one_sigmoid", OneSigmoid, (3, 32, 32), "body", True),
    # the last block of a class token's ViT has no gradient at the patches
    Case("class_token", lambda: _vit(), (3, 32, 48), "blocks.2.norm1", False, tokens=True),
    Case(
        "registers",
        lambda: _vit(class_token=False, reg_tokens=4, global_pool="avg"),
        (3, 32, 48),
        "norm",
        False,
        tokens=True,
    ),
    Case("swin", _swin, (3, 32, 48), "norm", True),
    Case("tokens_first", TokensFirst, (3, 32, 48), "norm", True, tokens=True),
]
