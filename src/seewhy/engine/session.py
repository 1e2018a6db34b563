"""The one way into a model: what runs inside a session leaves the model as it was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.engine.guard import aside, guard
from seewhy.engine.tape import Tape, record
from seewhy.errors import InputError
from seewhy.hooks.wrappers import unwrap
from seewhy.inputs import Inputs


@dataclass(frozen=True)
class Session:
    """A model under guard, and one call of it.

    Attributes:
        model: the module inside compilation and data parallelism. It is in eval mode and runs eagerly.
        call: the caller's inputs, as private copies, laid out for the model.
    """

    model: nn.Module
    call: Inputs

    def run(self, call: Inputs | None = None) -> Any:
        """What the model returns for the call, or for another one. Copies go in: the model may write to them."""
        return (call or self.call).with_rows(Tensor.clone).run(self.model)

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
            InputError: if the graph is to begin at an image of integers.
        """
        call = call or self.call
        image = call.image.clone() if from_input else None
        if image is not None and not image.is_floating_point():
            raise InputError(
                "an input of integers has no gradient.",
                got=image.dtype,
                expected="floating point",
                do="convert it before the model does, or choose a method that looks at a layer",
            )

        def forward() -> Any:
            leaf = None if image is None else image.requires_grad_().clone()
            return call.with_rows(Tensor.clone, leaf).run(self.model)

        tape = record(forward, layers, from_start=from_start or from_input)
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


@contextmanager
def session(model: nn.Module, inputs: Any) -> Iterator[Session]:
    """A session of `model` on `inputs`: unwrap, guard, lay out the inputs.

    Everything in the library that runs a model does so in here. The model, the random states and autograd's switches
    are the same afterwards, whatever is raised.

    Args:
        model: any module, in whatever mode, also one wrapped for compilation or data parallelism.
        inputs: a tensor, a list of images, a tuple of arguments, a dict of keywords, or a laid out call.

    Raises:
        InputError: if the inputs cannot be used.
    """
    root = unwrap(model)
    with guard(root):
        yield Session(root, inputs if isinstance(inputs, Inputs) else Inputs.of(inputs, root))


@contextmanager
def plain_session(model: nn.Module, inputs: Any) -> Iterator[Session]:
    """A session in which nothing is recorded unless it is asked for."""
    with session(model, inputs) as run, torch.no_grad():
        yield run
