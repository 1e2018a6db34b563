"""How much of what an image says to the score passes beside the layers that are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch

from seewhy._types import CallLabel
from seewhy.engine.tape import replacing
from seewhy.errors import SeewhyError
from seewhy.evidence._forward import Forward
from seewhy.images.absent import absent


def share_beside(forward: Forward, labels: Sequence[CallLabel]) -> float:
    """The share of the score's change, from an image of zeros to the image, that is lost with these calls held.

    Of each image S(x) is the score, S(e) that of an image of zeros, and S'(e) the same with the calls returning
    what they did for x. The share is the sum of |S(x) - S'(e)| over that of |S(x) - S(e)|. Costs two forwards.

    Args:
        forward: on the images, with the calls recorded.
        labels: of the calls.

    Returns:
        0 where all passes through the calls; NaN where that cannot be measured.
    """
    run = forward.run
    empty = forward.call.seen_as(lambda images: absent(images, "zero"))
    try:
        with torch.no_grad(), run.aside():
            gone = forward.rescored(run.run(empty)).columns
            with ExitStack() as stack:
                for label in dict.fromkeys(label.call for label in labels):
                    kept = forward.activation(label).detach()
                    stack.enter_context(replacing(run.modules((label.name,)), label, kept))
                held = forward.rescored(run.run(empty)).columns
    except SeewhyError:
        return float("nan")
    whole = forward.columns.detach()
    return float((whole - held).abs().sum() / (whole - gone).abs().sum())
