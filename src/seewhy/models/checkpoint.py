"""Weights from a file into a model, without ever running code from the file."""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import MissingExtra, ModelError, warn
from seewhy.hooks.wrappers import unwrap

ENDINGS = (".pt", ".pth", ".pt2", ".ckpt", ".bin", ".safetensors", ".onnx")

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_SAVED = "a state dict, as torch.save(model.state_dict(), path) or safetensors write it"
_TRUSTED = "where you trust the file, take the weights out once: "

# how files begin that are no checkpoints, what they are, and what to do
_BEGINNINGS = (
    (b"\x89PNG", "a PNG picture", None),
    (b"\xff\xd8\xff", "a JPEG picture", None),
    (b"GIF8", "a GIF picture", None),
    (b"II*\x00", "a TIFF picture", None),
    (b"MM\x00*", "a TIFF picture", None),
    (b"RIFF", "a WebP picture, or a film", None),
    (b"%PDF", "a PDF document", None),
    (b"<", "a web page", "look at what was downloaded: it may be a message"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "git lfs pull"),
    (b"\x89HDF", "an HDF5 file, as Keras writes it", "convert the weights to PyTorch first"),
)


def fill(module: nn.Module, path: str | Path) -> None:
    """Load the weights in a file into a model; every key and shape has to fit.

    Wrappers ({"state_dict": ...}, {"model": ...}) and the prefix that training frameworks put before every key ("net."
    of Lightning, "module." of DataParallel, "_orig_mod." of torch.compile) are taken off. What has another prefix, a
    loss with weights say, is left out with a warning.

    Args:
        module: the model; compilation and data parallelism may stand around it.
        path: a checkpoint; see `read`.

    Raises:
        ModelError: if the file cannot be read, or does not fit.
    """
    module, path = unwrap(module), Path(path)
    places = module.state_dict()
    weights = _without_prefix(_unwrapped(read(path), path), places, path)
    shapes = [
        f"{key} is {tuple(weights[key].shape)}, not {tuple(place.shape)}"
        for key, place in places.items()
        if isinstance(place, Tensor) and key in weights and weights[key].shape != place.shape
    ]
    if shapes:
        raise _mismatch(path, shapes=shapes, missing=places.keys() - weights, unexpected=weights.keys() - places)
    # torch knows which buffers an old checkpoint may leave out, so it says what is missing
    result = module.load_state_dict(weights, strict=False)
    if result.missing_keys or result.unexpected_keys:
        raise _mismatch(path, missing=result.missing_keys, unexpected=result.unexpected_keys)


def read(path: Path) -> Any:
    """What a checkpoint holds.

    Args:
        path: safetensors by its ending, anything else is read with `torch.load(weights_only=True)`.

    Raises:
        ModelError: if it is missing, damaged, no checkpoint, or a pickle of more than tensors. The message says what
            the file is, and how to get the weights out of it.
        MissingExtra: if safetensors is not installed.
    """
    if not path.is_file():
        raise ModelError(
            f"{path}: {'is not a file' if path.exists() else 'there is no such file'}.",
            expected='a checkpoint (.safetensors, .pth, .pt, .bin), or weights="pretrained" or None',
        )
    if path.suffix == ".safetensors":
        try:
            from safetensors import SafetensorError
            from safetensors.torch import load_file
        except ImportError as error:
            raise MissingExtra.of("safetensors", "zoo") from error
        try:
            return load_file(path)
        except SafetensorError as error:
            raise _unreadable(path, error) from error
    if archive := _whole_model(path):
        raise archive
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except MemoryError:
        raise
    except Exception as error:  # torch raises whatever it trips over in a damaged file
        raise _unreadable(path, error) from error


def _whole_model(path: Path) -> ModelError | None:
    """The error for an archive that holds a model with its code; None for any other file."""
    names: list[str] = []
    with suppress(Exception), zipfile.ZipFile(path) as archive:  # most files are no archives, or damaged ones
        names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        kind, weights, module = "a TorchScript archive", "torch.jit.load(path).state_dict()", "torch.jit.load(path)"
    elif any(name.endswith(("models/model.json", "serialized_exported_program.json")) for name in names):
        program = "torch.export.load(path)"
        kind, weights, module = "an exported program", f"{program}.state_dict", f"{program}.module()"
    else:
        return None
    return ModelError(
        f"{path}: is {kind}, which holds a whole model.",
        expected=_SAVED,
        do=f"{_TRUSTED}torch.save({weights}, 'weights.pth'); or explain it as it is: load('file.py:build'), where "
        f"build() returns {module}",
    )


