"""Models by name: `load("timm:resnet50")`, `load("torchvision:resnet50")`, `load("path/to/file.py:build")`."""

from __future__ import annotations

import difflib
import importlib.util
import sys
import uuid
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from seewhy.errors import MissingExtra, ModelError
from seewhy.images.preprocess import Preprocess
from seewhy.models import checkpoint
from seewhy.models.loaded import Loaded, usable
from seewhy.models.sources.default import default, imagenet_labels
from seewhy.models.sources.open_clip import from_open_clip
from seewhy.models.sources.transformers import from_transformers


def load(
    spec: str = "default", *, weights: str | Path | None = "pretrained", device: torch.device | str | None = None
) -> Loaded:
    """The model that `spec` names, in eval mode, with its preprocessing and labels.

    spec: "default" (ImageNet EfficientNet-Lite0, no download), "timm:resnet50", "torchvision:resnet50",
    "transformers:NAME" (on the hub, or a local folder), "open_clip:RN50/openai", or "path/to/file.py:build": that file
    is run and its function `build()` called; it may define `preprocess` (a `Preprocess`) and `labels` (a list of str)
    too. Models with a text side give the image's embedding, to be explained with `Text("a prompt")`.
    weights: "pretrained" are the library's own (a download, if they are not there yet; for a file, what `build()`
    returns); None or "none" are random ones; anything else is a checkpoint file, read without running code from it.
    device: where to put it; None leaves it where it was made.

    Raises `ModelError`, or `MissingExtra` where the library is not installed. What `build()` raises comes through.
    """
    place = None if device is None else usable(device)
    source, name = _source(spec)
    pretrained = weights == "pretrained"
    found = source(name, pretrained)
    if not pretrained and weights is not None and weights != "none":
        checkpoint.fill(found.module, weights)
    found.module.eval()
    return found if place is None else found.to(place)


def _source(spec: str) -> tuple[Callable[[str, bool], Loaded], str]:
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
        return _from_file, spec
    prefix, _, name = spec.partition(":")
    if prefix in _SOURCES and name:
        return _SOURCES[prefix], name
    near = difflib.get_close_matches(prefix, [*_SOURCES, "default"], n=1)
    raise ModelError(
        f"there is no model {spec!r}.",
        expected=_KNOWN,
        do=f"did you mean {near[0]!r}?" if near and near[0] != prefix else None,
    )


def _from_timm(name: str, pretrained: bool) -> Loaded:
    try:
        import timm
        from timm.data.config import resolve_model_data_config
    except ImportError as error:
        raise MissingExtra.of("timm", "zoo") from error
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    _, _, tag = name.partition(".")
    if tag and name not in timm.list_pretrained():
        raise _unknown("timm", name, timm.list_pretrained(name.partition(".")[0] + ".*"))
    if pretrained and not timm.is_model_pretrained(name):
        raise ModelError(f"timm has no pretrained weights for {name!r}.", do="pass weights=None or a checkpoint file")
    module = _downloading("timm:" + name, lambda: timm.create_model(name, pretrained=pretrained))
    config = resolve_model_data_config(module)  # type: ignore[no-untyped-call]
    labels = imagenet_labels() if getattr(module, "num_classes", None) == 1000 else None
    return Loaded(module, _timm_preprocess(config, name), labels, "timm:" + name)


def _timm_preprocess(config: dict[str, Any], name: str) -> Preprocess:
    channels, height, width = config["input_size"]
    mode, crop = config["crop_mode"], config["crop_pct"]
    scaled = int(height / crop), int(width / crop)
    if channels != 3 or mode not in ("center", "squash") or (mode == "center" and height != width):
        raise ModelError(
            f"the preprocessing of timm:{name} is not one that seewhy can do.",
            got=f"input {config['input_size']}, crop mode {mode!r}",
            expected="RGB, and a square crop from the centre or a resize of the whole photograph",
            do="build it in a file of your own, with a Preprocess: load('file.py:build')",
        )
    return Preprocess(
        size=(height, width),
        resize=scaled[0] if mode == "center" else scaled,
        mean=_three(config["mean"]),
        std=_three(config["std"]),
        interpolation=config["interpolation"],
    )


