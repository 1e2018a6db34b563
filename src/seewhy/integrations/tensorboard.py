"""What a model sees, in TensorBoard: pictures and histograms into the caller's own `SummaryWriter`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from seewhy import inspect, targets
from seewhy.engine.session import session
from seewhy.engine.tape import gradients
from seewhy.errors import warn
from seewhy.hooks.select import Layers, check_ran, find
from seewhy.hooks.wrappers import unwrap
from seewhy.images.photo import Photo
from seewhy.render import grids

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from seewhy.results.explanation import Explanation


def feature_maps(
    writer: SummaryWriter,
    model: nn.Module,
    inputs: Any,
    *,
    layers: Layers,
    step: int = 0,
    tag: str = "feature_maps",
    **drawing: Any,
) -> None:
    """Every channel of what `layers` return for `inputs` as a tile, as "feature_maps/LAYER/IMAGE".

    Args:
        writer: where to write.
        model: any module; see `seewhy.features`.
        inputs: what the model takes.
        layers: names, patterns, modules, types, or a list of them. Of a layer that runs several times the first call
            is drawn; "relu#1" is the second one.
        step: the step to write at.
        tag: the first part of the names.
        drawing: the options of `seewhy.render.grids.tile`.

    Raises:
        LayerError: for a layer that does not exist or does not run.
        InputError: for a layer without a grid.
    """
    for label, pictures in grids.feature_maps(inspect.features(model, inputs, layers), **drawing).items():
        _add(writer, f"{tag}/{label}", pictures, step)


def kernels(
    writer: SummaryWriter,
    model: nn.Module,
    *,
    layers: Layers | None = None,
    step: int = 0,
    tag: str = "kernels",
    **drawing: Any,
) -> None:
    """The kernels of convolutions as tiles, as "kernels/LAYER".

    Args:
        writer: where to write.
        model: any module.
        layers: which convolutions; None is the first among the model's modules.
        step: the step to write at.
        tag: the first part of the names.
        drawing: the options of `seewhy.render.grids.tile`.

    Raises:
        LayerError: for a layer that does not exist or has no kernels.
    """
    for name, picture in grids.kernels(inspect.kernels(model, layers), **drawing).items():
        _add_picture(writer, f"{tag}/{name}", picture, step)


def overlays(
    writer: SummaryWriter,
    explanation: Explanation,
    photos: Photo | Sequence[Photo] | None = None,
    *,
    step: int = 0,
    tag: str = "overlays",
    **drawing: Any,
) -> None:
    """The pictures of `explanation.overlay(photos, **drawing)`, as "overlays/0" and so on, in that order.

    Args:
        writer: where to write.
        explanation: what to draw.
        photos: the photographs to draw on; None takes the explanation's own.
        step: the step to write at.
        tag: the first part of the names.
        **drawing: the options of `seewhy.render.overlays`.

    Raises:
        InputError: where there are no photographs, or one of the arguments does not fit the explanation.
    """
    _add(writer, tag, explanation.overlay(photos, **drawing), step)


def histograms(
    writer: SummaryWriter,
    model: nn.Module,
    inputs: Any,
    target: targets.Classes | targets.Target = None,
    *,
    layers: Layers,
    step: int = 0,
    tag: str = "histograms",
) -> None:
    """Histograms of what `layers` returned, and of the gradient of the score there, summed over the batch's targets.

    As "histograms/LAYER/activations" and "histograms/LAYER/gradients". The model runs in eval mode and is left as
    found.

    Args:
        writer: where to write.
        model: any module.
        inputs: what the model takes.
        target: as for `seewhy.explain`; None is the predicted class. A function of the output that returns one loss per
            image, (B,), gives the gradients of that loss.
        layers: names, patterns, modules, types, or a list of them.
        step: the step to write at.
        tag: the first part of the names.

    Warns:
        MapWarning: where values are not finite; they are left out.

    Raises:
        LayerError: for a layer that does not exist or does not run.
        TargetError: if the target does not fit the output.
        OutputError: if no class scores are found in the output.
        GradientError: if no gradient leads from the score to a layer.
    """
    modules = find(unwrap(model), layers)
    with session(model, inputs) as run:
        tape, call = run.record(modules), run.call
        check_ran(modules, [label.name for label in tape.activations])
        resolved = targets.resolve(target, tape.outputs, targets.Context(call.batch, call.sizes))
        scores = targets.checked(resolved(tape.outputs), call.batch)
        (slopes,) = gradients(scores.reshape(call.batch, -1).sum(1, keepdim=True), tape.activations)
    for label, activation in tape.activations.items():
        _add_histogram(writer, f"{tag}/{label}/activations", activation.detach(), step)
        _add_histogram(writer, f"{tag}/{label}/gradients", slopes[label], step)


def _add(writer: SummaryWriter, tag: str, pictures: Sequence[Image.Image], step: int) -> None:
    for number, picture in enumerate(pictures):
        _add_picture(writer, f"{tag}/{number}", picture, step)


def _add_picture(writer: SummaryWriter, tag: str, picture: Image.Image, step: int) -> None:
    writer.add_image(tag, np.asarray(picture), step, dataformats="HWC")


def _add_histogram(writer: SummaryWriter, tag: str, values: Tensor, step: int) -> None:
    finite = values[values.isfinite()].float()
    if left_out := values.numel() - finite.numel():
        warn(f"{tag}: {left_out} of {values.numel()} values are not finite.")
    if finite.numel():
        writer.add_histogram(tag, finite.cpu(), step)
