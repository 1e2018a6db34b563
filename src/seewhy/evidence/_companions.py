"""Whether the images of a batch see each other: an image alone against the same one in the batch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from seewhy.engine.per_model import PerModel
from seewhy.engine.replay import rounding
from seewhy.engine.session import Session
from seewhy.evidence._forward import Forward
from seewhy.hooks.nested import rebuild, tensors

_found: PerModel[dict[tuple[int, ...], bool]] = PerModel(dict)  # by the shape of an image


def see_each_other(forward: Forward) -> bool:
    """Whether what the model answers to an image depends on the others of its batch.

    BatchNorm without running statistics, attention over the batch and experts with a capacity do this. Costs a forward
    of one image, once for a model and shape; one more where the answers differ: a model that draws or counts answers
    otherwise to the same batch too, and does not mix. Lists of images that a
    model lays out itself are not tried, nor are models that take
    one size of batch only.
    """
    call, known = forward.call, _found.of(forward.run.model)
    if call.batch == 1 or call.canvas is not None:
        return False
    if call.signature not in known:
        last = call.batch - 1
        alone = call.with_rows(lambda tensor: tensor[last:])
        with torch.no_grad():
            try:
                answer = _run(forward.run, alone)
            except torch.OutOfMemoryError:
                raise
            except Exception:  # of whatever kind: it ran on the batch, so what it cannot do is another size of it
                return False
            last_of = partial(_last, batch=call.batch)
            known[call.signature] = not _same(answer, forward.outputs, call.image) and _same(
                rebuild(_run(forward.run, call), last_of), forward.outputs, call.image
            )
    return known[call.signature]


def _run(run: Session, call: Any) -> Any:
    with run.aside():
        return run.run(call)


def _last(tensor: Tensor, batch: int) -> Tensor:
    return tensor[-1:] if tensor.ndim and tensor.shape[0] == batch else tensor


def _same(alone: Any, together: Any, images: Tensor) -> bool:
    """Whether the answers to the last image are the same, up to rounding."""
    pairs = list(_rows(alone, together, len(images)))
    floats = images if images.is_floating_point() else torch.zeros(1)
    return all(bool(((one - other).abs() <= rounding(other, floats)).all()) for one, other in pairs)


def _rows(alone: Any, together: Any, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The last row of each tensor with a row per image, once from the image alone and once from the batch."""
    for one, other in zip(tensors(alone), tensors(together), strict=False):
        if other.ndim and len(other) == batch and one.shape == other[-1:].shape and other.is_floating_point():
            yield one.detach(), other[-1:].detach()