def _unreadable(path: Path, error: Exception) -> ModelError:
    """The error for a file that cannot be read: what it is, as far as its first bytes tell."""
    with path.open("rb") as file:
        beginning = file.read(64).lstrip()
    for begins, kind, do in _BEGINNINGS:
        if beginning.startswith(begins):
            return ModelError(f"{path}: is {kind}, and no checkpoint.", expected=_SAVED, do=do)
    if isinstance(error, pickle.UnpicklingError):
        return _pickled(path)
    text = " ".join(str(error).split())
    return ModelError(
        f"{path}: is damaged, or not a checkpoint.",
        got=f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__,
        expected=_SAVED,
    )


def _pickled(path: Path) -> ModelError:
    """The error for a pickle of more than tensors. The pickle is listed, not run."""
    classes: list[str] = []
    words: set[str] = set()
    with suppress(Exception), zipfile.ZipFile(path) as archive:  # older or damaged files tell less
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
        words = {told for _, told, _ in pickletools.genops(pickled) if isinstance(told, str)}
        classes = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    wrapper = next((each for each in _WRAPPERS if each in words), None)
    kind = "a checkpoint of Lightning with" if "pytorch-lightning_version" in words else "a pickle of"
    state = "content.state_dict()" if wrapper is None else f"content[{wrapper!r}]"
    return ModelError(
        f"{path}: is not read, because it is {kind} more than tensors, and reading that could run code.",
        got=_few(classes) or None,
        expected=_SAVED,
        do=f"{_TRUSTED}content = torch.load(path, weights_only=False); torch.save({state}, 'weights.pth')",
    )


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what a checkpoint holds."""
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if isinstance(content, Mapping) and content and all(isinstance(value, Tensor) for value in content.values()):
        if all(isinstance(key, str) for key in content):
            return dict(content)
        raise ModelError(
            f"{path}: holds tensors under numbers, and not under the names of a model's weights.",
            got="the keys " + _few(map(repr, content)),
            expected=_SAVED,
            do="it may be the state of an optimiser, or a list of parameters: save model.state_dict()",
        )
    nested = None
    held = type(content).__name__
    if isinstance(content, Mapping):
        held = "entries " + _few(f"{key!r} ({type(value).__name__})" for key, value in content.items())
        nested = next((key for key, value in content.items() if isinstance(value, Mapping) and value), None)
    raise ModelError(
        f"{path}: holds no state dict.",
        got=held,
        expected="tensors by name, alone or under one of " + ", ".join(map(repr, _WRAPPERS)),
        do=None
        if nested is None
        else f"if they are in {nested!r}: torch.save(torch.load(path, weights_only=True)[{nested!r}], 'weights.pth')",
    )


def _without_prefix(weights: dict[str, Tensor], places: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The weights under the model's own keys: those of the one prefix under which most of them are found."""
    found: Counter[str] = Counter()
    for key, weight in weights.items():
        parts = key.split(".")
        for start in range(len(parts)):
            place = places.get(".".join(parts[start:]))
            if isinstance(place, Tensor) and place.shape == weight.shape:
                found[".".join([*parts[:start], ""])] += 1
    best = [prefix for prefix, count in found.items() if count == max(found.values())]
    if not best or "" in best:
        return weights
    if len(best) > 1:
        raise ModelError(
            f"{path}: holds the weights of several such models.",
            got="under the prefixes " + _few(map(repr, best)),
            do="save those of one: torch.save(model.state_dict(), 'weights.pth')",
        )
    (prefix,) = best
    if others := [key for key in weights if not key.startswith(prefix)]:
        warn(f"{path}: only the weights under {prefix!r} are used, not {_few(others)}.", UserWarning)
    return {key.removeprefix(prefix): weight for key, weight in weights.items() if key.startswith(prefix)}


def _mismatch(
    path: Path, *, shapes: Iterable[str] = (), missing: Iterable[str] = (), unexpected: Iterable[str] = ()
) -> ModelError:
    found = (("other shapes", list(shapes)), ("missing", sorted(missing)), ("unexpected", sorted(unexpected)))
    return ModelError(
        f"{path}: the weights do not fit the model.",
        got="; ".join(f"{len(keys)} {what}: {_few(keys)}" for what, keys in found if keys),
        do="build the model that the weights were trained in, with the same number of classes",
    )


def _few(texts: Iterable[str], count: int = 3) -> str:
    texts = list(texts)
    return ", ".join(texts[:count]) + (f" and {len(texts) - count} more" if len(texts) > count else "")
