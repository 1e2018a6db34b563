"""The attention over an image's tokens: which it is, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from seewhy._types import Fold
from seewhy.engine.attention import attend, keep_logits
from seewhy.engine.heads import Attention, Call, Layout, blocks, layers_of
from seewhy.engine.session import Session
from seewhy.engine.tape import Latest, StillRecording
from seewhy.errors import MethodError
from seewhy.evidence._companions import see_each_other
from seewhy.evidence._forward import Forward, at_least_float32
from seewhy.evidence._proof import can_be_proven
from seewhy.evidence._provider import provides
from seewhy.evidence._request import Request
from seewhy.geometry import grid as grids
from seewhy.geometry.observe import look
from seewhy.geometry.probes import Probes
from seewhy.inputs import Inputs
from seewhy.inputs.prompted import Prompted


class Layered(Sequence[Tensor]):
    """A tensor for each layer, made when it is asked for: their sizes grow with the square of the tokens."""

    def __init__(self, makers: Sequence[Callable[[], Tensor]]) -> None:
        self.makers = makers

    def __len__(self) -> int:
        return len(self.makers)

    def __getitem__(self, number: Any) -> Any:
        return self.makers[number]()


@dataclass(frozen=True)
class Stack:
    """Which calls of a forward are the attention over the image's tokens, by number, and how each layer's lie."""

    layers: tuple[tuple[int, ...], ...]
    layouts: tuple[Layout, ...]


_OF_THE_LAST = frozenset(("attentions", "readings", "attended_gradients", "queries", "keys", "values", "places"))
_ROUNDING = 1 / 16  # of the last place of a head's largest value: what changes by less has not changed
_MORE = 8  # times as much as the other image's heads, those of the changed image change


@dataclass(frozen=True)
class Tokens:
    """The attention over an image's tokens, first layer to last, and the fold that takes (n, tokens, C) to the grid."""

    calls: Sequence[Attention]
    fold: Fold

    @property
    def pools(self) -> bool:
        """Whether the last is an attention that reads the tokens, and not one among them."""
        return self.calls[-1].rows != self.calls[-1].columns

    @property
    def layers(self) -> Sequence[Attention]:
        """Those among the tokens."""
        return self.calls[:-1] if self.pools else self.calls

    def places(self, rows: Float[Tensor, "n tokens"]) -> Float[Tensor, "n *space"]:
        """A value for each token, on the grid of those that are patches."""
        return self.fold(rows[..., None])[:, 0]

    def blocks(self, model: nn.Module) -> dict[str, nn.Module]:
        """The blocks that the layers ran in, by name.

        Raises:
            MethodError: where it is not one module for each layer.
        """
        names = blocks(self.layers) if self.layers else []
        if not all(names) or not names or len({*names}) < len(names):
            raise MethodError(
                "this method needs blocks that are modules, one for each layer.",
                got=f"{len(self.layers)} layers of attention in {', '.join({*names} - {''}) or 'the model itself'}",
                do='method="attention_relevance", or "agcam"',
            )
        return {name: model.get_submodule(name) for name in names}


@contextmanager
def open_attention(run: Session, _: Mapping[str, nn.Module], needs: Set[str]) -> Iterator[list[Call]]:
    """Every attention of the forward, in a graph from the first on; of a model of language, that of its layers.

    Where no need asks for gradients but those at what was last attended, the graph keeps tensors from there on alone.
    """
    within = run.call.layers if isinstance(run.call, Prompted) else ()
    held, latest = StillRecording(), Latest()

    def begin(call: Call) -> None:
        held.begin()
        latest.begin(call.rows, call.name)

    saving = latest if needs <= _OF_THE_LAST else nullcontext()
    with torch.set_grad_enabled(torch.is_grad_enabled()), held, saving, attend(run.model, within, begin=begin) as calls:
        yield calls


@contextmanager
def open_logits(_: Session, __: Mapping[str, nn.Module], ___: Set[str]) -> Iterator[Any]:
    """What the softmaxes of the forward were taken of."""
    with keep_logits() as kept:
        yield kept


