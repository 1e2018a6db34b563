"""Small models of each common build, trained on the scenes; `python -m tests.truth.train` makes their weights.

case = CASES["resnet"]
model, seen = case.model(), case.scenes(24)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.models.convnext import ConvNeXt
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.vision_transformer import ConvStemConfig, VisionTransformer
from torchvision.ops import FeaturePyramidNetwork

import seewhy
from tests.truth import scenes
from tests.truth.scenes import Scenes

DATA = Path(__file__).parent / "data"
JUDGED_SEED, HELD_OUT_SEED = 900_000, 800_000  # training takes its seeds from 1 up
KINDS = len(scenes.KINDS["patterns"])


def resnet() -> nn.Module:
    """timm's ResNet of one block a stage, at 32, 16, 8 and 4 places a side."""
    model = ResNet(BasicBlock, (1, 1, 1, 1), KINDS, stem_width=16, channels=(16, 32, 48, 64))
    model.maxpool = nn.Identity()
    return model


class Plain(nn.Module):
    """Convolutions and pooling, nothing that skips them, and a head that knows each place by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_stage(3, 16), nn.MaxPool2d(2), *_stage(16, 32), nn.MaxPool2d(2), *_stage(32, 32), nn.MaxPool2d(2)
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(32 * 64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, KINDS)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images))


def mobilenet() -> nn.Module:
    """torchvision's MobileNetV2: depthwise convolutions, linear bottlenecks; 32, 16, 8 and 4 places a side."""
    settings = [[1, 16, 1, 1], [3, 24, 1, 2], [3, 32, 2, 2], [3, 48, 1, 2]]
    model = MobileNetV2(KINDS, inverted_residual_setting=settings)
    model.features[-1] = nn.Sequential(nn.Conv2d(48, 96, 1, bias=False), nn.BatchNorm2d(96), nn.ReLU6())
    model.classifier = nn.Linear(96, KINDS)
    return model


def convnext() -> nn.Module:
    """timm's ConvNeXt behind a stem of convolutions: large depthwise kernels, layer norms, GELU; 32 to 4 places a side.

    Its own stem is patches and a layer norm, which makes noise as strong as marks: that learns nothing for long.
    """
    model = ConvNeXt(
        num_classes=KINDS, depths=(1, 1, 1, 1), dims=(20, 24, 48, 64), kernel_sizes=5, patch_size=2, ls_init_value=None
    )
    for weight in model.parameters():
        if weight.ndim > 1:  # timm's deviation of 0.02 is made for wide layers
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    model.stem = nn.Sequential(*_stage(3, 20, 2), *_stage(20, 20))
    model.stages[0].downsample = nn.Identity()
    return model


def vit() -> nn.Module:
    """torchvision's vision transformer with a class token, and a stem of convolutions; 8 places a side."""
    stem = [ConvStemConfig(16, 3, 2), ConvStemConfig(32, 3, 2), ConvStemConfig(48, 3, 2)]
    return VisionTransformer(
        64, patch_size=8, num_layers=4, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=KINDS,
        conv_stem_configs=stem,
    )  # fmt: skip


def volume() -> nn.Module:
    """Convolutions in three dimensions; the grids are (8, 16, 16) and (4, 8, 8)."""
    return nn.Sequential(
        OrderedDict(
            stage1=nn.Sequential(*_stage3d(1, 8, 2)),
            stage2=nn.Sequential(*_stage3d(8, 16, 1)),
            stage3=nn.Sequential(*_stage3d(16, 24, 2)),
            pool=nn.AdaptiveAvgPool3d(1),
            flatten=nn.Flatten(),
            head=nn.Linear(24, len(scenes.VOLUME_KINDS)),
        )
    )


class Segmenter(nn.Module):
    """An encoder and a decoder with skips: the scores of each kind, and of none, at every pixel: (B, K + 1, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(*_stage(3, 16))
        self.stage2 = nn.Sequential(nn.MaxPool2d(2), *_stage(16, 24))
        self.stage3 = nn.Sequential(nn.MaxPool2d(2), *_stage(24, 32))
        self.stage4 = nn.Sequential(nn.MaxPool2d(2), *_stage(32, 32))
        self.up3, self.up2, self.up1 = (
            nn.Sequential(*_stage(32 + 32, 32)),
            nn.Sequential(*_stage(32 + 24, 24)),
            nn.Sequential(*_stage(24 + 16, 16)),
        )
        self.head = nn.Conv2d(16, KINDS + 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        one = self.stage1(images)
        two = self.stage2(one)
        three = self.stage3(two)
        four = self.stage4(three)
        up = self.up3(torch.cat([_doubled(four), three], 1))
        up = self.up2(torch.cat([_doubled(up), two], 1))
        return self.head(self.up1(torch.cat([_doubled(up), one], 1)))


def _doubled(maps: Tensor) -> Tensor:
    return nn.functional.interpolate(maps, scale_factor=2, mode="nearest")


class Backbone(nn.Module):
    """Two levels of a pyramid, at 16 and 8 places a side."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(*_stage(3, 16, 2), *_stage(16, 16), *_stage(16, 32, 2), *_stage(32, 32))
        self.coarse = nn.Sequential(*_stage(32, 32, 2), *_stage(32, 32))
        self.fpn = FeaturePyramidNetwork([32, 32], self.out_channels)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        fine = self.fine(images)
        return self.fpn(OrderedDict(fine=fine, coarse=self.coarse(fine)))


