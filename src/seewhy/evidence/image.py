"""The image that went in, and the gradient of the score there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from seewhy._types import AskSlopes, Slopes
from seewhy.engine.libra import Libra
from seewhy.engine.tape import gradients, guided
from seewhy.evidence import _forward
from seewhy.evidence._forward import Forward, at_least_float32
from seewhy.evidence._provider import provides
from seewhy.evidence._request import Request


def _image(forward: Forward) -> Iterable[Tensor]:
    return [] if forward.tape.image is None else [forward.tape.image]


@provides("inputs")
def inputs(request: Request) -> Inexact[Tensor, "B C *size"]:
    """The images."""
    return at_least_float32(request.forward.call.image)


@provides("input_gradients", start="image", leaves=_image)
def input_gradients(request: Request) -> Float[Tensor, "B C *size"]:
    """The gradient of the score at the images."""
    (image,) = _image(request.forward)
    return at_least_float32(request.slope(image).detach())


@provides("guided_gradients", start="image", keeps_graph=True)
def guided_gradients(request: Request) -> Float[Tensor, "B C *size"]:
    """The same by guided backpropagation: positive only, before every activation function on its way."""
    (image,) = _image(request.forward)
    with guided(request.column):
        (found,) = torch.autograd.grad(request.column.sum(), image, retain_graph=True)
    return at_least_float32(found)


@provides("gradients_at")
def gradients_at(request: Request) -> AskSlopes:
    """The gradient of the score at changed images (N, C, *size), a batch of them at a time."""
    return _at_least_single(request.forward.once(_slopes)(request.number))


@provides("libra_gradients_at")
def libra_gradients_at(request: Request) -> AskSlopes:
    """The same by LibraGrad."""
    return _at_least_single(request.forward.once(_balanced_slopes)(request.number))


def _at_least_single(ask: AskSlopes) -> AskSlopes:
    def asked(images: Tensor, make: Any) -> Iterator[Slopes]:
        for found in ask(images, make):
            yield found._replace(gradients=at_least_float32(found.gradients))

    return asked


def _slopes(forward: Forward) -> Any:
    settings = forward.settings
    return forward.once(_forward.probe).slopes(lambda: settings.balance)


def _balanced_slopes(forward: Forward) -> Any:
    return forward.once(_forward.probe).slopes(Libra)


@provides("libra_gradients")
def libra_gradients(request: Request) -> Float[Tensor, "B C *size"]:
    """The gradient of the score at the images by LibraGrad, from a forward of its own."""
    return request.forward.once(_balanced)[request.number]


def _balanced(forward: Forward) -> list[Float[Tensor, "B C *size"]]:
    """For each target."""
    with Libra():
        tape = forward.run.record({}, forward.call, from_input=True)
    assert tape.image is not None
    again = forward.rescored(tape.outputs)
    return [at_least_float32(found[""]) for found in gradients(again.columns, {"": tape.image}, of="the input")]
