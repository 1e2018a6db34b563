"""RandomCAM."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Generator, Tensor, nn

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM


class RandomCAM(BaseCAM):
    """Channels weighted at random: what a method has to beat.

    Every call draws anew, from `generator`; numpy's global random numbers, which grad-cam uses, are left alone.
    """

    method = "random_cam"

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        *,
        upstream_exact: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, upstream_exact=upstream_exact)
        self.generator = generator or Generator().manual_seed(0)
