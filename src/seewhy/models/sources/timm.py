"""Models of timm, by its names, with the preprocessing that it declares for each."""

from __future__ import annotations

from typing import Any

from seewhy.errors import MissingExtra, ModelError
from seewhy.images.preprocess import Preprocess
from seewhy.models.loaded import Loaded
from seewhy.models.sources._failures import downloading, unknown
from seewhy.models.sources.default import imagenet_labels


def from_timm(name: str, pretrained: bool) -> Loaded:
    """The model `name`, "resnet50" or with the name of its weights, "resnet50.a1_in1k".

    Args:
        name: as timm calls it.
        pretrained: with timm's weights, which are downloaded if they are not there yet; else with random ones.

    Raises:
        ModelError: for an unknown name or weights, a download that failed, or preprocessing that cannot be done.
        MissingExtra: if timm is not installed.
    """
    try:
        import timm
        from timm.data.config import resolve_model_data_config
    except ImportError as error:
        raise MissingExtra.of("timm", "zoo") from error
    if not timm.is_model(name):
        raise unknown("timm", name, timm.list_models())
    _, _, tag = name.partition(".")
    if tag and name not in timm.list_pretrained():
        raise unknown("timm", name, timm.list_pretrained(name.partition(".")[0] + ".*"))
    if pretrained and not timm.is_model_pretrained(name):
        raise ModelError(f"timm has no pretrained weights for {name!r}.", do="pass weights=None or a checkpoint file")
    module = downloading("timm:" + name, lambda: timm.create_model(name, pretrained=pretrained))
    config = resolve_model_data_config(module)  # type: ignore[no-untyped-call]
    labels = imagenet_labels() if getattr(module, "num_classes", None) == 1000 else None
    return Loaded(module, preprocess_of(config, name), labels, "timm:" + name)


def preprocess_of(config: dict[str, Any], name: str) -> Preprocess:
    """What timm's data configuration of the model `name` means.

    Raises:
        ModelError: for what is not a crop at the centre or a resize of the whole photograph.
    """
    channels, height, width = config["input_size"]
    mode, crop = config["crop_mode"], config["crop_pct"]
    scaled = int(height / crop), int(width / crop)
    if channels not in (1, 3) or mode not in ("center", "squash") or (mode == "center" and height != width):
        raise ModelError(
            f"the preprocessing of timm:{name} is not one that seewhy can do.",
            got=f"input {config['input_size']}, crop mode {mode!r}",
            expected="colours or grey levels, and a square crop from the centre or a resize of the whole photograph",
            do="build it in a file of your own, with a Preprocess: load('file.py:build')",
        )
    return Preprocess(
        size=(height, width),
        resize=scaled[0] if mode == "center" else scaled,
        mean=tuple(map(float, config["mean"][:channels])),
        std=tuple(map(float, config["std"][:channels])),
        interpolation=config["interpolation"],
    )
