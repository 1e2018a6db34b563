"""How the layers of a model lie over its input: what one forward shows of each, and the model's own words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn

from seewhy._torch import Convolution, NormBase
from seewhy._types import CallLabel
from seewhy.geometry.apart import First, apart
from seewhy.geometry.flow import Flow
from seewhy.geometry.grid import Evidence, Grid, in_rows, readings
from seewhy.geometry.plain import Order
from seewhy.geometry.windows import Shape, Windows
from seewhy.hooks.activations import activation_in, activations_in, call_labels
from seewhy.hooks.attach import Passed
from seewhy.hooks.attach import around as around_each
from seewhy.hooks.nested import tensors
from seewhy.inputs import Inputs

if TYPE_CHECKING:
    from seewhy.engine.session import Session


@dataclass(frozen=True)
class Seen:
    """One call of one layer during a forward: what it returned, by shape, and how that can lie over the input.

    Attributes:
        label: which call of which layer.
        kind: the name of the layer's type.
        shape: of what it returned.
        readings: the grids that this can have over the input.
        depth: how far into the forward it returned, from 0 to 1. 1 is where nothing but vectors is left.
        within: the names of the layers around it that made a tensor of their own, or were given queries. It is empty
            for the norm by which such a layer is entered: that is as good as the trunk, and better before a LayerNorm,
            where HiResCAM and its like are zero.
        handed: whether it was given an activation to make it of. A position embedding was not.
        plain: whether nothing that may move places ran before it returned: see `geometry.plain`.
        steered: whether what the images show may have decided where it looks: see `geometry.flow`.
        number: of the tensor that it returned, in the flow of the forward.
    """

    label: CallLabel
    kind: str
    shape: tuple[int, ...]
    readings: tuple[Grid, ...] = ()
    depth: float = 1.0
    within: tuple[str, ...] = ()
    handed: bool = True
    plain: bool = False
    steered: bool = False
    number: int = -1

    @property
    def grid(self) -> Grid | None:
        """The grid, if the layer has one and it can be told."""
        return self.readings[0] if len(self.readings) == 1 else None

    @property
    def widths(self) -> set[int]:
        """How many channels it has, by each of its readings."""
        return {self.shape[grid.channel_axis] for grid in self.readings}


@dataclass(frozen=True)
class Observed:
    """What one forward of the session showed.

    Attributes:
        seen: every call of every layer, in the order in which they returned.
        outputs: what the model returned.
        flow: which tensors were made of which.
        starts: the numbers of the images.
        ends: the numbers of the outputs.
    """

    seen: list[Seen]
    outputs: Any
    flow: Flow
    starts: Set[int]
    ends: Set[int]

    def pass_beside(self, chosen: Sequence[Seen]) -> bool:
        """Whether something of the images reaches the outputs without going through one of these calls."""
        return bool(self.flow.before(self.ends, {call.number for call in chosen}) & self.starts)

    def beside(self, chosen: Seen, others: Sequence[Seen]) -> list[Seen]:
        """Those of `others`, the best first, that carry to the outputs what passes beside a chosen call."""
        by_number = {call.number: call for call in reversed(others)}
        numbers = [call.number for call in others]
        return [by_number[number] for number in self.flow.beside(chosen.number, numbers, self.starts, self.ends)]


def look(run: Session, grid: Shape | None = None) -> list[Seen]:
    """Every call of every layer in one forward of the session, in the order in which they returned.

    Args:
        run: the session.
        grid: the only one that counts.
    """
    return observe(run, grid).seen


def observe(run: Session, grid: Shape | None = None) -> Observed:
    """Run the session's call once and note what every layer returned, and how that can lie over the input.

    Where sequences have more tokens than places, the model runs again, as far as their beginning.

    Args:
        run: the session.
        grid: the only one that counts.
    """
    model, call = run.model, run.call
    outputs, calls, flow, starts = _watched(run)
    evidence = _evidence(model, call, calls)
    evidence = replace(evidence, apart=_apart(run, calls, evidence, grid, flow, starts))
    passing = {made.name for made in calls if made.returned_by.startswith(f"{made.name}.")}
    own = {made.name for made in calls if len(made.shape) > 2} - passing
    own |= _branching(calls)
    own |= {made.name for made in calls if len(made.given) == 3 and evidence.queries & {*made.given[:2]}}
    labels = call_labels([(made.name, made.level) for made in calls])
    with_places = [sum(size > 1 for size in made.shape[1:]) > 1 for made in calls]
    last = max((number for number, has in enumerate(with_places, 1) if has), default=1)
    seen = [
        Seen(
            label,
            type(made.module).__name__,
            made.shape,
            tuple(
                readings(made.shape, call.space, call.batch, evidence, grid, made.windows)
                or in_rows(made.shape, call.space, call.batch, evidence, repeated=label.number is not None)
            ),
            depth=min(1.0, number / last),
            within=() if made.enters else tuple(outer for outer in made.around if outer in own),
            handed=bool(made.given),
            plain=made.plain and len(made.shape) == 2 + len(call.space) and call.count < 2,
            steered=made.steered,
            number=made.number,
        )
        for number, (label, made) in enumerate(zip(labels, calls, strict=True), 1)
    ]
    return Observed(seen, outputs, flow, starts, {flow.number(output) for output in tensors(outputs)})


def _branching(calls: Sequence[_Made]) -> set[str]:
    """The blocks that give what they were given to more than one of their own layers: a convolution and a shortcut.

    Such a block makes a tensor of its own, though its last activation function returns it.
    """
    given = Counter((made.name.rpartition(".")[0], made.given_by) for made in calls if made.given_by)
    return {block for (block, source), times in given.items() if block and times > 1 and _is_outside(source, block)}


def _is_outside(name: str, block: str) -> bool:
    return not name.startswith(f"{block}.")


class _Made(NamedTuple):
    """What a forward showed of one activation that a layer returned.

    returned_by, given_by: the layer that returned this very tensor before, and the one that returned what this layer
    was given; "" for none. given: the shape of that, () for none. channels: (shape, how many, axes they can be on) of
    what it was given and of what it made. windows: as the block that the layer is in declares them.
    around: the modules that it ran in. plain: nothing that may move places had run. steered: something that the images
    steer had. number: in the flow.
    """

    name: str
    module: nn.Module
    level: str
    shape: tuple[int, ...]
    given: tuple[int, ...]
    returned_by: str
    given_by: str
    channels: list[tuple[tuple[int, ...], int, set[int]]]
    windows: Windows | None
    around: tuple[str, ...]
    plain: bool
    steered: bool
    number: int

    @property
    def enters(self) -> bool:
        """Whether it is the norm by which a block is entered: handed what was made outside of that."""
        block = self.name.rpartition(".")[0] + "."
        return _is_norm(self.module) and bool(self.given_by) and not self.given_by.startswith(block)


def _watched(run: Session) -> tuple[Any, list[_Made], Flow, set[int]]:
    """The outputs of one forward, what each of the layers in it made, the flow of it, and where that starts."""
    modules = {name: module for name, module in run.model.named_modules() if name}
    calls: list[_Made] = []
    dimensions = len(run.call.space)  # asked for here: the mode below sees what our own code calls, too
    returned: dict[int, tuple[str, ReferenceType[Tensor]]] = {}  # by id: who returned this tensor last
    paths = Counter(id(module) for _, module in run.model.named_modules(remove_duplicate=False))
    running: list[str] = []

    def source(tensor: Tensor | None) -> str:
        name, reference = returned.get(id(tensor), ("", None))
        return name if reference is not None and reference() is tensor else ""

    def note(name: str, passed: Passed, output: Any) -> None:
        running.pop()
        given, module = activation_in(tuple(passed.values())), modules[name]
        # one that is shared has the name of the first place where it is, and may run in another
        around = tuple(reversed(running)) if paths[id(module)] > 1 else tuple(_around(name))
        size = () if given is None else tuple(given.shape)
        for level, made in activations_in(output).items():
            channels = [
                (tuple(tensor.shape), width, axes)
                for tensor, (width, axes) in zip((given, made), _channels(module), strict=False)
                if tensor is not None
            ]
            windows = _windows(name, modules, dimensions)
            whose = source(made), source(given)
            shape, number = tuple(made.shape), flow.number(made)
            known = (name, module, level, shape, size, *whose, channels, windows, around)
            calls.append(_Made(*known, plain=order.kept, steered=flow.steered, number=number))
            returned[id(made)] = name, ref(made)

    def enter(name: str, passed: Passed) -> tuple[Passed, Callable[[Any], None]]:
        running.append(name)
        return passed, partial(note, name, passed)

    call = run.call.with_rows(Tensor.clone)
    visits = around_each(modules, enter)
    flow = Flow()
    starts = flow.begin(tensors([call.images]))
    with torch.no_grad(), visits, Order() as order, flow:
        outputs = run.forward(call)
    return outputs, calls, flow, starts


def _around(name: str) -> Iterator[str]:
    """The names of the modules that the one called `name` is a part of."""
    while name := name.rpartition(".")[0]:
        yield name


def _windows(name: str, modules: Mapping[str, nn.Module], dims: int) -> Windows | None:
    """The window size, and the shift, if any, that the layer called `name` or what it is a part of declares.

    To be asked during the forward: some blocks of transformers set them to the image that they see.
    """

    def declared(attribute: str) -> tuple[int, ...]:
        found = (getattr(modules.get(outer), attribute, None) for outer in (name, *_around(name)))
        value = next((value for value in found if value is not None), 0)
        sides = (value,) * dims if isinstance(value, int) else value
        told = isinstance(sides, tuple | list) and [type(side) for side in sides] == [int] * dims
        return tuple(sides) if told else (0,) * dims

    size = declared("window_size")
    return Windows(size, declared("shift_size")) if min(size) > 0 else None


def _is_norm(module: nn.Module) -> bool:
    """Whether it is a normalisation of whatever library, and not a convolution with one after it."""
    return "Norm" in type(module).__name__ and not any(isinstance(part, Convolution) for part in module.modules())


def _channels(module: nn.Module) -> list[tuple[int, set[int]]]:
    """(channels, axes they can be on) of what a module is given and of what it makes, as far as its parameters tell."""
    vectors = {parameter.shape[0] for parameter in module.parameters(recurse=False) if parameter.ndim == 1}
    if isinstance(module, Convolution):
        return [(module.in_channels, {1}), (module.out_channels, {1})]
    if isinstance(module, nn.Linear):
        return [(module.in_features, {-1}), (module.out_features, {-1})]
    if len(vectors) != 1:
        return []
    first = isinstance(module, NormBase | nn.GroupNorm)  # else a norm or a scale in whatever layout
    return [(vectors.pop(), {1} if first else {-1} if type(module) is nn.LayerNorm else {1, -1})] * 2


def _evidence(model: nn.Module, call: Inputs, calls: Sequence[_Made]) -> Evidence:
    """What the forward showed and the model declares, for `grid.readings`."""
    axes: dict[tuple[int, ...], set[int]] = {}
    for shape, width, possible in (known for made in calls for known in made.channels):
        there = {axis for axis in possible if len(shape) > 2 and shape[axis] == width}
        if len(there) == 1:
            axes.setdefault(shape, set()).update(there)
    dims = len(call.space)  # of a signal a sequence of tokens has as many axes as a map
    ranks = (2 + dims, 1 + dims) if dims > 2 else (2 + dims,)  # frames of a video may be rows
    maps = [shape for shape, known in axes.items() if len(shape) in ranks and (dims > 1 or known == {1})]
    sources = [source for module in model.modules() for source in (module, getattr(module, "config", None))]
    grids = {
        grid.space
        for shape in maps
        for grid in readings(shape, call.space, call.batch, Evidence(axes))
        or in_rows(shape, call.space, call.batch, Evidence(axes), repeated=True)
    }
    grids |= set(_patches(sources, call.space))
    detecting = {getattr(source, "num_detection_tokens", 0) for source in sources}
    return Evidence(
        axes,
        widths={width for made in calls for _, width, _ in made.channels},
        grids=grids or set(_stages(sources, call.space)),
        lengths={shape[1] for shape, known in axes.items() if len(shape) == 3 and known == {-1}},
        prefixes=_learned_tokens(model) | {getattr(source, "num_prefix_tokens", 0) for source in sources},
        suffix=max(detecting),
        queries=detecting | {getattr(source, "num_queries", 0) for source in sources},
        tokens_first=any(not getattr(source, "batch_first", True) for source in sources),
    )


def _apart(
    run: Session, calls: Sequence[_Made], evidence: Evidence, grid: Shape | None, flow: Flow, starts: Set[int]
) -> dict[int, tuple[tuple[int, ...], ...]]:
    """By the length of each sequence that has more tokens than places: which are none, as `apart` finds them."""
    call = run.call
    if not isinstance(call.images, Tensor) or not call.images.is_floating_point() or call.canvas is not None:
        return {}
    lengths = set()
    for made in calls:
        if len(made.shape) == 3:
            found = readings(made.shape, call.space, call.batch, evidence, grid, made.windows)
            lengths |= {made.shape[1 - one.batch_axis] for one in found if one.others}
    labels = call_labels([(made.name, made.level) for made in calls])
    firsts: dict[int, First] = {}
    for label, made in zip(labels, calls, strict=True):
        for length in lengths - firsts.keys():
            of_length = [shape for shape in (made.given, made.shape) if len(shape) == 3 and length in shape[:2]]
            if of_length and flow.before([made.number]) & starts:
                firsts[length] = First(label, given=of_length[0] is made.given)
    return {length: apart(run, first, length) for length, first in firsts.items()}


def _patches(sources: Iterable[Any], space: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The grids of the patch sizes that modules and their configurations declare."""
    for declared in (getattr(source, "patch_size", None) for source in sources):
        sides = (declared,) * len(space) if isinstance(declared, int) else declared
        if isinstance(sides, tuple | list) and [type(side) for side in sides] == [int] * len(space):
            grid = tuple(pixels // side for pixels, side in zip(space, sides, strict=True))
            if math.prod(grid) > 1:
                yield grid


def _stages(sources: Iterable[Any], space: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The grids of the reductions that timm's models declare of their stages."""
    for declared in (getattr(source, "feature_info", None) for source in sources):
        for stage in declared if isinstance(declared, list) else ():
            if isinstance(stage, Mapping) and isinstance(stage.get("reduction"), int):
                grid = tuple(-(-pixels // stage["reduction"]) for pixels in space)
                if math.prod(grid) > 1:
                    yield grid


def _learned_tokens(model: nn.Module) -> set[int]:
    """How many tokens may stand before the patches: all sums of the few that are parameters (1, tokens, C)."""
    sums = {0}
    for parameter in model.parameters():
        if parameter.ndim == 3 and parameter.shape[0] == 1 and parameter.shape[1] <= _FEW:
            sums |= {total + parameter.shape[1] for total in sums}
    return sums


_FEW = 8  # learned tokens of one kind, such as registers; more is a position embedding
