"""Features for a downstream task: what chosen layers return, over a batch or a whole loader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seewhy._types import CallLabel
from seewhy.engine.session import Session, plain_session
from seewhy.errors import InputError, LayerError, MissingExtra
from seewhy.geometry.grid import read
from seewhy.hooks.activations import activation_in
from seewhy.hooks.attach import Finish, Passed, around
from seewhy.hooks.nested import rebuild
from seewhy.hooks.records import lazy_copy
from seewhy.hooks.select import Layer, Layers, check_ran, entries, find, names
from seewhy.hooks.wrappers import unwrap
from seewhy.inputs.call import Inputs


def features(
    model: nn.Module,
    inputs: Any,
    layers: Layers,
    *,
    pooled: bool = False,
    device: torch.device | str | None = None,
    progress: bool = False,
    path: str | Path | None = None,
) -> dict[str, Tensor]:
    """What `layers` return for `inputs`, by layer.

    The model runs in eval mode, without a graph, leaves no trace, and stops as soon as the last of `layers` has run.

    Args:
        model: any module, in whatever mode.
        inputs: for one batch a tensor (B, C, *space), a tuple of arguments or a dict of keywords; for many, a
            DataLoader or any other iterator of those. Of a loader's (images, labels) only the images are used. Batches
            go to the model's device.
        layers: names, patterns, modules, types, or a list. Of a layer that runs several times the first call is meant;
            "relu#1" is the second one.
        pooled: whether the mean over the grid is taken.
        device: where to keep the features; None is where the model is.
        progress: whether a bar is shown.
        path: a .npz or .safetensors file to write them to as well, whole or not at all; None writes none.

    Returns:
        For each layer the features of all N images: (N, C, *grid), or (N, C) if pooled; as returned if it has no grid.

    Raises:
        LayerError: if one of `layers` does not exist, does not run, does not return features of each image, or has no
            grid to pool.
        InputError: for any other file ending, and for a loader without batches.
        MissingExtra: for a .safetensors file, if safetensors is not installed.
    """
    root = unwrap(model)
    wanted = _calls(root, layers)
    target = None if path is None else _checked(Path(path))
    here = next((tensor.device for tensor in root.parameters()), None)
    found: dict[str, list[Tensor]] = {str(label): [] for label in wanted}
    for batch in _batches(inputs, progress):
        with plain_session(root, batch if here is None else rebuild(batch, lambda tensor: tensor.to(here))) as run:
            for label, output in _run(run, wanted).items():
                features = _features(str(label), output, run.call, pooled)
                found[str(label)].append(features.to(device or features.device))
    if not all(found.values()):
        raise InputError("there are no batches.", got=f"an empty {type(inputs).__name__}")
    joined = {label: torch.cat(parts) for label, parts in found.items()}
    if target is not None:
        _write(joined, target)
    return joined


class _Enough(BaseException):
    """Ends a forward from within. No Exception, so that no `except Exception` of the model's holds it back."""


def _calls(root: nn.Module, layers: Layers) -> dict[CallLabel, str]:
    """The calls that are wanted -> the first of the layer's names; a shared layer goes by the one it was asked for by.

    A number may stand behind a layer's name; without one the first call is meant.
    """
    wanted: dict[CallLabel, str] = {}
    known = names(root)
    for entry in entries(layers):
        label = CallLabel.parse(entry) if isinstance(entry, str) else None
        numbered = label is not None and label.number is not None
        layer: Layer = label.name + label.level if label is not None and numbered else entry
        number = label.number if label is not None else None
        for first in find(root, layer):
            name = layer if isinstance(layer, str) and layer in known else first
            wanted[CallLabel(name, number=number)] = first
    return wanted


def _run(run: Session, wanted: Mapping[CallLabel, str]) -> dict[CallLabel, Any]:
    """What the wanted calls returned, in the order of `wanted`; the forward ends with the last of them."""
    missing: dict[tuple[str, int], list[CallLabel]] = {}
    for label, first in wanted.items():
        missing.setdefault((first, label.number or 0), []).append(label)
    counts = Counter[str]()
    kept: dict[CallLabel, Any] = {}

    def visit(name: str, passed: Passed) -> tuple[Passed, Finish]:
        number = counts[name]
        counts[name] += 1

        def finish(output: Any) -> None:
            if labels := missing.pop((name, number), None):
                # an in-place operation may follow, within the layer around it
                kept.update(dict.fromkeys(labels, rebuild(output, lazy_copy)))
                if not missing:
                    raise _Enough

        return passed, finish

    with around(run.modules(tuple(wanted.values())), visit), suppress(_Enough):
        run.run()
    check_ran(map(str, wanted), map(str, kept))
    return {label: kept[label] for label in wanted}


def _features(label: str, output: Any, call: Inputs, pooled: bool) -> Tensor:
    activation = activation_in(output)
    shape = () if activation is None else tuple(activation.shape)
    if activation is None or shape[:1] != (call.batch,):
        raise LayerError(
            f"{label} does not return features of each image.",
            got=type(output).__name__ if activation is None else f"shape {shape} for {call.batch} images",
            expected="a floating point tensor whose first dimension is the batch",
        )
    grid = read(shape, call.space, call.batch)
    folded = activation if grid is None else grid.fold(activation)
    if not pooled or activation.ndim == 2:
        return folded
    if grid is None:
        raise LayerError(
            f"{label} has no grid to pool.", got=f"shape {shape}", expected="(B, C, *grid) or (B, C)", do="pooled=False"
        )
    return folded.flatten(2).mean(-1)


def _batches(inputs: Any, progress: bool) -> Iterable[Any]:
    if isinstance(inputs, Tensor | Mapping | tuple | list) or not isinstance(inputs, Iterable):
        return [inputs]
    from tqdm import tqdm

    shown: Iterable[Any] = tqdm(inputs, desc="features", unit="batch", disable=not progress)
    return (batch[0] if isinstance(batch, tuple | list) else batch for batch in shown)


def _checked(path: Path) -> Path:
    if path.suffix.lower() not in (".npz", ".safetensors"):
        raise InputError("unknown file ending.", got=repr(path.name), expected=".npz or .safetensors")
    return path


def _write(found: Mapping[str, Tensor], path: Path) -> None:
    from seewhy.images.files import written_whole

    kept = {label: tensor.cpu().contiguous() for label, tensor in found.items()}
    if path.suffix.lower() == ".safetensors":
        try:
            from safetensors.torch import save_file
        except ImportError as error:
            raise MissingExtra.of("safetensors", "zoo") from error
        with written_whole(path) as temporary:
            save_file(kept, temporary)
        return
    import numpy as np

    arrays: dict[str, Any] = {
        label: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy() for label, tensor in kept.items()
    }
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
