"""Models by name: `load("timm:resnet50")`, `load("torchvision:resnet50")`, `load("path/to/file.py:build")`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from seewhy.errors import ModelError
from seewhy.models import checkpoint
from seewhy.models.loaded import Loaded, usable
from seewhy.models.sources.default import default
from seewhy.models.sources.files import from_file
from seewhy.models.sources.open_clip import from_open_clip
from seewhy.models.sources.timm import from_timm
from seewhy.models.sources.torchvision import from_torchvision
from seewhy.models.sources.transformers import from_transformers

# (name, pretrained) -> the model; another library is a function in `sources` and a line here
_SOURCES: dict[str, Callable[[str, bool], Loaded]] = {
    "timm": from_timm,
    "torchvision": from_torchvision,
    "transformers": from_transformers,
    "open_clip": from_open_clip,
}
_KNOWN = ", ".join(['"default"', *(f'"{prefix}:NAME"' for prefix in _SOURCES), '"path/to/file.py:build"'])


def load(
    spec: str = "default", *, weights: str | Path | None = "pretrained", device: torch.device | str | None = None
) -> Loaded:
    """A model by its name, in eval mode, with its preprocessing and labels.

    Models with a text side give the image's embedding, to be explained with `Text("a prompt")`. A file's `build()` may
    return a scripted, traced or exported module (`torch.jit.load(path)`, `torch.export.load(path).module()`): methods
    that look at the input explain it, such as rise, occlusion and gradients of the input; methods of a layer cannot.

    Args:
        spec: "default" (ImageNet EfficientNet-Lite0, no download), "timm:resnet50", "torchvision:resnet50",
            "transformers:NAME" (on the hub, or a local folder), "open_clip:RN50/openai", or "path/to/file.py:build".
            That file is run and its function `build()` called. It may define `preprocess` (a `Preprocess`, of one
            channel for a model of grey levels) and `labels` (a list of str) too.
        weights: "pretrained" are the library's own (a download, if they are not there yet; for a file, what `build()`
            returns). None or "none" are random ones. Anything else is a checkpoint file, read without running code.
        device: where to put it; None leaves it where it was made.

    Returns:
        The model, ready for `seewhy.explain`.

    Raises:
        ModelError: for a model, weights or a device that cannot be had. What `build()` raises comes through.
        MissingExtra: where the library is not installed.
    """
    place = None if device is None else usable(device)
    source, name = _source(spec)
    pretrained = weights == "pretrained"
    found = source(name, pretrained)
    if not pretrained and weights is not None and weights != "none":
        checkpoint.fill(found.module, weights)
    with suppress(NotImplementedError):  # an exported program stays in the mode that it was exported in
        found.module.eval()
    return found if place is None else found.to(place)


def _source(spec: str) -> tuple[Callable[[str, bool], Loaded], str]:
    """What builds the model that `spec` names, and the name that it is built by."""
    if not isinstance(spec, str):
        raise ModelError("a model is given by its name.", got=type(spec).__name__, expected=_KNOWN)
    if spec == "default":
        return lambda _, pretrained: default(pretrained=pretrained), spec
    path, colon, name = spec.rpartition(":")
    if path.endswith(".py") or spec.endswith(".py"):
        if not (colon and path.endswith(".py") and name.isidentifier()):
            raise ModelError(
                f"{spec}: which function builds the model?",
                expected="path/to/file.py:build",
                do="name it after a colon",
            )
        return from_file, spec
    prefix, _, name = spec.partition(":")
    if prefix in _SOURCES and name:
        return _SOURCES[prefix], name
    if Path(spec).suffix in checkpoint.ENDINGS:
        raise ModelError(
            f"{spec}: a file of weights does not say which model they are of.",
            expected="path/to/file.py:build, where build() returns the model",
            do=f"load('path/to/file.py:build', weights={spec!r}); of a scripted or exported model build() may return "
            "torch.jit.load(path), or torch.export.load(path).module()",
        )
    near = difflib.get_close_matches(prefix, [*_SOURCES, "default"], n=1)
    raise ModelError(
        f"there is no model {spec!r}.",
        expected=_KNOWN,
        do=f"did you mean {near[0]!r}?" if near and near[0] != prefix else None,
    )