def detector() -> nn.Module:
    """torchvision's RetinaNet with two levels. Kind k has label k + 1."""
    anchors = AnchorGenerator(((10, 14), (18, 23)), ((1.0,),) * 2)
    head = RetinaNetHead(Backbone.out_channels, 2, KINDS + 1, norm_layer=nn.BatchNorm2d)
    return RetinaNet(
        Backbone(), KINDS + 1, head=head, anchor_generator=anchors, min_size=scenes.SIZE, max_size=scenes.SIZE,
        score_thresh=0.3, image_mean=[0.0] * 3, image_std=[1.0] * 3, topk_candidates=100, detections_per_img=10,
    )  # fmt: skip


def _stage(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]


def _stage3d(before: int, after: int, stride: int) -> list[nn.Module]:
    return [nn.Conv3d(before, after, 3, stride, 1, bias=False), nn.BatchNorm3d(after), nn.ReLU()]


@dataclass(frozen=True)
class Case:
    """A model, the scenes that it was trained on, and where to look.

    layers: the last of every resolution, finest first. documented: those that the other libraries' own documentation
    names for this build. task: what the model gives. least: the accuracy on scenes that were held out, from which on
    its maps are judged. categories: the class of each kind, for a model of other classes than the scenes' kinds, which
    then exclude each other.
    """

    name: str
    build: Callable[[], nn.Module]
    scene: Callable[..., Scenes]
    layers: tuple[str, ...]
    documented: str
    task: str = "classes"
    least: float = 0.97
    steps: int = 600
    batch: int = 32
    rate: float = 3e-3
    categories: tuple[int, ...] = ()

    @property
    def file(self) -> Path:
        return DATA / f"{self.name}.pt"

    def model(self) -> nn.Module:
        """The trained model, in eval mode."""
        if self.categories:
            return self.build().eval()  # it comes with its weights
        model = self.build()
        stored = torch.load(self.file, weights_only=True)
        model.load_state_dict({name: value.float() if value.is_floating_point() else value
                               for name, value in stored.items()})  # fmt: skip
        return model.eval()

    def scenes(self, count: int, seed: int = JUDGED_SEED) -> Scenes:
        """`count` scenes that no model was trained or tested on, each with evidence for its target."""
        seen = self.scene(2 * count + 8, seed=seed)
        there = seen.truth.flatten(1).any(1) & seen.labels[torch.arange(len(seen)), seen.target]
        return Scenes(*(value[there.nonzero().flatten()[:count]] for value in vars(seen).values()))

    def target(self, seen: Scenes) -> Any:
        """What to pass to `seewhy.explain` as `target`, to ask for each scene's target."""
        if self.task == "places":
            return seewhy.Region(seen.target, seen.truth)
        if self.task == "boxes":
            return seewhy.Box(label=seen.target + 1, box=seen.boxes[:, 0])
        return torch.tensor(self.categories)[seen.target] if self.categories else seen.target

    def inputs(self, seen: Scenes) -> Any:
        return list(seen.images) if self.task == "boxes" else seen.images

    def score(self, model: nn.Module, seen: Scenes, *, probability: bool = True) -> Callable[[Tensor], Tensor]:
        """(n * B, ...) changed images of `seen`, in whole rounds -> their scores for its targets. For classes alone.

        A probability is a sigmoid, where classes exclude each other a softmax.
        """
        squash = partial(torch.softmax, dim=1) if self.categories else torch.sigmoid

        def scores(images: Tensor) -> Tensor:
            with torch.no_grad():
                logits = model(images)
            values = squash(logits) if probability else logits
            return values[torch.arange(len(images)), self.target(seen).repeat(len(images) // len(seen))]

        return scores


def accuracy(case: Case, model: nn.Module, count: int = 400, seed: int = HELD_OUT_SEED) -> float:
    """The share of right answers on scenes that were held out: labels, pixels, or marks that are found.

    For pixels the mean over kinds (and no kind) of the share of their pixels. For boxes the smaller of recall and
    precision: a box is right if its label is, and it covers the mark's with an IoU of at least a half.
    """
    model.eval()
    with torch.no_grad():
        batches = [
            (seen := case.scene(100, seed=seed + start), model(case.inputs(seen))) for start in range(count // 100)
        ]
    if case.task == "boxes":
        return _found(batches)
    if case.task == "places":
        shares = []
        truth = torch.cat([places(seen) for seen, _ in batches])
        given = torch.cat([scores.argmax(1) for _, scores in batches])
        for kind in range(KINDS + 1):
            shares.append((given == kind)[truth == kind].float().mean())
        return float(torch.stack(shares).mean())
    return float(torch.cat([(scores > 0) == seen.labels for seen, scores in batches]).float().mean())


def places(seen: Scenes) -> Tensor:
    """(B, H, W): the kind at every pixel, K where there is none."""
    none = ~seen.masks.any(1, keepdim=True)
    return torch.cat([seen.masks, none], 1).int().argmax(1)


def _found(batches: Iterable[tuple[Scenes, Any]]) -> float:
    from torchvision.ops import box_iou

    hits = marks = boxes = right = 0
    for seen, outputs in batches:
        for true, kinds, given in zip(seen.boxes, seen.kinds, outputs, strict=True):
            true, kinds = true[kinds < KINDS], kinds[kinds < KINDS] + 1
            match = (box_iou(true, given["boxes"]) >= 0.5) & (kinds[:, None] == given["labels"])
            hits, marks = hits + int(match.any(1).sum()), marks + len(true)
            right, boxes = right + int(match.any(0).sum()), boxes + len(given["boxes"])
    return min(hits / marks, right / max(boxes, 1))


def _clever_hans(count: int, *, seed: int = 0) -> Scenes:
    return scenes.clever_hans(count, seed=seed)[0]


def default() -> nn.Module:
    """What `seewhy.load()` gives: EfficientNet-Lite0, with the weights of ImageNet that a package ships."""
    return seewhy.load().module


_BUILDS: dict[str, dict[str, Any]] = {
    "resnet": {"build": resnet, "layers": ("layer1", "layer2", "layer3", "layer4"), "documented": "layer4"},
    "plain": {
        "build": Plain,
        "layers": ("features.2", "features.6", "features.10", "features.11"),
        "documented": "features.11",
        "rate": 2e-3,
    },
    "mobilenet": {
        "build": mobilenet,
        "layers": ("features.1", "features.2", "features.4", "features.6"),
        "documented": "features.6",
        "rate": 4e-3,
    },
    "convnext": {
        "build": convnext,
        "layers": ("stages.0", "stages.1", "stages.2", "stages.3"),
        "documented": "stages.3",
        "rate": 3e-3,
        "steps": 900,
    },
    "vit": {
        "build": vit,
        "layers": (
            "conv_proj",
            *(f"encoder.layers.encoder_layer_{block}" for block in range(3)),
            "encoder.layers.encoder_layer_3.ln_1",
        ),
        "documented": "encoder.layers.encoder_layer_3.ln_1",
        "rate": 1e-3,
        "steps": 1200,
    },
}

# The models of "patterns" have never seen an image without any mark, and say of one that each kind is as likely as not;
# those of "shapes" and of volumes have, and say that there is none. Measures that delete the evidence meet both.
ALL: dict[str, Case] = {
    **{name: Case(name, scene=partial(scenes.marks, family="patterns"), **build) for name, build in _BUILDS.items()},
    **{
        f"{name}-shapes": Case(
            f"{name}-shapes",
            scene=partial(scenes.marks, family="shapes", absent=0.2),
            **{**build, "steps": {"vit": 600, "convnext": 450, "plain": 900}.get(name, 300)},
        )
        for name, build in _BUILDS.items()
    },
    "clever-hans": Case("clever-hans", scene=_clever_hans, **_BUILDS["resnet"]),
    "volume": Case(
        "volume", volume, partial(scenes.volumes, absent=0.2), ("stage2", "stage3"), "stage3", steps=400, rate=1e-2
    ),
    "segmenter": Case(
        "segmenter",
        Segmenter,
        partial(scenes.marks, family="patterns"),
        ("up1", "up2", "up3", "stage4"),
        "stage4",
        task="places",
    ),
    "detector": Case(
        "detector",
        detector,
        partial(scenes.marks, family="shapes", radius=(6.0, 12.0), number=3),
        ("backbone.fpn",),
        "backbone",
        task="boxes",
        batch=16,
    ),
    "mosaics": Case(
        "mosaics",
        default,
        scenes.mosaics,
        ("blocks.1", "blocks.2", "blocks.4", "bn2"),
        "bn2",
        categories=scenes.PHOTOGRAPH_CATEGORIES,
    ),
}

# those whose weights are there and that are right on more than `least` of the scenes that were held out; the others
# train with `python -m tests.truth.train NAME`, for longer than they have been so far
TRAINED = (
    *("resnet", "plain", "mobilenet", "convnext", "vit", "clever-hans"),
    *("resnet-shapes", "mobilenet-shapes", "convnext-shapes", "vit-shapes"),
    *("volume", "segmenter", "detector"),
)
CASES = {name: case for name, case in ALL.items() if name in TRAINED or case.categories}
