"""How the models of some libraries lay their images out: one function for each such library, in one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from torch import Tensor, nn


class Listed(list[Tensor]):
    """Images (C, H, W), one by one, as detectors take them: they may be of several sizes."""


Images: TypeAlias = Tensor | Listed


@dataclass(frozen=True)
class Canvas:
    """What a detector makes of its images: resized and padded at the lower right they become one batch.

    Attributes:
        space: (H, W) of that batch, in pixels.
        extents: for each image the share (height, width) of `space` that it takes up.
    """

    space: tuple[int, int]
    extents: tuple[tuple[float, float], ...]


class Layout(NamedTuple):
    """How a model takes its images.

    Attributes:
        canvas: what it makes of them before its first layer; None where they reach that as they are.
        channel_axis: where the channels are: 1, or 2 for videos frames first, (B, T, C, H, W).
    """

    canvas: Canvas | None = None
    channel_axis: int = 1


Adapter: TypeAlias = Callable[[nn.Module, Images], Layout | None]


def layout_of(model: nn.Module, images: Images) -> Layout | None:
    """The layout by the first adapter that knows the model; None where none does. Runs a detector's own transform."""
    return next((found for adapter in ADAPTERS if (found := adapter(model, images)) is not None), None)


def torchvision_detector(model: nn.Module, images: Images) -> Layout | None:
    """Every detector of torchvision has a transform that resizes and pads a list of images to one batch."""
    transform = next((part for part in model.modules() if _is_a(part, "GeneralizedRCNNTransform")), None)
    if transform is None:
        return None
    made, _ = transform(list(images))
    height, width = made.tensors.shape[-2:]
    extents = tuple((rows / height, columns / width) for rows, columns in made.image_sizes)
    return Layout(Canvas((height, width), extents))


def transformers_video(model: nn.Module, images: Images) -> Layout | None:
    """The video models of transformers take their frames before the channels."""
    ours = hasattr(getattr(model, "config", None), "model_type")
    return Layout(channel_axis=2) if ours and isinstance(images, Tensor) and images.ndim == 5 else None


ADAPTERS: tuple[Adapter, ...] = (torchvision_detector, transformers_video)


def _is_a(module: nn.Module, name: str) -> bool:
    """Whether a class of that name is among the module's classes. Its library need not be imported, nor installed."""
    return any(kind.__name__ == name for kind in type(module).__mro__)
