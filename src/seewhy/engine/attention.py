"""See every attention of a forward: its probabilities, in the graph, whatever kernel the model calls for it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from seewhy._torch import safe_softmax
from seewhy.hooks.attach import Finish, Passed, around

_PRODUCTS = {"matmul", "__matmul__", "bmm", "baddbmm"}


@dataclass(frozen=True, eq=False)
class Attention:
    """One call of attention, everything in the graph if the forward is recorded.

    name: of the innermost module that was running. Tensors are (images, heads, ...) where it is over whole images.
    probabilities: what the values were weighted with; gradients reach them. logits: what the softmax was taken of, with
    masks and biases.
    """

    name: str
    probabilities: Float[Tensor, "... rows columns"]
    logits: Float[Tensor, "... rows columns"]
    queries: Float[Tensor, "... rows d"]
    keys: Float[Tensor, "... columns d"]
    values: Float[Tensor, "... columns e"]
    output: Float[Tensor, "... rows e"]

    @property
    def rows(self) -> int:
        return self.probabilities.shape[-2]

    @property
    def columns(self) -> int:
        return self.probabilities.shape[-1]


@contextmanager
def attend(model: nn.Module, batch: int, within: Collection[str] = ()) -> Iterator[list[Attention]]:
    """While the block lasts, all attention in this thread's forwards of `model` is computed openly and kept, in order.

    Seen are `F.scaled_dot_product_attention`, also as `nn.MultiheadAttention` calls it, whose fast path steps aside for
    as long, and what a model writes out: a matrix product, a softmax over its last dimension, a product with the
    values. The outputs stay the same up to rounding. Where no head dimension is left, or images and heads share one,
    `batch` tells them apart. Attention in kernels of other libraries, in einsum and in scripted code is not seen.

    Args:
        model: what runs.
        batch: how many images there are.
        within: names of modules: attention elsewhere runs as it does. All of the model, unless given.
    """
    running = [""]
    calls: list[Attention] = []

    def keep(*tensors: Tensor) -> None:
        calls.append(Attention(running[-1], *(_by_head(tensor, batch) for tensor in tensors)))

    mode: Any = Open(batch, keep)

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


def of_values(batch: int) -> TorchFunctionMode:
    """While it is on, the queries and keys of all self-attention are its values: softmax(V V' / sqrt(e)) V.

    What is seen is as for `attend`.
    """
    return Open(batch, lambda *_: None, _among_values)


def _among_values(_: Tensor, values: Tensor) -> Tensor:
    return (values @ values.mT / math.sqrt(values.shape[-1])).softmax(-1)


def of_itself(batch: int) -> TorchFunctionMode:
    """While it is on, each token of a self-attention looks at itself alone: no attention moves anything about.

    What is seen is as for `attend`. Attention of one sequence to another stays as it is.
    """
    return _Itself(batch, lambda *_: None, _alone)


def _alone(weights: Tensor, _: Tensor) -> Tensor:
    rows, columns = weights.shape[-2:]
    return torch.eye(rows).to(weights).expand_as(weights) if rows == columns else weights


class Open(TorchFunctionMode):
    """Computes attention openly, and calls `keep` with the tensors of an `Attention`.

    Of a matrix product its factors are remembered, and again for all that is made of it in its size: scaled, masked,
    cast. Where a softmax is taken of such a tensor, the next product has the values as its other factor. `weigh` is
    what the values are weighted with, from the weights that they should have been and themselves.
    """

    def __init__(
        self,
        batch: int,
        keep: Callable[..., None],
        weigh: Callable[[Tensor, Tensor], Tensor] = lambda weights, _: weights,
    ) -> None:
        super().__init__()
        self.batch, self.keep, self.weigh = batch, keep, weigh
        self.factors: MutableMapping[Tensor, tuple[Tensor, ...]] = WeakTensorKeyDictionary()  # (queries, keys)
        self.weights: MutableMapping[Tensor, tuple[Tensor, ...]] = WeakTensorKeyDictionary()  # (logits, queries, keys)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            with self:
                return _undispatched(func)(*args, **kwargs)
        product = name in _PRODUCTS and len(args) > 1 and all(isinstance(t, Tensor) and t.ndim > 1 for t in args[-2:])
        if product and len(args) == 2 and (made := self.weights.get(args[0])) is not None:
            return self._kept(func, args[0], args[1], made)
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor) or result.ndim < 3:
            return result
        if product:
            self.factors[result] = args[-2], args[-1].mT
        elif name == "softmax" and args:
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            if (made := self.factors.get(args[0])) is not None and dim in (-1, result.ndim - 1):
                self.weights[result] = args[0], *made
        else:
            for known in (self.factors, self.weights):
                for given in args:
                    if isinstance(given, Tensor) and given in known and given.numel() == result.numel():
                        known[result] = known[given]
        return result

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
        """`F.scaled_dot_product_attention` by its formula."""
        if enable_gqa:
            key, value = (shared.repeat_interleave(query.shape[-3] // shared.shape[-3], -3) for shared in (key, value))
        logits = query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale) @ key.mT
        if is_causal:
            attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
        if attn_mask is not None:
            masked = attn_mask.dtype == torch.bool
            logits = logits.masked_fill(~attn_mask, -math.inf) if masked else logits + attn_mask
        weights = safe_softmax(logits, -1)  # 0 for a row that is masked altogether
        return self._kept(torch.matmul, F.dropout(weights, dropout_p), value, (logits, query, key))

    def _kept(
        self, product: Callable[..., Tensor], weights: Tensor, values: Tensor, made_of: tuple[Tensor, ...]
    ) -> Tensor:
        """The product of weights and values, through probabilities that a gradient can be asked for."""
        weights = self.weigh(weights, values)
        probabilities = _by_head(weights if weights.requires_grad else weights.detach().requires_grad_(), self.batch)
        result = product(probabilities.reshape(weights.shape), values)
        output = _by_head(result, self.batch)
        self.keep(probabilities, *made_of, values, output)
        return output.reshape(result.shape)


class _Itself(Open):
    """The fused kernel would be given weights that are the identity: its values are its result, at no cost."""

    def _attention(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if query.shape[-2] != key.shape[-2]:
            return F.scaled_dot_product_attention(query, key, value, *args, **kwargs)
        shared = query.shape[-3] // value.shape[-3] if query.ndim > 3 else 1
        return value.repeat_interleave(shared, -3) if shared > 1 else value


def _by_head(tensor: Tensor, batch: int) -> Tensor:
    """(images x heads, rows, columns) as (images, heads, rows, columns); what is of something else as it is."""
    shared = tensor.ndim == 3 and tensor.shape[0] % batch == 0
    return tensor.reshape(batch, -1, *tensor.shape[1:]) if shared else tensor


def _undispatched(func: Any) -> Any:
    """A function of `F` that goes into its body with a mode on, instead of asking the mode again."""
    copy = FunctionType(
        func.__code__, {**func.__globals__, "has_torch_function": lambda _: False}, func.__name__, func.__defaults__
    )
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy


def chain(calls: Sequence[Attention], batch: int, lengths: Collection[int]) -> list[Attention]:
    """The self-attention of the image's tokens, in order, and last what reads them, if that is an attention too.

    lengths: how many tokens a sequence that lies over the image can have; the longest is taken, so that a text encoder
    beside is left out. Empty if there is none, or where some blocks of the same stack look at windows, or at fewer
    tokens.
    """
    whole = [call for call in calls if call.probabilities.ndim == 4 and call.probabilities.shape[0] == batch]
    longest = max((call.columns for call in whole if call.columns in lengths), default=0)
    over = [call for call in whole if call.columns == longest]
    chained = [call for call in over[:-1] if call.rows == longest] + over[-1:]
    kinds = {_kind(call) for call in chained}
    broken = any(_kind(call) in kinds and call.rows == call.columns for call in calls if call not in chained)
    return [] if broken else chained


def blocks(calls: Sequence[Attention]) -> list[str]:
    """The names of the blocks that these calls ran in: as much as tells them apart, or what is around the only one."""
    names = [call.name.split(".") for call in calls]
    levels = (number for number, level in enumerate(zip(*names, strict=False), 1) if len(set(level)) > 1)
    depth = next(levels, len(names[0]) - 1)
    return [".".join(name[:depth]) for name in names]


def _kind(call: Attention) -> str:
    """The name of a call with the numbers taken out: the same for all blocks of a stack."""
    return re.sub(r"\d+", "#", call.name)
