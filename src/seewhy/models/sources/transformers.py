"""Models of transformers: by their name on the hub, or from a folder that `save_pretrained` wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from seewhy.errors import MissingExtra, ModelError
from seewhy.images.preprocess import Preprocess
from seewhy.models.loaded import Loaded, TextSide, own_labels

# by the number that PIL.Image.Resampling gives them
_FILTERS: dict[int, Literal["nearest", "lanczos", "bilinear", "bicubic"]] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
}


class ImageSide(nn.Module):
    """A model of images and texts as a model of images: from pixels to their embedding."""

    model: Any

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """The projected embedding. Versions of transformers up to 4 return it without a container."""
        return _features(self.model.get_image_features(images))


def from_transformers(name: str, pretrained: bool) -> Loaded:
    """The model of the class that its config names, with the preprocessing of its image processor.

    A model that has a text side becomes its image side, with `embed_text`. One that answers prompts about pictures
    comes with its `processor`: see `Loaded.ask`.

    Args:
        name: a name on the hub, or a local folder. What is in a local folder is read from there alone.
        pretrained: with the weights that are there; else with random ones.

    Raises:
        ModelError: where there is no such model, no image processor, or one that does what cannot be done.
        MissingExtra: if transformers is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra.of("transformers", "zoo") from error
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        if type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            return _answering(name, config, pretrained)
        processor = transformers.AutoImageProcessor.from_pretrained(name)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise _not_loaded(name, error) from error
    kind = getattr(transformers, (config.architectures or ["?"])[0], None)
    if kind is None:
        raise ModelError(
            f"the config of transformers:{name} does not name a model that transformers has.",
            got=repr(config.architectures),
            expected="an architecture such as ViTForImageClassification",
            do="save the model with save_pretrained, or build it in a file of your own: load('file.py:build')",
        )
    try:
        model = kind.from_pretrained(name) if pretrained else kind(config)
    except OSError as error:
        raise _not_loaded(name, error) from error
    full_name = "transformers:" + name
    preprocess = _preprocess(processor, full_name)
    if not hasattr(model, "get_text_features"):
        return Loaded(model, preprocess, own_labels(model), full_name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    padding = "max_length" if config.model_type.startswith("siglip") else True  # as SigLIP was trained

    def embed_text(prompts: Sequence[str]) -> Tensor:
        length = config.text_config.max_position_embeddings
        tokens = tokenizer(list(prompts), padding=padding, truncation=True, max_length=length, return_tensors="pt")
        place = next(model.parameters()).device
        return _features(model.get_text_features(**{key: value.to(place) for key, value in tokens.items()}))

    def decode(token: int) -> str:
        return str(tokenizer.decode([token])).strip()

    return Loaded(ImageSide(model), preprocess, None, full_name, TextSide(embed_text, decode))


def _answering(name: str, config: Any, pretrained: bool) -> Loaded:
    """A model that answers prompts about pictures, with its processor."""
    import transformers

    kinds: Any = transformers  # whose automatic classes are not typed
    processor, kind = kinds.AutoProcessor.from_pretrained(name), kinds.AutoModelForImageTextToText
    model = kind.from_pretrained(name) if pretrained else kind.from_config(config)
    return Loaded(model.eval(), Preprocess(), None, "transformers:" + name, processor=processor)


def _features(output: Any) -> Tensor:
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return features


def _not_loaded(name: str, error: Exception) -> ModelError:
    told = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if not Path(name).is_dir():
        told = f"no such folder, and from the hub {told}" if _on_hub(name) else "no such folder"
    return ModelError(
        f"transformers:{name} could not be loaded.",
        got=told,
        expected="a name on the hub, or a folder with config.json, preprocessor_config.json and the weights",
        do="save model, processor and tokenizer with save_pretrained; for a name on the hub look at the network",
    )


def _on_hub(name: str) -> bool:
    """Whether it could be a name there: "model" or "owner/model"."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _preprocess(processor: Any, name: str) -> Preprocess:
    """What an image processor does.

    Raises:
        ModelError: if that is not a resize, perhaps a crop at the centre, and a normalisation.
    """
    does = processor.to_dict()
    size, crop = (dict(does.get(key) or {}) for key in ("size", "crop_size"))
    filtering = _FILTERS.get(int(does.get("resample") or 0))
    cropping, edge = bool(does.get("do_center_crop")), size.get("shortest_edge")
    shape: tuple[int, int] | None = None
    resize: int | tuple[int, int] | None = edge
    if "height" in size and "width" in size:
        shape = resize = size["height"], size["width"]
    if cropping and "height" in crop and "width" in crop:
        shape = crop["height"], crop["width"]
    if edge and does.get("crop_pct"):  # ConvNeXT's: crops what is small, squashes what is large
        shape = edge, edge
        resize = int(edge / does["crop_pct"]) if edge < 384 else shape
    factor = does.get("rescale_factor") or 0
    understood = does.get("do_resize") and does.get("do_rescale") and abs(factor * 255 - 1) < 1e-6
    if not understood or resize is None or filtering is None or does.get("size_divisor"):
        keys = ("do_resize", "size", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "size_divisor")
        raise ModelError(
            f"the preprocessing of {name} is not one that seewhy can do.",
            got=", ".join(f"{key}={does[key]}" for key in keys if does.get(key) is not None),
            expected="a resize, perhaps a crop at the centre, and values scaled to [0, 1] and normalised",
            do="pass model and processor output yourself: explain(model, processor(images=photo, return_tensors='pt'))",
        )
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if does.get("do_normalize"):
        mean, std = tuple(does["image_mean"]), tuple(does["image_std"])
    return Preprocess(shape, resize, mean, std, filtering, longest=size.get("longest_edge"))
