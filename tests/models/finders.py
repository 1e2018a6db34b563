"""Small detectors of several families that find marks; python -m tests.models.finders NAME trains them anew."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from tests.models import marks
from tests.models.marks import NAMES, SIDE, Scene

DATA = Path(__file__).parent / "data"
_PHRASES = (101, 2005, 1012, 2006, 1012, 2007, 1012, 102)  # a word for each kind of mark, as BERT's tokenizer ends them


def pictures(scenes: list[Scene]) -> Tensor:
    """(B, 3, SIDE, SIDE), as the models take them."""
    return (torch.stack([torch.from_numpy(each.pixels).permute(2, 0, 1).float() for each in scenes]) / 255 - 0.45) * 4


def _truth(scenes: list[Scene]) -> list[dict[str, Tensor]]:
    """The objects as transformers' losses take them: boxes are centres and sizes in units of the picture."""
    return [
        {
            "class_labels": torch.tensor(each.labels),
            "boxes": box_convert(torch.tensor(each.boxes).float() / SIDE, "xyxy", "cxcywh"),
        }
        for each in scenes
    ]


# losses: (model, inputs, scenes) -> the mean over a batch


def its_own(model: nn.Module, inputs: dict[str, Tensor], scenes: list[Scene]) -> Tensor:
    """The loss that comes with the model: every object is matched to the query that fits it best."""
    loss: Tensor = model(**inputs, labels=_truth(scenes)).loss
    return loss


def of_torchvision(model: nn.Module, inputs: Any, scenes: list[Scene]) -> Tensor:
    """Those that come with a detector of torchvision, added up. Label 0 is that of no object."""
    truth = [{"boxes": torch.tensor(each.boxes).float(), "labels": torch.tensor(each.labels) + 1} for each in scenes]
    return torch.stack(list(model(inputs, truth).values())).sum()


# the families, small


_RESNET = {"embedding_size": 16, "hidden_sizes": [16, 24, 24, 24], "depths": [1] * 4, "layer_type": "basic"}
_QUERIES = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "num_queries": 20,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "id2label": dict(enumerate(NAMES)),
    "dropout": 0.0,
}  # fmt: skip
_NO_HUB = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
_HYBRID = _QUERIES | {
    "d_model": 24, "encoder_hidden_dim": 24, "decoder_in_channels": [24] * 3, "num_denoising": 0,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "freeze_backbone_batch_norms": False,
}  # fmt: skip


def _resnet(*stages: str) -> Any:
    from transformers import ResNetConfig

    return ResNetConfig(**_RESNET, out_features=list(stages))


def rt_detr() -> nn.Module:
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    backbone = RTDetrResNetConfig(**_RESNET, out_features=["stage2", "stage3", "stage4"])
    return RTDetrForObjectDetection(RTDetrConfig(backbone_config=backbone, encoder_in_channels=[24] * 3, **_HYBRID))


def grounding_dino() -> nn.Module:
    from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection

    text = BertConfig(
        vocab_size=2008, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16,
    )  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=_resnet("stage2", "stage3"), text_config=text, num_feature_levels=2, max_text_len=8,
        fusion_droppath=0.0, disable_custom_kernels=True, **_QUERIES,
    )  # fmt: skip
    return GroundingDinoForObjectDetection(config)


def of_the_zoo(kind: str) -> nn.Module:
    """A detector of torchvision on a pyramid of two levels."""
    from torchvision.models import detection, resnet
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import BackboneWithFPN

    body = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1])
    body.inplanes = 16
    body.conv1, body.bn1 = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
    body.layer1, body.layer2, body.layer3 = (
        body._make_layer(resnet.BasicBlock, width, 1, stride) for width, stride in ((16, 1), (24, 2), (32, 2))
    )
    del body.layer4, body.fc, body.avgpool
    levels = BackboneWithFPN(body, {"layer2": "fine", "layer3": "coarse"}, [24, 32], 32)
    levels.fpn.extra_blocks = None  # no third level
    sizes = ((8,), (16,)) if kind == "FCOS" else ((18,), (28,))
    options: dict[str, Any] = {
        "min_size": SIDE, "max_size": SIDE, "image_mean": [0.0] * 3, "image_std": [1.0] * 3,
    }  # fmt: skip
    anchors = AnchorGenerator(sizes, ((1.0,),) * 2)
    if kind == "FasterRCNN":
        from torchvision.models.detection.faster_rcnn import TwoMLPHead
        from torchvision.ops import MultiScaleRoIAlign

        options |= {
            "rpn_anchor_generator": anchors, "box_roi_pool": MultiScaleRoIAlign(["fine", "coarse"], 5, 2),
            "box_head": TwoMLPHead(32 * 25, 64), "box_predictor": detection.faster_rcnn.FastRCNNPredictor(64, 4),
            "rpn_post_nms_top_n_train": 100, "rpn_post_nms_top_n_test": 50,
        }  # fmt: skip
        return detection.FasterRCNN(levels, **options)
    return getattr(detection, kind)(levels, len(NAMES) + 1, anchor_generator=anchors, **options)


class Finder(NamedTuple):
    """A family. beside: what the model is given besides pictures. loss: what it was trained with, in `steps`."""

    build: Callable[[], nn.Module]
    loss: Callable[..., Tensor] = its_own
    beside: Mapping[str, Tensor] | None = {}
    steps: int = 400
    rate: float = 2e-3

    def inputs(self, scenes: list[Scene]) -> Any:
        images = pictures(scenes)
        if self.beside is None:
            return list(images)
        rows = {key: value.repeat(len(scenes), 1) for key, value in self.beside.items()}
        return {**rows, "pixel_values": images}


_GROUNDED = {"input_ids": torch.tensor([_PHRASES])}
FINDERS = {
    "faster_rcnn": Finder(partial(of_the_zoo, "FasterRCNN"), of_torchvision, None, steps=250),
    "fcos": Finder(partial(of_the_zoo, "FCOS"), of_torchvision, None, steps=250),
    "rt_detr": Finder(rt_detr),
    "grounding_dino": Finder(grounding_dino, its_own, _GROUNDED),
}


def label_of(name: str, kind: int) -> int:
    """The label that a model has for a kind of mark: 0 is nothing in torchvision's; of a prompt it is its token."""
    finder = FINDERS[name]
    return kind + 1 if finder.beside is None else 1 + 2 * kind if finder.beside else kind


def trained(name: str) -> nn.Module:
    """The model as this file trained it."""
    return marks.load(FINDERS[name].build(), DATA / f"{name}.safetensors")


def train(name: str, steps: int | None = None) -> nn.Module:
    """Train a model with its own loss."""
    torch.manual_seed(0)
    finder = FINDERS[name]
    model = finder.build()

    def loss(scenes: list[Scene]) -> Tensor:
        return finder.loss(model, finder.inputs(scenes), scenes)

    return marks.fit(model, loss, steps or finder.steps, rate=finder.rate, clip=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(FINDERS), metavar="NAME")
    parser.add_argument("--steps", type=int)
    asked = parser.parse_args()
    for name in asked.names:
        print(name)
        marks.save(train(name, asked.steps), DATA / f"{name}.safetensors")
