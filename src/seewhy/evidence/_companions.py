"""Whether the images of a batch see each other: images of the batch in another company, and in another order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seewhy._types import CallLabel
from seewhy.engine.per_model import PerModel
from seewhy.engine.replay import rounding
from seewhy.evidence._forward import Forward
from seewhy.hooks.activations import activations_in, call_labels
from seewhy.hooks.attach import after_forward
from seewhy.hooks.nested import rebuild, tensors
from seewhy.inputs import Inputs

# by the shape of an image, and what is looked at
_found: PerModel[dict[tuple[Any, ...], bool]] = PerModel(dict)


def see_each_other(forward: Forward) -> bool:
    """Whether an image in other company is not what it is in the batch: its answer, or what is looked at.

    BatchNorm without running statistics, attention over the batch and experts with a capacity do this. So do models
    that run their batch in another order, sorted by length say, of which the answers are put back in place, but not
    the layers. Costs a forward of three images, the last one twice and then the first, once for a model, shape and
    layers; one more where something differs: a model that draws or counts answers otherwise to the same batch too, and
    does not mix. Lists of images that a model lays out itself are not tried, nor are models that take one size of batch
    only.
    """
    call, known = forward.call, _found.of(forward.run.model)
    if call.batch == 1 or call.canvas is not None:
        return False
    key = call.signature, tuple(forward.activations)
    if key not in known:
        company = [call.batch - 1, call.batch - 1, 0]
        with torch.no_grad():
            try:
                beside = _shown(forward, call.with_rows(lambda tensor: tensor[company]))
            except torch.OutOfMemoryError:
                raise
            except Exception:  # of whatever kind: it ran on the batch, so what it cannot do is another size of it
                return False
            layers = {label: _folded(forward, label, kept) for label, kept in forward.activations.items()}
            together = _Shown(forward.outputs, layers)
            images = call.image
            known[key] = not _same(beside, together.rows(company, call.batch), images) and _same(
                _shown(forward, call), together, images
            )
    return known[key]


class _Shown(NamedTuple):
    """What the model answers, and what the calls return that are looked at, each (B, C, *grid)."""

    answers: Any
    layers: Mapping[CallLabel, Tensor]

    def rows(self, numbers: list[int], batch: int) -> _Shown:
        """These images of a batch."""

        def taken(tensor: Tensor) -> Tensor:
            return tensor[numbers] if tensor.ndim and len(tensor) == batch else tensor

        return _Shown(rebuild(self.answers, taken), {label: taken(kept) for label, kept in self.layers.items()})


def _shown(forward: Forward, call: Inputs) -> _Shown:
    """The same for another call."""
    run, wanted = forward.run, tuple(forward.activations)
    made: list[tuple[tuple[str, str], Tensor]] = []

    def keep(name: str, _: tuple[Any, ...], output: Any) -> None:
        made.extend(((name, level), tensor.clone()) for level, tensor in activations_in(output).items())

    with run.aside(), after_forward(run.modules(tuple({label.name: None for label in wanted})), keep):
        answers = run.run(call)
    found = dict(zip(call_labels([each for each, _ in made]), (tensor for _, tensor in made), strict=True))
    return _Shown(
        answers, {label: _folded(forward, label, found[label.call]) for label in wanted if label.call in found}
    )


def _folded(forward: Forward, label: CallLabel, kept: Tensor) -> Tensor:
    return forward.fold(label)(kept.detach())


def _same(one: _Shown, other: _Shown, images: Tensor) -> bool:
    """Whether the answers, and the layers, are the same, up to rounding."""
    known = [label for label in other.layers if label in one.layers]
    both = ([shown.answers, *(shown.layers[label] for label in known)] for shown in (one, other))
    floats = images if images.is_floating_point() else torch.zeros(1)
    return all(bool(((new - old).abs() <= rounding(old, floats)).all()) for new, old in _alike(*both))


def _alike(one: Any, other: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """The tensors of numbers that both have, in one shape."""
    for new, old in zip(tensors(one), tensors(other), strict=False):
        if old.ndim and old.numel() and new.shape == old.shape and old.is_floating_point():
            yield new.detach(), old.detach()
