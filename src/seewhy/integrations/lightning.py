"""A `Monitor` in Lightning, installed under either of its names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seewhy.errors import MissingExtra
from seewhy.integrations.monitor import Monitor

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    try:
        from lightning.pytorch import Callback
    except ModuleNotFoundError:
        try:
            from pytorch_lightning import Callback
        except ModuleNotFoundError:
            raise MissingExtra.of("lightning", "lightning") from None


class MonitorCallback(Callback):
    """Calls `monitor` when training starts and after every optimizer step, or after every epoch.

    On the first process only. For the monitor's model pass the `LightningModule` itself, or a part of it.

    Args:
        monitor: what to call, with the number of steps done, or of epochs.
        by_epoch: whether it is called after every epoch, and not after every step.
    """

    def __init__(self, monitor: Monitor, *, by_epoch: bool = False) -> None:
        self.monitor = monitor
        self.by_epoch = by_epoch

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer, trainer.current_epoch if self.by_epoch else trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not self.by_epoch:
            self._look(trainer, trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.by_epoch:
            self._look(trainer, trainer.current_epoch + 1)

    def _look(self, trainer: Trainer, done: int) -> None:
        if trainer.is_global_zero:
            self.monitor(done)
