"""Models of open_clip: an architecture, with random weights or those of a training run."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from torch import Tensor

from seewhy.errors import MissingExtra, ModelError
from seewhy.images.preprocess import Preprocess
from seewhy.models.loaded import Loaded, TextSide


def from_open_clip(name: str, pretrained: bool) -> Loaded:
    """A model of images and texts, as its image side, with `embed_text`.

    Args:
        name: "RN50" or "ViT-B-32", or with the name of its weights, "RN50/openai".
        pretrained: with these weights; else with random ones.

    Raises:
        ModelError: for an unknown name, or where there are several weights and none is named.
        MissingExtra: if open_clip is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise MissingExtra.of("open_clip_torch", "zoo") from error
    architecture, _, tag = name.partition("/")
    if architecture not in open_clip.list_models():
        near = difflib.get_close_matches(architecture, open_clip.list_models(), n=4)
        raise ModelError(
            f"open_clip has no model {architecture!r}.", expected=", ".join(near) or None, do="open_clip.list_models()"
        )
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if pretrained and tag not in tags:
        raise ModelError(
            f"which weights of open_clip:{architecture}?",
            got=repr(tag) if tag else "none named",
            expected=", ".join(f"open_clip:{architecture}/{known}" for known in tags) or "none are known",
            do="name them after a slash, or pass weights=None or a checkpoint file",
        )
    model = open_clip.create_model(architecture, pretrained=tag if pretrained else None)
    tokenizer = open_clip.get_tokenizer(architecture)
    does = open_clip.get_model_preprocess_cfg(model)
    side = does["size"] if isinstance(does["size"], int) else does["size"][0]

    def embed_text(prompts: Sequence[str]) -> Tensor:
        tokens = tokenizer(list(prompts)).to(next(model.parameters()).device)
        features: Tensor = model.encode_text(tokens)
        return features

    def decode(token: int) -> str:
        text: str = tokenizer.decode([token])
        return text.strip()

    preprocess = Preprocess((side, side), side, tuple(does["mean"]), tuple(does["std"]), does["interpolation"])
    return Loaded(model, preprocess, None, "open_clip:" + name, TextSide(embed_text, decode))
