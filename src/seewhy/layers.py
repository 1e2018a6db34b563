"""Which layer, where none is named: chosen by looking at one forward of the caller's own input."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import ReferenceType, ref

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd

from seewhy.capture.guard import guard, unwrap
from seewhy.capture.hooks import after_forward
from seewhy.capture.nested import tensors
from seewhy.capture.tape import activation_in, activations_in, call_labels
from seewhy.errors import LayerError, MethodError
from seewhy.grid import Evidence, Grid, readings
from seewhy.inputs import Inputs


@dataclass(frozen=True)
class Seen:
    """One call of one layer during a forward: what it returned, by shape, and how that can lie over the input.

    depth: how far into the forward it returned, 0 to 1, counted to where nothing but vectors is left. within: the
    names of the layers it is a part of that made a tensor of their own; none for the norm through which such a layer is
    entered, which is as good as the trunk and better: before a LayerNorm, HiResCAM and its like are zero. answer: it
    has the channels of an output with space, so it is what the model says, and not why.
    """

    label: str  # "layer4"; "relu#0", "relu#1" for a layer that ran more than once; "fpn[0]" for a level of a pyramid
    name: str
    kind: str
    shape: tuple[int, ...]
    readings: tuple[Grid, ...] = ()
    depth: float = 1.0
    within: tuple[str, ...] = ()
    answer: bool = False

    @property
    def grid(self) -> Grid | None:
        """The grid, if the layer has one and it can be told."""
        return self.readings[0] if len(self.readings) == 1 else None


def look(model: nn.Module, inputs: Any) -> list[Seen]:
    """Every call of every layer in one forward of `inputs`, in the order in which they returned. Costs that forward."""
    model = unwrap(model)
    call = inputs if isinstance(inputs, Inputs) else Inputs.of(inputs, model)
    modules = {name: module for name, module in model.named_modules() if name}
    calls: list[tuple[str, str, tuple[int, ...]]] = []  # layer, level, shape
    entrances: set[int] = set()
    returned: dict[int, tuple[int, ReferenceType[Tensor]]] = {}  # by id: the latest call that returned this tensor
    passing: set[str] = set()
    axes: dict[tuple[int, ...], set[int]] = {}
    widths: set[int] = set()

    def note(name: str, args: tuple[Any, ...], output: Any) -> None:
        given = activation_in(args)
        for level, activation in activations_in(output).items():
            number, reference = returned.get(id(activation), (0, None))
            if reference is not None and reference() is activation and calls[number][0].startswith(f"{name}."):
                passing.add(name)
            if given is not None and _is_norm(modules[name]):
                number, reference = returned.get(id(given), (0, None))
                if reference is not None and reference() is given:
                    inside = name.rpartition(".")[0] + "."
                    if not calls[number][0].startswith(inside):
                        entrances.add(len(calls))
            returned[id(activation)] = len(calls), ref(activation)
            calls.append((name, level, tuple(activation.shape)))
            for tensor, width, possible in _channels(modules[name], given, activation):
                known = {axis for axis in possible if tensor.ndim > 2 and tensor.shape[axis] == width}
                widths.add(width)
                if len(known) == 1:
                    axes.setdefault(tuple(tensor.shape), set()).update(known)

    with guard(model), torch.no_grad(), after_forward(modules, note):
        outputs = call.with_rows(Tensor.clone).run(model)
    evidence = _evidence(model, call, axes, widths)
    dense = {output.shape[1] for output in tensors(outputs) if output.ndim > 3}
    own = {name for name, _, shape in calls if len(shape) > 2} - passing
    labels = call_labels([name + level for name, level, _ in calls])
    last = max(
        (number for number, (*_, shape) in enumerate(calls, 1) if sum(size > 1 for size in shape[1:]) > 1), default=1
    )
    seen = []
    for number, (label, (name, _, shape)) in enumerate(zip(labels, calls, strict=True)):
        found = tuple(readings(shape, call.space, call.batch, evidence))
        seen.append(
            Seen(
                label,
                name,
                type(modules[name]).__name__,
                shape,
                found,
                depth=min(1.0, (number + 1) / last),
                within=() if number in entrances else tuple(outer for outer in _around(name) if outer in own),
                answer=any(shape[grid.channel_axis] in dense for grid in found),
            )
        )
    return seen


def _around(name: str) -> Iterator[str]:
    """The names of the modules that the one called `name` is a part of."""
    while name := name.rpartition(".")[0]:
        yield name


def _is_norm(module: nn.Module) -> bool:
    """Whether it is a normalisation of whatever library, and not a convolution with one after it."""
    return "Norm" in type(module).__name__ and not any(isinstance(part, _ConvNd) for part in module.modules())


def _channels(module: nn.Module, given: Tensor | None, made: Tensor) -> Iterator[tuple[Tensor, int, set[int]]]:
    """(tensor, channels, axes they can be on) for what a module was given and made, as far as its parameters tell."""
    vectors = {parameter.shape[0] for parameter in module.parameters(recurse=False) if parameter.ndim == 1}
    if isinstance(module, _ConvNd):
        before, after, axes = module.in_channels, module.out_channels, {1}
    elif isinstance(module, nn.Linear):
        before, after, axes = module.in_features, module.out_features, {-1}
    elif len(vectors) == 1:  # a norm or a scale, in whatever layout
        before = after = vectors.pop()
        axes = (
            {1} if isinstance(module, _NormBase | nn.GroupNorm) else {-1} if type(module) is nn.LayerNorm else {1, -1}
        )
    else:
        return
    if given is not None:
        yield given, before, axes
    yield made, after, axes


def _evidence(model: nn.Module, call: Inputs, axes: Mapping[tuple[int, ...], Set[int]], widths: Set[int]) -> Evidence:
    """What the forward showed and the model declares, for `grid.readings`."""
    maps = (shape for shape in axes if len(shape) == 2 + len(call.space))
    seen = {grid.space for shape in maps for grid in readings(shape, call.space, call.batch, Evidence(axes))}
    sources = [source for module in model.modules() for source in (module, getattr(module, "config", None))]
    patches = [getattr(source, "patch_size", None) for source in sources]
    sides = [(patch,) * len(call.space) if isinstance(patch, int) else patch for patch in patches]
    declared = {
        tuple(pixels // side for pixels, side in zip(call.space, patch, strict=True))
        for patch in sides
        if isinstance(patch, tuple | list) and [type(side) for side in patch] == [int] * len(call.space)
    }
    return Evidence(
        axes,
        widths,
        grids=seen | {grid for grid in declared if math.prod(grid) > 1},
        lengths={shape[1] for shape, known in axes.items() if len(shape) == 3 and known == {-1}},
        prefixes=_learned_tokens(model) | {getattr(source, "num_prefix_tokens", 0) for source in sources},
        suffix=max(getattr(source, "num_detection_tokens", 0) for source in sources),
        tokens_first=any(not getattr(source, "batch_first", True) for source in sources),
    )


def _learned_tokens(model: nn.Module) -> set[int]:
    """How many tokens may stand before the patches: all sums of the few that are parameters (1, tokens, C)."""
    sums = {0}
    for parameter in model.parameters():
        if parameter.ndim == 3 and parameter.shape[0] == 1 and parameter.shape[1] <= _FEW:
            sums |= {total + parameter.shape[1] for total in sums}
    return sums


_FEW = 8  # learned tokens of one kind, such as registers; more is a position embedding
_EARLY = 0.25  # up to this share of the forward a layer holds edges and colours, which tell nothing of a class


def candidates(seen: Sequence[Seen], space: tuple[int, ...]) -> list[Seen]:
    """The calls that a map could be drawn from, the best first.

    They have a grid that can be told, coarser than the input where there is such a one, and are not of the first
    quarter. Later layers come first, but those of the trunk before those inside a layer that makes a tensor of its own
    of theirs (a residual block, an attention), and maps with the channels of an output with space, which are what the
    model says and not why, last of all.
    """
    with_grid = [call for call in reversed(seen) if call.grid is not None and call.depth > _EARLY]
    coarser = [call for call in with_grid if call.grid is not None and call.grid.space[-2:] != space[-2:]]
    if not with_grid:
        raise LayerError(
            "no layer of this model has space: none but the first returns a tensor that can be laid over the input.",
            got=", ".join(sorted({f"{call.kind} {call.shape}" for call in seen[-5:]})) or "no layer at all ran",
            expected=f"a map or a sequence of tokens with the aspect ratio of {space}",
            do="pass layers= and grid=, the size of the grid or a function from the layer's output to (B, C, *space)",
        )
    return sorted(coarser or with_grid, key=lambda call: (call.answer, bool(call.within)))


def growing(seen: Sequence[Seen]) -> Iterator[Sequence[Seen]]:
    """`seen` in order, in groups of 1, 4, 16 and so on: the first is mostly right, and few groups reach the last."""
    start, size = 0, 1
    while start < len(seen):
        yield seen[start : start + size]
        start, size = start + size, size * 4


def stages(seen: Sequence[Seen]) -> list[Seen]:
    """The first of `seen` of each grid, in the order they ran: of candidates, the last layer of every resolution."""
    by_grid = {call.grid.space: call for call in reversed(seen) if call.grid is not None}
    return [call for call in reversed(seen) if call in by_grid.values()]


def pyramid(chosen: Seen, seen: Sequence[Seen]) -> list[Seen]:
    """`chosen`, and with it what the same layer returned in other resolutions, if each of its calls has its own.

    A detector's pyramid, or its head that runs over every level, reads each box from one of them. In order of calls.
    """
    levels = [call for call in reversed(seen) if call.name == chosen.name]
    spaces = {call.grid.space for call in levels if call.grid is not None}
    return levels if len(spaces) == len(levels) else [chosen]


def reason(chosen: Seen, seen: Sequence[Seen]) -> str:
    """Why `chosen` was chosen among `seen`, in a sentence."""
    later = seen.index(chosen)
    after = f"; of the {later} later ones none is reached" if later else ""
    layout = "" if chosen.grid is None else chosen.grid.layout
    return f"{chosen.label} ({layout}) is the last layer with space that the score's gradient reaches{after}"


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers of a model by name, convolutions of a single pixel among them."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d | nn.Conv3d) and {*module.kernel_size} == {1})
    }


def biases(model: nn.Module) -> dict[str, Float[Tensor, " C"]]:
    """What each convolution and batch normalisation adds to its output's channels, by the layer's name.

    In eval mode a batch normalisation is z * w / s + (b - m * w / s), with the running mean m and deviation s.
    """
    added = {}
    for name, module in model.named_modules():
        if isinstance(module, _ConvNd) and module.bias is not None:
            added[name] = module.bias.detach()
        elif isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
            shift = -module.running_mean / (module.running_var + module.eps).sqrt()
            added[name] = shift if module.weight is None else (shift * module.weight + module.bias).detach()
    return added


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
