"""Layers that take channels out of another one's output, and choose which."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from seewhy.compat.pytorch_grad_cam.utils.svd_on_activations import get_2d_projection


class AblationLayer(nn.Module):
    """Answers with the activations of one image, channel `indices[n]` of row n taken out.

    `AblationCAM` asks it only which channels to take out, `activations_to_be_ablated`.
    """

    channel_dim = 1
    fill = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.indices: Sequence[int] | NDArray[np.int32] = []
        self.activations: Any = None

    def objectiveness_mask_from_svd(self, activations: NDArray[Any], threshold: float = 0.01) -> NDArray[np.bool_]:
        """Where the first principal component of activations (C, *grid) is not near its smallest size."""
        projection = np.abs(get_2d_projection(activations[None])[0])
        projection = projection - projection.min()
        return np.asarray(projection > threshold * projection.max())

    def activations_to_be_ablated(
        self, activations: NDArray[Any], ratio_channels_to_ablate: float = 1.0
    ) -> NDArray[np.int32]:
        """Channels of activations (C, *grid): those most, and those least, inside of `objectiveness_mask_from_svd`.

        So many of both as `ratio_channels_to_ablate` says; all for 1.0.
        """
        count = len(activations)
        self.indices = np.arange(count, dtype=np.int32)
        if ratio_channels_to_ablate != 1.0:
            mask = self.objectiveness_mask_from_svd(activations).ravel()
            sizes = np.abs(activations.reshape(count, -1))
            sizes = sizes - sizes.min(1, keepdims=True)
            shares = (sizes * mask).sum(1) / np.maximum(sizes.sum(1), np.finfo(np.float32).tiny)
            order, kept = np.argsort(shares), int(count * ratio_channels_to_ablate)
            self.indices = np.concatenate([order[::-1][:kept], order[:kept]]).astype(np.int32)
        return self.indices

    def set_next_batch(self, input_batch_index: int, activations: Any, num_channels_to_ablate: int) -> None:
        """Take `activations` of one image of the batch, in as many copies as channels are to be taken out next."""
        self.activations = self._copies(activations[input_batch_index], num_channels_to_ablate)

    def forward(self, x: Any) -> Any:  # noqa: ARG002
        """What the layer would return for `set_next_batch`'s image."""
        rows = range(len(self.activations))
        channels = self.activations.movedim(self.channel_dim, 1)
        channels[list(rows), [int(self.indices[row]) for row in rows]] = self.fill
        return self.activations

    @staticmethod
    def _copies(image: Tensor, count: int) -> Tensor:
        return image.unsqueeze(0).repeat(count, *[1] * image.ndim)


class AblationLayerVit(AblationLayer):
    """For tokens, whose channels are last."""

    channel_dim = -1


class AblationLayerFasterRCNN(AblationLayer):
    """For a feature pyramid, a dict of maps: the channels of its levels are numbered one level after the other."""

    fill = -1000.0

    def set_next_batch(self, input_batch_index: int, activations: Any, num_channels_to_ablate: int) -> None:
        self.activations = OrderedDict(
            (level, self._copies(maps[input_batch_index], num_channels_to_ablate))
            for level, maps in activations.items()
        )

    def forward(self, x: Any) -> Any:  # noqa: ARG002
        levels = list(self.activations.values())
        for row in range(len(levels[0])):
            level, channel = divmod(int(self.indices[row]), levels[0].shape[1])
            levels[level][row, channel] = self.fill
        return self.activations
