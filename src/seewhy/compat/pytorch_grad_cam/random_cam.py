"""RandomCAM."""

from typing import Any

from torch import Generator

from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM


class RandomCAM(BaseCAM):
    """Channels weighted at random: what a method has to beat.

    Every call draws anew, from `generator`; numpy's global random numbers, which grad-cam uses, are left alone.
    """

    method = "random_cam"

    def __init__(self, *args: Any, generator: Generator | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.generator = generator or Generator().manual_seed(0)
