"""Weights from a file into a model, without ever running code from the file."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import MissingExtra, ModelError

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")


def fill(module: nn.Module, path: str | Path) -> None:
    """Load the weights in `path` into `module`; every key and shape has to fit.

    Wrappers ({"state_dict": ...}, {"model": ...}) and the prefixes that DataParallel, torch.compile and training
    frameworks put before every key are taken off. Raises `ModelError`.
    """
    path = Path(path)
    places = module.state_dict()
    weights = _without_prefixes(_unwrapped(read(path), path), places)
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
    """What a checkpoint holds: safetensors by its ending, anything else with `torch.load(weights_only=True)`.

    Raises `ModelError` if it is missing, damaged, or a pickle of more than tensors.
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
            raise _damaged(path, error) from error
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: is not read, because it is a pickle of more than tensors, and reading that could run code.",
            expected="a state dict: tensors by name",
            do="convert it where you trust it: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')",
        ) from error
    except (RuntimeError, EOFError, KeyError, ValueError, IndexError, OSError) as error:  # torch's, on damaged files
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ModelError:
    text = " ".join(str(error).split())
    return ModelError(
        f"{path}: is damaged, or not a checkpoint.",
        got=f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__,
        expected=".safetensors, or what torch.save(model.state_dict(), path) writes",
    )


def _unwrapped(content: Any, path: Path) -> dict[str, Any]:
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if isinstance(content, Mapping) and content and all(isinstance(value, Tensor) for value in content.values()):
        return dict(content)
    if not isinstance(content, Mapping):
        held = type(content).__name__
    else:
        held = "entries " + _few(f"{key!r} ({type(value).__name__})" for key, value in content.items())
    raise ModelError(
        f"{path}: holds no state dict.",
        got=held,
        expected="tensors by name, alone or under one of " + ", ".join(map(repr, _WRAPPERS)),
    )


def _without_prefixes(weights: dict[str, Tensor], places: Mapping[str, Any]) -> dict[str, Tensor]:
    """`weights` without the prefixes that all of their keys have and the model's own keys do not."""

    def added(prefix: str) -> bool:
        return all(key.startswith(prefix) for key in weights) and not all(key.startswith(prefix) for key in places)

    while prefix := next(filter(added, _PREFIXES), None):
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


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
