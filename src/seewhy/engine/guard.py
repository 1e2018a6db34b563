"""Leave the model, the random state and autograd's switches exactly as they were found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from seewhy import _torch
from seewhy.engine.randomness import RandomStates
from seewhy.engine.snapshot import Snapshot, modules_of
from seewhy.engine.turns import has_turn, take_turn
from seewhy.engine.values import Learned, Values, learned_of, watching
from seewhy.errors import ConcurrencyError
from seewhy.hooks.attach import after_forward
from seewhy.hooks.undo import Undo, undoing
from seewhy.hooks.wrappers import eager_until, straight_until

# what makes a module compiled, or has it checkpoint (timm's flag, transformers' flag), and what it is set to
_LOUD = (("_compiled_call_impl", None), ("grad_checkpointing", False), ("gradient_checkpointing", False))
_TORCHS = frozenset(kind for kind in vars(nn).values() if isinstance(kind, type))  # they write in train mode only
_FAST = frozenset((nn.MultiheadAttention, nn.TransformerEncoder, nn.TransformerEncoderLayer))
_RANDOM = object()  # the random states, which models that draw from them take turns at


@contextmanager
def guard(model: nn.Module) -> Iterator[None]:
    """Inside the block `model` is in eval mode and runs eagerly; afterwards nothing shows that it ran.

    Kept: each module's attributes (train/eval flags among them) and what is in the containers, arrays, generators and
    objects among them; weights and buffers, `.grad` and `requires_grad`; the random states of torch, numpy and Python;
    autocast's weight cache. Gradients can be recorded inside, whatever the caller's mode. Calls on models that share a
    module take turns. A guard inside another one of the same thread and model leaves the keeping to that one.

    The first call on a model, and the first after its weights have changed, is watched (some microseconds for each
    torch function): later ones copy only the tensors that a forward wrote to then.

    Limits. The flags are the model's own, so another thread that trains it meanwhile trains in eval mode: that is an
    error here as soon as its weights have changed. So is a forward that writes to a weight only now and then, and did
    not the first time; if it does so past the tensor's version (`weight.data.mul_()`), nobody sees it. Writes of
    scripted code and of kernels outside torch are seen in buffers only. Class attributes and globals are not kept.
    In a process with several threads, a model that draws random numbers is taken to be the only one that does.

    Raises:
        ConcurrencyError: if two threads wait for each other's models, or the weights were changed by another thread.
    """
    modules = modules_of([model])
    with undoing() as undo:
        if has_turn(modules):
            _switch(undo)
            _quieten(modules, undo)
            yield
            return
        learned = learned_of(model)
        take_turn(modules if learned.whole and not learned.drew else [*modules, _RANDOM], undo)
        _switch(undo)
        eager_until(undo)
        straight_until(undo)
        devices = _devices(model)
        states = RandomStates(devices, learned.drew)
        undo.later(states.put_back)
        _quieten(modules, undo)
        snapshot = Snapshot(modules, learned.layout)
        learned.layout = snapshot.layout
        undo.later(snapshot.put_back)
        values = _values(snapshot, learned)
        # the fast path of torch's attention steps aside for who watches: it shall do so in every call, or in none
        watched = values.watched or not _FAST.isdisjoint(map(type, modules))
        ended = [] if values.watched else [True]  # forwards
        undo.later(_learn, values, ended)
        undo.later(values.put_back)
        if watched:
            hooked = {} if isinstance(model, torch.jit.ScriptModule) else {"": model}  # scripted ones take no hooks
            with watching(values, states), after_forward(hooked, lambda *_: ended.append(True)):
                yield
        else:
            yield
        if values.changed():
            ended.clear()
            raise ConcurrencyError(
                "weights changed while the model was explained, and no longer are what they were.",
                got="training in another thread, or a forward that writes to weights and did not at first",
                expected="weights that stay as they are until the explanation is there",
                do="explain between two steps of the training, or a copy of the model",
            )


@contextmanager
def aside(model: nn.Module) -> Iterator[None]:
    """Inside a guard: what runs in the block leaves the random states and what modules hold as before the block.

    A model that draws or counts in its forward then answers afterwards as if nothing had run.
    """
    learned = learned_of(model)
    with undoing() as undo:
        undo.later(RandomStates(_devices(model), learned.drew).put_back)
        undo.later(Snapshot(modules_of([model]), learned.layout).put_back)
        yield


def _learn(values: Values, ended: list[bool]) -> None:
    values.learn(whole=bool(ended))


def _values(snapshot: Snapshot, learned: Learned) -> Values:
    torchs = [module._buffers for module in snapshot.modules if module._buffers and type(module) in _TORCHS]
    others = [module._buffers for module in snapshot.modules if module._buffers and type(module) not in _TORCHS]
    weights = _tensors([module._parameters for module in snapshot.modules])
    return Values(weights, _tensors(torchs), [*_tensors(others), *snapshot.tensors], learned)


def _devices(model: nn.Module) -> set[torch.device]:
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return set()
    return {parameter.device for parameter in model.parameters() if parameter.is_cuda}


def _switch(undo: Undo) -> None:
    """Gradients can be recorded; autocast keeps no weight that was cast without a graph for the caller's next step."""
    undo.later(_torch.put_function_modes, _torch.function_modes())
    if torch.is_autocast_cache_enabled():
        undo.later(torch.set_autocast_cache_enabled, True)
        torch.set_autocast_cache_enabled(False)
    undo.later(_torch.set_grad_enabled, torch.is_grad_enabled())
    if torch.is_inference_mode_enabled():
        mode = torch.inference_mode(False)
        undo.later(_leave, mode)
        mode.__enter__()
    _torch.set_grad_enabled(True)


def _leave(mode: torch.inference_mode) -> None:
    if not torch.is_inference_mode_enabled():
        mode.__exit__(None, None, None)


def _quieten(modules: Sequence[nn.Module], undo: Undo) -> None:
    """Eval mode, eager, no checkpointing, nothing that autograd refuses, until `undo` ends.

    The flag is set directly: `eval()` may be overridden, and then does more than set flags (merge adapters, say), and
    a module takes its time to set an attribute.
    """
    training = [module for module in modules if getattr(module, "training", False)]  # frozen scripts have no flag
    if training:
        undo.later(_train, training, True)
        _train(training, False)
    for flag, value in _LOUD:
        for module in [module for module in modules if flag in module.__dict__]:
            if module.__dict__[flag]:
                undo.later(setattr, module, flag, module.__dict__[flag])
                setattr(module, flag, value)
    tables: list[dict[str, Any]] = [module._parameters for module in modules] + [module._buffers for module in modules]
    if any(map(Tensor.is_inference, _tensors(tables))):
        for table in tables:
            for name, tensor in table.items():
                if tensor is not None and tensor.is_inference():  # made under inference_mode: autograd cannot save it
                    undo.later(table.__setitem__, name, tensor)
                    table[name] = _ordinary(tensor)


def _train(modules: Iterable[nn.Module], mode: bool) -> None:
    for module in modules:
        if isinstance(module, torch.jit.ScriptModule):  # its flag is not Python's
            module.training = mode
        else:
            module.__dict__["training"] = mode


def _tensors(tables: Iterable[Mapping[str, Tensor | None]]) -> list[Tensor]:
    return [tensor for table in tables if table for tensor in table.values() if tensor is not None]


def _ordinary(tensor: Tensor) -> Tensor:
    copy = tensor.clone()
    return nn.Parameter(copy, requires_grad=False) if isinstance(tensor, nn.Parameter) else copy