def tokens_of(forward: Forward) -> Tokens:
    """The attention over the image's tokens of a forward. Pass it to `Forward.once`."""
    return among(forward, forward.watched[open_attention])


def among(forward: Forward, calls: Sequence[Call]) -> Tokens:
    """The attention over the image's tokens among all that was seen in a forward like this one.

    Raises:
        MethodError: if there is none, or if it cannot be read.
    """
    if not forward.plan.attention:
        forward.plan.attention.append(_stack(forward, calls))
    (stack,) = forward.plan.attention
    layers = [
        _layer(forward, [calls[number] for number in numbers], layout)
        for numbers, layout in zip(stack.layers, stack.layouts, strict=True)
    ]
    fold = _fold(forward, layers[-1].columns)
    assert fold is not None
    return Tokens(layers, fold)


def last_among(forward: Forward, calls: Sequence[Call], of: int) -> Attention:
    """The last layer among the calls of a forward that began later, which were `of` calls in the whole one."""
    (stack,) = forward.plan.attention
    return _layer(forward, [calls[number - of] for number in stack.layers[-1]], stack.layouts[-1])


def _layer(forward: Forward, calls: Sequence[Call], layout: Layout) -> Attention:
    return Attention(tuple(calls), layout, forward.call.batch)


def _stack(forward: Forward, calls: Sequence[Call]) -> Stack:
    """Which calls are those among the image's tokens, in order, and last what reads them, if that is an attention too.

    The longest sequence that lies over the image counts, so that a text encoder beside is left out.
    """
    lengths = {length for length in {call.columns for call in calls} if _fold(forward, length)}
    shaped = [number for number, call in enumerate(calls) if call.columns in lengths]
    layouts = _layouts(forward, calls) if shaped else [None] * len(calls)
    of_images = [number for number in shaped if layouts[number] is not None]
    readable = [number for number in of_images if calls[number].readable]
    longest = max((calls[number].columns for number in readable), default=0)
    if any(calls[number].columns == longest == calls[number].rows for number in of_images if number not in readable):
        raise _unread("the weights of some of its attention are not made by a softmax", calls)
    over = [number for number in readable if calls[number].columns == longest]
    layers = layers_of([calls[number] for number in over])
    if layers is None:
        raise _unread("its attention is in branches beside each other, not in a stack of layers", calls)
    numbered = [tuple(over[number] for number in layer) for layer in layers]
    chained = [layer for layer in numbered[:-1] if calls[layer[0]].rows == longest] + numbered[-1:]
    members = {number for layer in chained for number in layer}
    kinds = {calls[number].kind for number in members}
    others = [call for number, call in enumerate(calls) if number not in members]
    if not chained or any(call.kind in kinds and call.rows == call.columns for call in others):
        raise _unread("", calls)
    found = [layouts[layer[0]] for layer in chained]
    made = Stack(tuple(chained), tuple(layout for layout in found if layout is not None))
    layers_ = [Attention(tuple(calls[number] for number in layer), Layout(), 1) for layer in chained]
    if unseen := _unseen(forward.run.model, layers_):
        raise _unread(f"no attention was seen in {', '.join(unseen)}, blocks like those in which it was", calls)
    return made


def _unread(why: str, calls: Sequence[Call]) -> MethodError:
    shapes = sorted({str(call.shape) for call in calls})
    got = f"attention of shapes {', '.join(shapes)}" if shapes else "a model without attention"
    return MethodError(
        "methods of attention need a vision transformer in which all blocks look at all tokens of the image."
        + (f" Here {why}." if why else ""),
        got=got,
        expected="softmax(Q K') V among tokens that lie over the image, by scaled_dot_product_attention or by products",
        do='choose a method that does not look at attention, such as "grad_cam", "layer_cam" or "vit_cx"; or pass '
        "grid=, the size of the grid, where the tokens do lie over the image",
    )


