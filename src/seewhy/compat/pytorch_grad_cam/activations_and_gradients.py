"""What chosen layers returned in one forward, and the gradients that a backward pass brought there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.engine.session import session
from seewhy.engine.tape import StillRecording, record
from seewhy.hooks.nested import rebuild, tensors
from seewhy.hooks.select import check_ran, find
from seewhy.hooks.wrappers import unwrap


class ActivationsAndGradients:
    """Runs a model in eval mode and keeps what `target_layers` returned, until the next call, `clear` or `release`.

    activations, gradients: lists in the order of the layers, of a layer called twice both calls in order; the gradients
    once the caller has differentiated the outputs. With `detach` they are without a graph, on the CPU, and as
    `reshape_transform` gives them; otherwise as they are in the graph. Nothing stays in the model after a call.
    """

    called: list[nn.Module]  # the layer of each activation
    kept: list[Tensor]  # the activations in the graph
    _slopes: dict[int, Tensor]  # the gradients that arrived, by number of activation
    _watching = False

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        detach: bool = True,
    ) -> None:
        self.model = model
        self.target_layers = list(target_layers)
        self.reshape_transform = reshape_transform
        self.detach = detach
        self._slopes = {}
        self.clear()

    def __call__(self, x: Any) -> Any:
        """What the model returns for `x`, in a graph that begins at the layers, or at `x` if that takes a gradient."""
        if self._watching:
            return self.model(x)
        with session(self.model, x) as run:  # its copies have no graph, so that `x` itself goes in
            return self.watch(lambda: run.model(rebuild(x, Tensor.clone)), x)

    def watch(self, forward: Callable[[], Any], x: Any) -> Any:
        """What `forward` returns, which runs the model in whatever way; what the layers returned meanwhile is kept."""
        self.clear()
        layers = find(unwrap(self.model), self.target_layers)
        from_start = any(tensor.requires_grad for tensor in tensors(x))
        self._watching = True
        try:
            tape = record(forward, layers, StillRecording(), from_start=from_start)
        finally:
            self._watching = False
        check_ran(layers, [label.name for label in tape.activations])
        calls = sorted(tape.activations.items(), key=lambda call: list(layers).index(call[0].name))
        self.called = [layers[label.name] for label, _ in calls]
        self.kept = [activation for _, activation in calls]
        for number, kept in enumerate(self.kept):
            kept.register_hook(partial(self._slopes.__setitem__, number))  # type: ignore[no-untyped-call]
        return tape.outputs

    @property
    def activations(self) -> list[Tensor]:
        return [self._shown(kept) for kept in self.kept]

    @activations.setter
    def activations(self, _: list[Tensor]) -> None:
        """Forget them: a class made of this one empties the list before it runs the model."""
        self.clear()

    @property
    def gradients(self) -> list[Tensor]:
        if not self._slopes:
            return []
        slopes = [self._slopes.get(number, torch.zeros_like(kept)) for number, kept in enumerate(self.kept)]
        return [self._shown(slope) for slope in slopes]

    @gradients.setter
    def gradients(self, _: list[Tensor]) -> None:
        self.clear()

    def _shown(self, tensor: Tensor) -> Tensor:
        if not self.detach:
            return tensor
        return (tensor if self.reshape_transform is None else self.reshape_transform(tensor)).detach().cpu()

    def clear(self) -> None:
        """Forget what was kept."""
        self.called = []
        self.kept = []
        self._slopes.clear()  # gradients in the graph of what holds them would keep each other alive
        self._slopes = {}

    release = clear
