"""From what a layer returns to (B, C, H, W). The engine recognises these layouts by itself."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.images import arrays


def fasterrcnn_reshape_transform(x: Mapping[str, Float[Tensor, "B C _ _"]]) -> Float[Tensor, "B D H W"]:
    """A feature pyramid's levels in size of their values, at the size of the level "pool", one after the other."""
    height, width = x["pool"].shape[2:]
    return torch.cat([arrays.resize(level.abs(), (height, width)) for level in x.values()], 1)


def swinT_reshape_transform(  # noqa: N802
    tensor: Float[Tensor, "B N C"], height: int = 7, width: int = 7
) -> Float[Tensor, "B C H W"]:
    """Tokens without a class token as a grid."""
    grid: Tensor = tensor.mT.reshape(len(tensor), -1, height, width)
    return grid


def vit_reshape_transform(
    tensor: Float[Tensor, "B N C"], height: int = 14, width: int = 14
) -> Float[Tensor, "B C H W"]:
    """Tokens behind one class token as a grid."""
    return swinT_reshape_transform(tensor[:, 1:], height, width)