def _unseen(model: nn.Module, layers: Sequence[Attention]) -> list[str]:
    """The blocks of the same stack, by class or by the shapes of their weights, in which no attention was seen."""
    seen = set(blocks(layers))
    parents = {name.rpartition(".")[0] for name in seen}
    if "" in seen or len(parents) != 1 or not (parent := parents.pop()):
        return []
    siblings = {f"{parent}.{name}": module for name, module in model.get_submodule(parent).named_children()}
    kinds = {_make(module) for name, module in siblings.items() if name in seen}
    classes = {type(module) for name, module in siblings.items() if name in seen}
    return [
        name
        for name, module in siblings.items()
        if name not in seen and (type(module) in classes or _make(module) in kinds)
    ]


def _make(module: nn.Module) -> tuple[tuple[int, ...], ...]:
    return tuple(sorted(tuple(parameter.shape) for parameter in module.parameters()))


def _layouts(forward: Forward, calls: Sequence[Call]) -> list[Layout | None]:
    """How images and heads lie in each call; None for attention that is not of the images, or in windows of them.

    It is proven: of two copies of an image the first is changed in a corner, and what changes in a call is that image.
    Costs two forwards of two images.

    Raises:
        MethodError: where several images cannot be told apart.
    """
    run, call = forward.run, forward.call
    if isinstance(call, Prompted):  # transformers has (B, heads, ...) in all its models of language
        return [Layout()] * len(calls)
    try:
        before, after = _answers(run, call) if can_be_proven(run) else ([], [])
    except torch.OutOfMemoryError:
        raise
    except Exception:  # of whatever kind: it ran on the batch, so what it cannot do is another size of it
        before, after = [], []
    if len(before) == len(after) == len(calls):
        found = [_layout(*pair) for pair in zip(before, after, strict=True)]
        if call.batch == 1 or any(found) or not see_each_other(forward):
            return found
    elif call.batch > 1 and not see_each_other(forward):
        raise _unread("it cannot be told which of its heads are of which image", calls)
    return [Layout()] * len(calls)


class _Sums(NamedTuple):
    """Of one call, over its columns: what changes in one of them changes these. rounding: of its precision."""

    values: Float[Tensor, "n e"]
    keys: Float[Tensor, "n d"]
    rounding: float

    @classmethod
    def of(cls, call: Call) -> _Sums:
        rounding = _ROUNDING * torch.finfo(call.values.dtype).eps
        return cls(call.values.double().sum(1), call.keys.double().sum(1), rounding)


def _answers(run: Session, call: Inputs) -> tuple[list[_Sums], list[_Sums]]:
    """Of the calls for two copies of one image, and for the same with the first changed in a corner."""
    image = call.image
    finite = image.flatten(1).isfinite().all(1).to(torch.uint8)
    row = int(finite.argmax())
    draw = Generator().manual_seed(0)
    probes = Probes.of(tuple(image.shape[2:]))
    copies = probes.changed(image[row], draw, blank=False)
    same, corner = image[row], copies[2 + 2]
    found = []
    for first in (same, corner):
        pair = call.with_rows(lambda tensor: tensor[row : row + 1].repeat_interleave(2, 0), torch.stack([first, same]))
        with run.aside(), torch.no_grad(), attend(run.model, note=_Sums.of) as calls:
            run.run(pair)
        found.append(list(calls))
    return found[0], found[1]


def _layout(before: _Sums, after: _Sums) -> Layout | None:
    values, keys = (_slower(*pair, before.rounding) for pair in zip(before[:2], after[:2], strict=True))
    if values is None:
        return None
    return Layout(values, values if keys is None else keys)


