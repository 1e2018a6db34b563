"""See every attention of a forward, whatever kernel or product the model calls for it, at no memory of its own.

What is kept are queries, keys, values and outputs, which grow with the tokens, not with their square. Probabilities are
made of them when they are asked for, a layer at a time, and so are the gradients at them: of O = A V, dS/dA = dS/dO V'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, MutableMapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from types import FunctionType
from typing import Any, NamedTuple
from weakref import ref

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from seewhy._torch import safe_softmax, unwatched
from seewhy.engine.heads import Call, wide
from seewhy.engine.product import Product, Weighing, laid_out, product_of
from seewhy.hooks.attach import Finish, Passed, around
from seewhy.hooks.nested import rebuild

_MOVES = {"transpose", "permute", "swapaxes", "swapdims", "movedim", "moveaxis", "adjoint", "__get__"}


def _itself(call: Call) -> Call:
    return call


@contextmanager
def attend(
    model: nn.Module,
    within: Collection[str] = (),
    *,
    begin: Callable[[Call], object] | None = None,
    note: Callable[[Call], Any] = _itself,
) -> Iterator[list[Any]]:
    """While the block lasts, all attention in this thread's forwards of `model` is kept, in order.

    Seen are `F.scaled_dot_product_attention`, also as `nn.MultiheadAttention` calls it, whose fast path steps aside for
    as long, and what a model writes out: a product of queries and keys, a softmax over the keys, a product with the
    values, be they matmul, bmm, baddbmm or einsum, in whatever order of dimensions, for all heads or one by one. It
    runs as it does. Attention in kernels of other libraries and in scripted code is not seen.

    Args:
        model: what runs.
        within: names of modules: attention elsewhere is passed over. All of the model, unless given.
        begin: called with each call, turns recording on, so that gradients at outputs can be asked for: a graph begins
            at the first of them. None records as it is.
        note: makes of a call what is kept of it. All of it, unless given.
    """
    running = [""]
    calls: list[Any] = []

    def keep(made: Call) -> Tensor:
        made = replace(made, name=running[-1])
        if begin is None or not made.readable:
            calls.append(note(made))
            return made.output
        if not made.output.requires_grad:
            made = replace(made, output=made.output.detach().requires_grad_())
        begin(made)
        going_on = made.output.clone()
        calls.append(note(replace(made, onward=going_on.grad_fn)))
        return going_on

    mode: Any = Open(keep, lean=begin is not None)

    def visit(name: str, passed: Passed) -> tuple[Passed, Finish]:
        depth = len(running)
        running.append(name)
        if name in within:
            mode.__enter__()  # if the call does not return, the guard takes it off

        def leave(_: Any) -> None:
            del running[depth:]
            if name in within:
                mode.__exit__(None, None, None)

        return passed, leave

    with around(dict(model.named_modules()), visit), nullcontext() if within else mode:
        yield calls


@contextmanager
def keep_logits() -> Iterator[None]:
    """While the block lasts, and as long as what it yields, softmaxes' arguments are there for `Call.logits`."""
    with _Softmaxes() as kept:
        yield kept


