"""What one forward shows of a model's layers, for tests."""

from __future__ import annotations

from typing import Any

from torch import nn

from seewhy import targets
from seewhy.engine.session import session
from seewhy.geometry import choose_layer
from seewhy.geometry.observe import Seen, observe


def seen_in(model: nn.Module, inputs: Any) -> list[Seen]:
    """Every call of every layer."""
    with session(model, inputs) as run:
        return observe(run).seen


def candidates_in(model: nn.Module, inputs: Any) -> list[Seen]:
    """Those that a map could be drawn from, the best first."""
    with session(model, inputs) as run:
        observed = observe(run)
    answers = {
        output.shape[1] for output in targets.answers(observed.outputs) if output.ndim >= 2 + len(run.call.space)
    }
    return choose_layer.candidates(observed.seen, run.call.space, answers)