def _slower(before: Float[Tensor, "n d"], after: Float[Tensor, "n d"], rounding: float) -> int | None:
    """How many heads vary slower than the image, if the first of two images is what has changed."""
    change = (after - before).abs().amax(1) / before.abs().amax(1).clamp(min=1e-30)
    for slower in range(1, len(change) // 2 + 1):
        if len(change) % (2 * slower) == 0:
            by_image = change.reshape(slower, 2, -1)
            least, other = by_image[:, 0].amin(), by_image[:, 1].amax()
            if bool(least > rounding) and bool(least > _MORE * other):
                return slower
    return None


def _fold(forward: Forward, length: int) -> Fold | None:
    """How a sequence of this length lies over the image: as the caller says, or as one forward shows."""
    given, call = forward.settings.grid, forward.call
    if callable(given):
        return given
    sequences = forward.plan.sequences
    if not sequences:
        with forward.run.aside():
            for seen in look(replace(forward.run, call=call), given):
                if seen.grid is not None and len(seen.shape) == 3:
                    sequences[seen.shape[1 - seen.grid.batch_axis]] = replace(seen.grid, batch_axis=0)
    if length in sequences:
        return sequences[length].fold
    found = [] if given is None else grids.readings((call.batch, length, 1), call.space, call.batch, grid=given)
    return found[-1].fold if found else None  # of a sequence that no layer returned


_WATCHED: dict[str, Any] = {"start": "watch", "watch": open_attention}


def _layers(forward: Forward) -> Sequence[Attention]:
    return forward.once(tokens_of).calls


def _outputs(forward: Forward) -> Iterable[Tensor]:
    """What the calls returned that gradients are asked for at: all of them."""
    return [output for layer in _layers(forward) for output in layer.outputs]


def _read(forward: Forward) -> Iterable[Tensor]:
    """What the layers returned: of those with the same number of rows the last."""
    return [output for layer in {layer.rows: layer for layer in _layers(forward)}.values() for output in layer.outputs]


@provides("attentions", **_WATCHED)
def attentions(request: Request) -> Sequence[Tensor]:
    """The probabilities (B, heads, rows, columns) of each layer."""
    return Layered([partial(_probabilities, layer) for layer in _layers(request.forward)])


def _probabilities(layer: Attention) -> Tensor:
    return at_least_float32(layer.probabilities)


@provides("attention_logits", start="watch", watch=open_logits)
def attention_logits(request: Request) -> Sequence[Tensor]:
    """What the softmax of each was taken of."""
    return Layered([partial(_logits, layer) for layer in _layers(request.forward)])


def _logits(layer: Attention) -> Tensor:
    return at_least_float32(layer.logits)


@provides("attention_gradients", **_WATCHED, leaves=_outputs)
def attention_gradients(request: Request) -> Sequence[Tensor]:
    """The gradient of the score at each layer's probabilities."""
    return Layered([partial(_slopes, request, layer) for layer in _layers(request.forward)])


def _slopes(request: Request, layer: Attention) -> Tensor:
    return at_least_float32(layer.slopes([request.slope(output).detach() for output in layer.outputs]))


@provides("readings", **_WATCHED, leaves=_read)
def readings(request: Request) -> list[Float[Tensor, "B rows"]]:
    """For each layer the share of each row in what is read of it: the rows that the score's gradient reaches."""
    read = {}
    for layer in {layer.rows: layer for layer in _layers(request.forward)}.values():
        slope = layer.by_row([request.slope(output) for output in layer.outputs])
        reached = at_least_float32((slope != 0).any(-1).any(1).to(slope.dtype))
        read[layer.rows] = reached / reached.sum(1, keepdim=True).clamp(min=1)
    return [read[layer.rows] for layer in _layers(request.forward)]


@provides("attended_gradients", **_WATCHED, leaves=_read)
def attended_gradients(request: Request) -> Tensor:
    """The gradient of the score at what the last attention returned."""
    last = _layers(request.forward)[-1]
    return at_least_float32(last.by_row([request.slope(output).detach() for output in last.outputs]))


@provides("queries", **_WATCHED)
def queries(request: Request) -> Tensor:
    """Of the last attention."""
    return at_least_float32(_layers(request.forward)[-1].queries.detach())


@provides("keys", **_WATCHED)
def keys(request: Request) -> Tensor:
    """Of the last attention."""
    return at_least_float32(_layers(request.forward)[-1].keys.detach())


@provides("values", **_WATCHED)
def values(request: Request) -> Tensor:
    """Of the last attention."""
    return at_least_float32(_layers(request.forward)[-1].values.detach())


@provides("places", **_WATCHED)
def places(request: Request) -> Any:
    """A function from a value for each token, (n, tokens), to the grid (n, *grid)."""
    return request.forward.once(tokens_of).places
