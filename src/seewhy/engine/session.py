"""The one way into a model: what runs inside a session leaves the model as it was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from seewhy.engine.guard import aside, guard
from seewhy.engine.per_model import PerModel
from seewhy.engine.tape import StillRecording, Tape, record
from seewhy.errors import InputError, ModelError
from seewhy.hooks.wrappers import unwrap
from seewhy.inputs import Inputs

# of a model: by shapes and layers, forwards that have been seen to leave recording on
_free: PerModel[set[Any]] = PerModel(set)
_checked: PerModel[set[bool]] = PerModel(set)  # holds True for a model whose weights are all there


def _whole(outputs: Any) -> Any:
    return outputs


@dataclass(frozen=True)
class Session:
    """A model under guard, and one call of it.

    Attributes:
        model: the module inside compilation and data parallelism. It is in eval mode and runs eagerly.
        call: the caller's inputs, as private copies, laid out for the model.
        select: takes the part that counts out of what the model returns.
    """

    model: nn.Module
    call: Inputs
    select: Callable[[Any], Any] = _whole

    def run(self, call: Inputs | None = None) -> Any:
        """What the model returns for the call, or for another one. Copies go in: the model may write to them."""
        return self.forward((call or self.call).with_rows(Tensor.clone))

    def forward(self, call: Inputs) -> Any:
        """The same for a call whose tensors the model may write to."""
        return self.select(call.run(self.model))

    def record(
        self,
        layers: Mapping[str, nn.Module],
        call: Inputs | None = None,
        *,
        from_start: bool = False,
        from_input: bool = False,
    ) -> Tape:
        """Run the model once and record what `layers` return, in a graph from the first of them on.

        Args:
            layers: by name.
            call: another call than the session's.
            from_start: the graph holds the whole forward.
            from_input: the graph begins at the image, which the tape then keeps.

        Raises:
            InputError: if the graph is to begin at an image that is not of real numbers.
        """
        call = call or self.call
        image = call.image.clone() if from_input else None
        if image is not None:
            check_has_gradient(image)

        def forward() -> Any:
            leaf = None if image is None else image.requires_grad_().clone()
            return self.forward(call.with_rows(Tensor.clone, leaf))

        whole = from_start or from_input
        known, key = _free.of(self.model), (call.signature, whole, *layers)
        held = None if key in known else StillRecording()
        tape = record(forward, layers, held, from_start=whole)
        if held is not None and not held.helped:
            known.add(key)
        return Tape(tape.outputs, tape.activations, image)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What runs in the block leaves the model's state and the random states as they were before the block.

        A model that draws or counts in its forward then answers as if nothing had run.
        """
        with aside(self.model):
            yield

    def modules(self, names: Mapping[str, Any] | tuple[str, ...]) -> dict[str, nn.Module]:
        """The model's modules of these names."""
        return {name: self.model.get_submodule(name) for name in names}


def check_has_gradient(image: Tensor) -> None:
    """Raise `InputError` for images that are not of real numbers."""
    if not image.is_floating_point():
        raise InputError(
            f"an input of {'complex numbers' if image.is_complex() else 'integers'} has no gradient to draw.",
            got=image.dtype,
            expected="floating point",
            do="convert it before the model does, or choose a method that looks at a layer",
        )


def _check_weights(root: nn.Module) -> None:
    """Raise `ModelError` for weights that are not there yet."""
    if lazy := [name for name, module in root.named_modules() if isinstance(module, LazyModuleMixin)]:
        raise ModelError(
            "the model has layers that have no weights yet: a forward would make them.",
            got=", ".join(lazy),
            expected="layers that know the size of what they are given",
            do="run the model once, model(images), before it is explained",
        )
    unloaded = [name for name, weight in (*root.named_parameters(), *root.named_buffers()) if weight.is_meta]
    if unloaded and not any(hasattr(module, "_hf_hook") for module in root.modules()):  # accelerate loads them in time
        raise ModelError(
            "the model has weights without values: they are on the device 'meta'.",
            got=", ".join(unloaded[:5]) + (" and so on" if len(unloaded) > 5 else ""),
            expected="all weights in memory, on one device or several",
            do='model.to_empty(device="cpu"), then model.load_state_dict(...)',
        )


@contextmanager
def session(model: nn.Module, inputs: Any, *, select: Callable[[Any], Any] = _whole) -> Iterator[Session]:
    """A session of `model` on `inputs`: unwrap, guard, lay out the inputs.

    Everything in the library that runs a model does so in here. The model, the random states and autograd's switches
    are the same afterwards, whatever is raised.

    Args:
        model: any module, in whatever mode, also one wrapped for compilation or data parallelism.
        inputs: a tensor, a list of images, a tuple of arguments, a dict of keywords, or a laid out call.
        select: takes the part that counts out of what the model returns.

    Raises:
        InputError: if the inputs cannot be used.
        ModelError: if the model has lazy layers that have not run, or weights on the device "meta".
    """
    root = unwrap(model)
    checked = _checked.of(root)
    if not checked:  # once: what has values keeps them
        _check_weights(root)
        checked.add(True)
    with guard(root):
        yield Session(root, inputs if isinstance(inputs, Inputs) else Inputs.of(inputs, root), select)


@contextmanager
def plain_session(model: nn.Module, inputs: Any) -> Iterator[Session]:
    """A session in which nothing is recorded unless it is asked for."""
    with session(model, inputs) as run, torch.no_grad():
        yield run