def _from_torchvision(name: str, pretrained: bool) -> Loaded:
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
        raise _unknown("torchvision", name, models.list_models(module=models))
    best = models.get_model_weights(name).DEFAULT

    def build() -> Any:
        if not pretrained:
            with warnings.catch_warnings():  # torchvision's note on how it will initialise weights some day
                warnings.filterwarnings("ignore", "The default weight initialization", FutureWarning)
                return models.get_model(name, weights=None)
        best.get_state_dict(progress=False, check_hash=True, weights_only=True)  # so that no unsafe file is ever read
        return models.get_model(name, weights=best)

    module = _downloading("torchvision:" + name, build)
    preset = best.transforms()
    preprocess = Preprocess(
        size=(preset.crop_size[0], preset.crop_size[0]),
        resize=preset.resize_size[0],
        mean=_three(preset.mean),
        std=_three(preset.std),
        interpolation=preset.interpolation.value,
    )
    return Loaded(module, preprocess, tuple(best.meta["categories"]), "torchvision:" + name)


def _from_file(spec: str, _pretrained: bool) -> Loaded:
    path, _, name = spec.rpartition(":")
    contents = _run(Path(path))
    build = getattr(contents, name, None)
    if not callable(build):
        functions = [key for key, value in vars(contents).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(name, functions, n=3) or functions[:5]
        raise ModelError(
            f"{path} has no function {name!r}.",
            expected="one of its functions: " + ", ".join(near) if near else "def build() -> torch.nn.Module",
        )
    module = build()
    if not isinstance(module, nn.Module):
        raise ModelError(f"{spec} did not return a model.", got=type(module).__name__, expected="a torch.nn.Module")
    preprocess = getattr(contents, "preprocess", None)
    if preprocess is None:
        preprocess = Preprocess()
        warnings.warn(
            f"{path} defines no `preprocess`, so ImageNet's is used: {preprocess.size} of {preprocess.resize} "
            f"pixels, mean {preprocess.mean}, std {preprocess.std}. If the model was trained otherwise, its answers "
            "and maps are wrong; define preprocess = seewhy.models.Preprocess(...) in the file.",
            stacklevel=3,
        )
    if not isinstance(preprocess, Preprocess):
        raise ModelError(
            f"`preprocess` in {path} is of the wrong type.",
            got=type(preprocess).__name__,
            expected="a seewhy.models.Preprocess",
        )
    labels = getattr(contents, "labels", None)
    if labels is not None and (isinstance(labels, str) or not all(isinstance(label, str) for label in labels)):
        raise ModelError(f"`labels` in {path} are of the wrong type.", got=repr(labels)[:80], expected="a list of str")
    return Loaded(module, preprocess, None if labels is None else tuple(labels), spec)


def _run(path: Path) -> ModuleType:
    """The module in the file `path`, under a name of its own. What it raises comes through."""
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file.", expected="path/to/file.py:build")
    name = f"seewhy_model_{path.stem}_{uuid.uuid4().hex}"
    plan = importlib.util.spec_from_file_location(name, path)
    if plan is None or plan.loader is None:
        raise ModelError(f"{path}: is not a Python file.")
    contents = importlib.util.module_from_spec(plan)
    sys.modules[name] = contents  # dataclasses and pickles in the file look themselves up here
    try:
        plan.loader.exec_module(contents)
    except BaseException:
        del sys.modules[name]
        raise
    return contents


def _downloading(name: str, build: Callable[[], Any]) -> nn.Module:
    """What `build` returns; a download that fails becomes a `ModelError`."""
    try:
        module: nn.Module = build()
        return module
    except OSError as error:  # urllib's and the hub's errors, and a full disk, are all of these
        raise ModelError(
            f"the pretrained weights of {name} could not be downloaded.",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            do="pass weights=None for random ones, or a checkpoint file; on the command line --weights",
        ) from error


def _unknown(library: str, name: str, known: Iterable[str]) -> ModelError:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=4) or known[:3]
    return ModelError(
        f"{library} has no model {name!r}.", expected=", ".join(near) if near else None, do=f"{library}.list_models()"
    )


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


# adding a library is a function here: (name, pretrained) -> Loaded
_SOURCES: dict[str, Callable[[str, bool], Loaded]] = {
    "timm": _from_timm,
    "torchvision": _from_torchvision,
    "transformers": from_transformers,
    "open_clip": from_open_clip,
}
_KNOWN = ", ".join(['"default"', *(f'"{prefix}:NAME"' for prefix in _SOURCES), '"path/to/file.py:build"'])