class _Softmaxes(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.arguments: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.multi_head_attention_forward:
            with self:
                return _undispatched(func)(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") == "softmax":
            self.arguments.append(args[0] if args else kwargs["input"])
        return func(*args, **(kwargs or {}))


def of_values() -> TorchFunctionMode:
    """While it is on, the queries and keys of all self-attention are its values: softmax(V V' / sqrt(e)) V.

    What is seen is as for `attend`.
    """
    return Open(weigh=_among_values)


def _among_values(weights: Tensor, values: Tensor) -> Tensor:
    if weights.shape[-1] != weights.shape[-2]:
        return weights
    return (values @ values.mT / math.sqrt(values.shape[-1])).softmax(-1)


def of_itself() -> TorchFunctionMode:
    """While it is on, each token of a self-attention looks at itself alone: no attention moves anything about.

    What is seen is as for `attend`. Attention of one sequence to another stays as it is.
    """
    return _Itself(weigh=_alone)


def _alone(weights: Tensor, _: Tensor) -> Tensor:
    rows, columns = weights.shape[-2:]
    return torch.eye(rows).to(weights).expand_as(weights) if rows == columns else weights


class _Made(NamedTuple):
    """What is known of a tensor that was made of a product in its size.

    axes: which dimension each of the product's labels is now. softmaxed: the label that a softmax was taken over.
    logits: a reference to what it was taken of. since: the ways in which the result was moved and reshaped.
    """

    product: Product
    axes: dict[int, int]
    softmaxed: int | None = None
    logits: Any = None
    since: tuple[Callable[[Tensor], Tensor], ...] = ()


class Open(TorchFunctionMode):
    """Hands every attention to `keep`, which says what goes on in place of its output; or weighs the values otherwise.

    Of a product its factors are remembered, and again for all that is made of it in its size: scaled, masked, cast,
    moved. Where a softmax is taken of such a tensor, the next product has the values as its other factor.

    Args:
        keep: given a `Call`.
        weigh: makes other weights of the weights (..., rows, columns) and the values (..., columns, e).
        lean: whether the weights of linear layers are left out of the graph, which then need not keep their inputs.
    """

    def __init__(
        self,
        keep: Callable[[Call], Tensor] = lambda call: call.output,
        weigh: Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        lean: bool = False,
    ) -> None:
        super().__init__()
        self.keep, self.weigh, self.lean = keep, weigh, lean
        self.made: MutableMapping[Tensor, _Made] = WeakTensorKeyDictionary()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            with self:
                return _undispatched(func)(*args, **kwargs)
        if name == "linear" and self.lean:
            args = tuple(map(_without_graph, args))
            kwargs = {key: _without_graph(entry) for key, entry in kwargs.items()}
        with unwatched():  # other modes need not hear of what is asked here
            product = product_of(name, args, kwargs)
            found = self._reading(product) if product is not None and name != "baddbmm" else None
        if found is not None:
            return self._weighed(func, args, kwargs, *found)
        result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            with unwatched():
                self._note(func, name, args, kwargs, product, result)
        return result

    def _reading(self, product: Product) -> tuple[Weighing, _Made] | None:
        """How a product weighs values by what is known of one of its factors."""
        for number, factor in enumerate(product.factors):
            if (made := self.made.get(factor)) is not None and (read := _weighing(product, number, made)):
                return read, made
        return None

    def _note(self, func: Any, name: str, args: Any, kwargs: Any, product: Product | None, result: Tensor) -> None:
        if result.ndim < 3:
            return
        if product is not None:
            self.made[result] = _Made(product, {label: axis for axis, label in enumerate(product.result)})
        else:
            self._follow(func, name, args, kwargs, result)

    def _follow(self, func: Any, name: str, args: Any, kwargs: Any, result: Tensor) -> None:
        """Note what a function made of a tensor that is known, if it kept its size."""
        given = next(
            (entry for entry in (*args, *kwargs.values()) if isinstance(entry, Tensor) and entry in self.made), None
        )
        if given is None or given.numel() != result.numel():
            return
        known = self.made[given]
        way = (
            partial(_called, func, args, kwargs, given)
            if name in _MOVES
            else lambda tensor: tensor.reshape(result.shape)
        )
        axes = _moved(way, given, known.axes) if name in _MOVES else _kept(known.axes, given, result)
        if name == "softmax" and known.softmaxed is None:
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            over = [label for label, axis in axes.items() if dim is not None and axis == dim % result.ndim]
            if not over or not any(over[0] in known.product.alone(which) for which in (0, 1)):
                return
            self.made[result] = known._replace(axes=axes, softmaxed=over[0], logits=ref(given), since=())
        else:
            since = (*known.since, way) if name in _MOVES or given.shape != result.shape else known.since
            self.made[result] = known._replace(axes=axes, since=since)

    def _weighed(self, func: Any, args: Any, kwargs: Any, read: Weighing, made: _Made) -> Tensor:
        """A product of weights and values, as the model wrote it."""
        weights, values = (read.product.factors[number] for number in (read.number, 1 - read.number))
        if made.softmaxed is not None and self.weigh is not None:
            other = read.as_written(self.weigh(read.weights(weights), read.values(values)))
            args, kwargs = ([_exchanged(entry, weights, other) for entry in args], kwargs)
        result: Tensor = func(*args, **kwargs)
        sizes, of = made.product.sizes, made.product
        over = made.softmaxed if made.softmaxed is not None else _label_of(made, read)
        keyed = 0 if over in of.labels[0] else 1
        asked = list(of.alone(1 - keyed))
        row = next(
            (label for label in asked if sizes[label] == read.product.sizes[read.rows]), asked[-1] if asked else None
        )
        if over is None or row is None:
            return result
        lead = tuple(label for label in of.result if label not in (row, over))

        def side(number: int, place: int) -> Tensor:
            labels = of.labels[number]
            rest = tuple(label for label in labels if label not in (*lead, place))
            return laid_out(of.factors[number], labels, sizes, lead, (place,), rest)

        held = weights.detach()
        call = Call(
            queries=side(1 - keyed, row).detach(),
            keys=side(keyed, over).detach(),
            values=read.values(values),
            output=result,
            by_row=read.output,
            weights=lambda: read.weights(held),
            logits=partial(_logits_of, made, read),
            sources=(weights, values),
            rows=read.product.sizes[read.rows],
            lead=tuple(read.product.sizes[label] for label in read.lead),
            readable=made.softmaxed is not None,
        )
        return self.keep(call)

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """`F.scaled_dot_product_attention`; by its formula where the weights are others, or were dropped at random."""
        score = partial(_logits, query, key, attn_mask, is_causal, scale)
        fused = self.weigh is None and not dropout_p
        if fused:
            grouped = {"enable_gqa": True} if enable_gqa else {}
            output = F.scaled_dot_product_attention(
                query, key, value, attn_mask, is_causal=is_causal, scale=scale, **grouped
            )
            weights = None
        else:
            weights = F.dropout(safe_softmax(score(), -1), dropout_p).to(query.dtype)
            shared = _spread(value, weights)
            weights = weights if self.weigh is None else self.weigh(weights, shared)
            output = weights @ shared
        if query.ndim < 3:
            return output
        lead = output.shape[:-2]

        def flat(tensor: Tensor) -> Tensor:
            return _spread(tensor, output).expand(*lead, -1, -1).reshape(-1, *tensor.shape[-2:])

        def weigh() -> Tensor:
            return flat(safe_softmax(score(), -1) if weights is None else weights).detach()

        call = Call(
            queries=flat(query).detach(),
            keys=flat(key).detach(),
            values=flat(value),
            output=output,
            by_row=lambda tensor: tensor.reshape(-1, *tensor.shape[-2:]),
            weights=weigh,
            logits=lambda: flat(score()).detach(),
            sources=(query, key, value),
            rows=query.shape[-2],
            lead=tuple(lead),
        )
        return self.keep(call)


class _Itself(Open):
    """The fused kernel would be given weights that are the identity: its values are its result, at no cost."""

    def _attention(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if query.shape[-2] != key.shape[-2]:
            return F.scaled_dot_product_attention(query, key, value, *args, **kwargs)
        return _spread(value, query)


def _logits(query: Tensor, key: Tensor, mask: Tensor | None, is_causal: bool, scale: float | None) -> Tensor:
    """What the softmax of scaled dot-product attention is taken of; 0 as a probability where all of a row is masked."""
    query, key = wide(query), wide(_spread(key, query))
    logits = query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale) @ key.mT
    if is_causal:
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    if mask is None:
        return logits
    return logits.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else logits + mask


def _logits_of(made: _Made, read: Weighing) -> Tensor:
    logits = None if made.logits is None else made.logits()
    assert logits is not None, "logits are kept inside keep_logits"
    for way in made.since:
        logits = way(logits)
    return read.weights(logits).detach()


def _spread(shared: Tensor, over: Tensor) -> Tensor:
    """Keys or values that groups of heads share, for each head."""
    if shared.ndim < 4 or over.ndim < 4 or shared.shape[-3] in (1, over.shape[-3]):
        return shared
    return shared.repeat_interleave(over.shape[-3] // shared.shape[-3], -3)


def _weighing(product: Product, number: int, made: _Made) -> Weighing | None:
    """How a tensor that is known weighs the other factor of a product; None if it does not.

    Without a softmax it does only if it is made of activations on both sides, and sums over what one of these had.
    """
    if made.softmaxed is not None:
        column = made.axes.get(made.softmaxed)
        return None if column is None else Weighing.of(product, number, column)
    if any(isinstance(factor, nn.Parameter) for factor in (*made.product.factors, *product.factors)):
        return None
    for which in (0, 1):
        for label in made.product.alone(which):
            if (column := made.axes.get(label)) is not None and (read := Weighing.of(product, number, column)):
                return read if made.product.alone(1 - which) else None
    return None


def _label_of(made: _Made, read: Weighing) -> int | None:
    """The label of a product that another one sums over."""
    axis = read.product.labels[read.number].index(read.columns)
    return next((label for label, place in made.axes.items() if place == axis), None)


def _without_graph(entry: Any) -> Any:
    return entry.detach() if isinstance(entry, nn.Parameter) else entry


def _exchanged(entry: Any, old: Tensor, new: Tensor) -> Any:
    if isinstance(entry, list | tuple):
        return type(entry)(_exchanged(inner, old, new) for inner in entry)
    return new if entry is old else entry


def _kept(axes: dict[int, int], given: Tensor, result: Tensor) -> dict[int, int]:
    """Where dimensions are after a function that leaves the entries in their order: those of the same size and step."""
    steps = {(size, math.prod(result.shape[axis + 1 :])): axis for axis, size in enumerate(result.shape)}
    places = {label: steps.get((given.shape[axis], math.prod(given.shape[axis + 1 :]))) for label, axis in axes.items()}
    return {label: axis for label, axis in places.items() if axis is not None}


def _called(func: Any, args: Any, kwargs: Any, given: Tensor, other: Tensor) -> Any:
    """What a function makes of another tensor in place of the one that it was given."""
    args, kwargs = rebuild((args, kwargs), lambda tensor: other if tensor is given else tensor)
    return func(*args, **kwargs)


def _moved(way: Callable[[Tensor], Any], given: Tensor, axes: dict[int, int]) -> dict[int, int]:
    """Where dimensions are after a function that moves them: it is asked to move those of a tensor without values."""
    moved = way(torch.empty([2 + axis for axis in range(given.ndim)], device="meta"))
    if not isinstance(moved, Tensor) or moved.ndim != given.ndim:
        return {}
    places = {size - 2: axis for axis, size in enumerate(moved.shape)}
    return {label: places[axis] for label, axis in axes.items()}


def _undispatched(func: Any) -> Any:
    """A function of `F` that goes into its body with a mode on, instead of asking the mode again."""
    copy = FunctionType(
        func.__code__, {**func.__globals__, "has_torch_function": lambda _: False}, func.__name__, func.__defaults__
    )
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy
