"""The method that is taken where none is named. docs/methods/choosing.md has the figures that the rule rests on."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from seewhy.targets import Category, Contrast, Finer, Probability, Target

DEFAULT = "default"
PLAIN = "grad_cam"
FOR_LAYER_NORMS = "local_libra_grad"

_CLASSES = (Category, Contrast, Finer, Probability)
_NORMS = (nn.LayerNorm, nn.RMSNorm)


def normalises_places(model: nn.Module, space: Sequence[int]) -> bool:
    """Whether a model of pictures has layer norms, as transformers and ConvNeXt do: each place is scaled by itself.

    Args:
        model: what is explained.
        space: the size of the images; volumes and signals are left to `PLAIN`.
    """
    return len(space) == 2 and any(isinstance(module, _NORMS) for module in model.modules())


def is_of_classes(target: Target) -> bool:
    """Whether a definite target is a class of images."""
    return isinstance(target, _CLASSES)
