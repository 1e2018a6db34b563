"""A `Monitor` in the Trainer of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seewhy.errors import MissingExtra
from seewhy.integrations.monitor import Monitor

try:
    from transformers import TrainerCallback
except ModuleNotFoundError:
    raise MissingExtra.of("transformers", "zoo") from None

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class MonitorCallback(TrainerCallback):
    """Calls `monitor` when training starts and after every optimizer step, or after every epoch.

    On the first process only. The monitor's inputs are a dict: {"pixel_values": images}.

    Args:
        monitor: what to call, with the number of steps done, or of epochs.
        by_epoch: whether it is called after every epoch, and not after every step.
    """

    def __init__(self, monitor: Monitor, *, by_epoch: bool = False) -> None:
        self.monitor = monitor
        self.by_epoch = by_epoch

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._look(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not self.by_epoch:
            self._look(state)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.by_epoch:
            self._look(state)

    def _look(self, state: TrainerState) -> None:
        if state.is_world_process_zero:
            self.monitor(round(state.epoch or 0) if self.by_epoch else state.global_step)
