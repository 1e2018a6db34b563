"""Classifiers of torchvision, by its names, with the preprocessing and labels of their best weights."""

from __future__ import annotations

import warnings
from typing import Any

from seewhy.errors import MissingExtra, ModelError
from seewhy.images.preprocess import Preprocess
from seewhy.models.loaded import Loaded
from seewhy.models.sources._failures import downloading, unknown


def from_torchvision(name: str, pretrained: bool) -> Loaded:
    """The classifier `name`, "resnet50".

    Args:
        name: as torchvision calls it.
        pretrained: with its best weights, which are downloaded if they are not there yet; else with random ones.

    Raises:
        ModelError: for an unknown name, what is no classifier of images, or a download that failed.
        MissingExtra: if torchvision is not installed.
    """
    try:
        from torchvision import models
    except ImportError as error:
        raise MissingExtra.of("torchvision", "zoo") from error
    if name not in models.list_models(module=models):
        if name in models.list_models():
            raise ModelError(
                f"torchvision:{name} is not a classifier of images.",
                do="build it in a file of your own, with a Preprocess: load('file.py:build')",
            )
        raise unknown("torchvision", name, models.list_models(module=models))
    best = models.get_model_weights(name).DEFAULT

    def build() -> Any:
        if not pretrained:
            with warnings.catch_warnings():  # torchvision's note on how it will initialise weights some day
                warnings.filterwarnings("ignore", "The default weight initialization", FutureWarning)
                return models.get_model(name, weights=None)
        best.get_state_dict(progress=False, check_hash=True, weights_only=True)  # so that no unsafe file is ever read
        return models.get_model(name, weights=best)

    module = downloading("torchvision:" + name, build)
    preset = best.transforms()
    preprocess = Preprocess(
        size=(preset.crop_size[0], preset.crop_size[0]),
        resize=preset.resize_size[0],
        mean=tuple(map(float, preset.mean)),
        std=tuple(map(float, preset.std)),
        interpolation=preset.interpolation.value,
    )
    return Loaded(module, preprocess, tuple(best.meta["categories"]), "torchvision:" + name)
