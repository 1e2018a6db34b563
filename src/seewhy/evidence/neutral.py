"""What a layer returns for other images than the caller's: neutral ones, or a group to compare with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.evidence import _forward, scores
from seewhy.evidence._forward import Forward, at_least_float32
from seewhy.evidence._provider import provides
from seewhy.evidence._request import Request
from seewhy.images.absent import Absent, absent
from seewhy.methods.registry import Neutral


@provides("neutral_replay", layered=True, watch=scores.remembered)
def neutral_replay(request: Request) -> Callable[[Absent], Neutral]:
    """A function of a baseline -> the run on the images made absent: what the layer returned, and its replay."""

    def ask(baseline: Absent) -> Neutral:
        run = request.forward.once(_without, baseline)
        there = Request(run, request.number, request.label)
        kept = there.fold(there.activation.detach())
        return Neutral(kept, run.once(_forward.probe).scores[:, request.number], scores.replay(there))

    return ask


def _without(forward: Forward, baseline: Absent) -> Forward:
    return forward.again(forward.call.seen_as(lambda image: absent(image, baseline)))


@provides("references", layered=True)
def references(request: Request) -> Callable[[Tensor], Float[Tensor, "R C *grid"]]:
    """A function of images (R, C, *size) -> what the layer returns for them."""
    forward, label = request.forward, request.label
    assert label is not None

    def returned(images: Tensor) -> Tensor:
        call = forward.call.with_rows(lambda tensor: tensor[:1].repeat_interleave(len(images), 0), images)
        kept = forward.run.record(forward.run.modules(forward.plan.layers), call).activations[label.call].detach()
        return at_least_float32(forward.fold_of(forward.plan, label, kept, call)(kept))

    def ask(images: Tensor) -> Tensor:
        parts = torch.split(images.to(forward.call.image), forward.settings.limits.batch_size)
        return torch.cat([returned(part) for part in parts])

    return ask
