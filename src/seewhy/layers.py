"""Which layers: by name, pattern or module, or chosen by looking at one forward of the caller's own input."""

from __future__ import annotations

import difflib
import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy.capture.guard import guard, unwrap
from seewhy.capture.hooks import after_forward
from seewhy.capture.tape import activation_in, call_labels
from seewhy.errors import LayerError, MethodError
from seewhy.grid import Grid, read
from seewhy.inputs import Inputs

Layers = str | nn.Module | Sequence[str | nn.Module]


@dataclass(frozen=True)
class Seen:
    """One call of one layer during a forward: what it returned, by shape, and the grid if it has one."""

    label: str  # "layer4", or "relu#0", "relu#1" for a layer that ran more than once
    name: str
    kind: str
    shape: tuple[int, ...]
    grid: Grid | None


def find(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """The modules that `layers` names, by name, in the order given: names, patterns, modules, or a list of them.

    In a pattern `*`, `?` and `[...]` stand for parts of one name between dots, `**` for any number of names:
    "layer*.*.conv2", "**.attn". Raises `LayerError` for a name, pattern or module that is not in the model.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    wanted = [layers] if isinstance(layers, str | nn.Module) else list(layers)
    if not wanted:
        raise LayerError("no layer was given.", got="an empty list", do="leave layers out to have one chosen")
    found: dict[str, nn.Module] = {}
    for entry in wanted:
        found.update(_find_module(modules, entry) if isinstance(entry, nn.Module) else _find_name(modules, entry))
    return found


def _find_module(modules: dict[str, nn.Module], wanted: nn.Module) -> dict[str, nn.Module]:
    for name, module in modules.items():
        if module is wanted:
            return {name: module}
    raise LayerError(
        "the layer is not part of this model.",
        got=type(wanted).__name__,
        do="pass one of model.modules(), of the same model that is explained",
    )


def _find_name(modules: dict[str, nn.Module], wanted: str) -> dict[str, nn.Module]:
    if not isinstance(wanted, str):
        raise LayerError("a layer is given by name, pattern or module.", got=repr(wanted))
    if wanted in modules:
        return {wanted: modules[wanted]}
    matching = {name: module for name, module in modules.items() if _matches(name.split("."), wanted.split("."))}
    if matching:
        return matching
    near = difflib.get_close_matches(wanted, modules, n=3, cutoff=0.4)
    raise LayerError(
        f"there is no layer {wanted!r}.",
        expected=", ".join(near) if near else "a name from model.named_modules(), or a pattern such as 'layer*'",
        do="`seewhy layers` and model.named_modules() list them",
    )


def _matches(name: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(_matches(name[skip:], pattern[1:]) for skip in range(len(name) + 1))
    return bool(name) and fnmatch.fnmatchcase(name[0], pattern[0]) and _matches(name[1:], pattern[1:])


def look(model: nn.Module, inputs: Any) -> list[Seen]:
    """Every call of every layer in one forward of `inputs`, in the order in which they returned. Costs that forward."""
    model = unwrap(model)
    call = inputs if isinstance(inputs, Inputs) else Inputs.of(inputs)
    modules = {name: module for name, module in model.named_modules() if name}
    calls: list[tuple[str, tuple[int, ...]]] = []

    def note(name: str, _: tuple[Any, ...], output: Any) -> None:
        if (activation := activation_in(output)) is not None:
            calls.append((name, tuple(activation.shape)))

    with guard(model), torch.no_grad(), after_forward(modules, note):
        call.with_rows(Tensor.clone).run(model)
    labels = call_labels([name for name, _ in calls])
    return [
        Seen(
            label,
            name,
            type(modules[name]).__name__,
            shape,
            read(shape, call.space) if shape and shape[0] == call.batch else None,
        )
        for label, (name, shape) in zip(labels, calls, strict=True)
    ]


def candidates(seen: Sequence[Seen], space: tuple[int, ...]) -> list[Seen]:
    """The calls that a map could be drawn from, the best first: with a grid, coarser than the input, the latest."""
    with_grid = [call for call in reversed(seen) if call.grid is not None]
    coarser = [call for call in with_grid if call.grid is not None and call.grid.space[-2:] != space[-2:]]
    if not with_grid:
        raise LayerError(
            "no layer of this model has space: none returns a tensor (B, C, *grid) that lies over the input.",
            got=", ".join(sorted({f"{call.kind} {call.shape}" for call in seen[-5:]})) or "no layer at all ran",
            expected=f"a grid with the aspect ratio of {space}",
            do="pass layers= and grid=, a function from the layer's output to (B, C, *space)",
        )
    return coarser or with_grid


def growing(seen: Sequence[Seen]) -> Iterator[Sequence[Seen]]:
    """`seen` in order, in groups of 1, 4, 16 and so on: the first is mostly right, and few groups reach the last."""
    start, size = 0, 1
    while start < len(seen):
        yield seen[start : start + size]
        start, size = start + size, size * 4


def reason(chosen: Seen, seen: Sequence[Seen]) -> str:
    """Why `chosen` was chosen among `seen`, in a sentence."""
    later = seen.index(chosen)
    after = f"; of the {later} later ones none is reached" if later else ""
    return f"{chosen.label} ({chosen.grid}) is the last layer with space that the score's gradient reaches{after}"


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers of a model by name, convolutions of a single pixel among them."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d | nn.Conv3d) and {*module.kernel_size} == {1})
    }


@contextmanager
def inputs_of(linear: Mapping[str, nn.Module]) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """While the block lasts, each layer of `linear` that is handed one vector per image is kept with it: (B, C)."""
    kept: list[tuple[nn.Module, Tensor]] = []

    def keep(name: str, args: tuple[Any, ...], _: Any) -> None:
        if args and isinstance(args[0], Tensor) and args[0].numel() == math.prod(args[0].shape[:2]):
            kept.append((linear[name], args[0].detach().flatten(1)))

    with after_forward(linear, keep):
        yield kept


def classifier_weights(
    kept: Sequence[tuple[nn.Module, Tensor]],
    layer: str,
    activations: Float[Tensor, "B C *space"],
    selectors: Float[Tensor, "B K"],
) -> Float[Tensor, "B C"]:
    """The weight of each channel for the score: `selectors` (dS/dlogits) times the classifier's weight matrix.

    The classifier is the linear layer that was handed the global average of `activations` and gives the K logits.
    Raises `MethodError` if there is none: then the method's premise does not hold.
    """
    pooled = activations.flatten(2).mean(-1)
    for module, given in kept:
        weight = module.weight
        if not isinstance(weight, Tensor) or weight.flatten(1).shape != (selectors.shape[1], pooled.shape[1]):
            continue
        rounding = torch.finfo(given.dtype).eps ** 0.75 * pooled.abs().amax()
        if given.shape == pooled.shape and bool(((given.to(pooled) - pooled).abs() <= rounding).all()):
            return selectors.to(pooled) @ weight.detach().flatten(1).to(pooled)
    raise MethodError(
        "cam needs a global average of the layer followed by one linear layer that gives the class scores.",
        got=f"{layer}, whose average no linear layer is given",
        do='method="grad_cam", which is the same where cam applies, or layers= the one before the global average',
    )
