"""A model at a glance: its layers in the order they run, what each costs and whether a class score depends on it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from seewhy import targets
from seewhy._types import CallLabel
from seewhy.engine.session import Session, session
from seewhy.engine.tape import gradients
from seewhy.errors import GradientError, OutputError
from seewhy.geometry.grid import Grid
from seewhy.geometry.observe import look
from seewhy.hooks.activations import activations_in
from seewhy.hooks.attach import Finish, Passed, around
from seewhy.inputs.call import Inputs

SHOWN = 60  # rows, in a notebook
HEADS = ("name", "type", "output shape", "grid", "parameters", "time", "reached")


@dataclass(frozen=True)
class Row:
    """One call of one layer, with all that is inside it.

    Attributes:
        label: "layer4", or "relu#0", "relu#1" for a layer that ran more than once.
        name: the layer's name, without the number of the call.
        kind: the name of its class.
        shape: of what it returned.
        grid: how that lies over the input; None where it has no grid.
        parameters: how many numbers it has learned.
        parameter_share: of the model's, from 0 to 1; 0 for a model that has none.
        time_share: of one forward's time.
        reached: whether the gradient of the class score reaches it; None where there is no such score.
    """

    label: str
    name: str
    kind: str
    shape: tuple[int, ...]
    grid: Grid | None
    parameters: int
    parameter_share: float
    time_share: float
    reached: bool | None

    @property
    def cells(self) -> tuple[str, ...]:
        """As text, in the order of `HEADS`."""
        return (
            self.label,
            self.kind,
            " x ".join(map(str, self.shape)),
            "" if self.grid is None else str(self.grid),
            f"{self.parameter_share:.1%}",
            f"{self.time_share:.1%}",
            {True: "yes", False: "no", None: ""}[self.reached],
        )


@dataclass(frozen=True, repr=False)
class Summary:
    """The rows, in the order in which the layers returned; `print` shows them as a table.

    Attributes:
        rows: one for each call of each layer.
    """

    rows: tuple[Row, ...]

    def __str__(self) -> str:
        return _table(self.rows)

    def __repr__(self) -> str:
        """The table, of a long one the first and the last rows: what a notebook shows."""
        if len(self.rows) <= SHOWN:
            return _table(self.rows)
        lines = _table(self.rows).splitlines()
        first, last = lines[: SHOWN // 2 + 1], lines[-SHOWN // 2 :]
        cut = f"... {len(self.rows) - SHOWN} more: print(summary) shows them all"
        return "\n".join([*first, cut, *last])


def _table(rows: tuple[Row, ...]) -> str:
    lines = [HEADS, *(row.cells for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def summary(model: nn.Module, inputs: Any, target: targets.Classes | targets.Target = None) -> Summary:
    """Every call of every layer in a forward of `inputs`: type, output shape, grid, parameters, time, gradient.

    A layer's parameters and time include those of the layers inside it. Time is that of a single forward, in eval mode:
    good for orders of magnitude. A layer is reached if the gradient of the score is not zero there for some image.
    Costs three forwards and a backward pass, and the memory of all layers' outputs; the model is left as it was found.

    Args:
        model: any module, in whatever mode.
        inputs: a tensor (B, C, *space), a tuple of arguments or a dict of keywords.
        target: whose score's gradient is looked for, as for `seewhy.explain`. None is the predicted class of each
            image.

    Returns:
        The rows, which `print` shows as a table.

    Raises:
        TargetError: if the target does not fit the output.
    """
    with session(model, inputs) as run:
        seen = look(run)
        seconds, total = _times(run)
        reached = _reached(run, target)
        sizes = {name: sum(map(torch.numel, module.parameters())) for name, module in run.model.named_modules()}
    return Summary(
        tuple(
            Row(
                str(layer.label),
                layer.label.name,
                layer.kind,
                layer.shape,
                layer.grid,
                sizes[layer.label.name],
                sizes[layer.label.name] / max(1, sizes[""]),
                spent / total,
                None if reached is None else layer.label in reached,
            )
            for layer, spent in zip(seen, seconds, strict=True)
        )
    )


def _times(run: Session) -> tuple[list[float], float]:
    """Seconds of the call for every activation, in the order in which they are returned, and of the whole model."""
    spent: list[float] = []
    whole: list[float] = []

    def visit(name: str, passed: Passed) -> tuple[Passed, Finish]:
        start = _now(run.call)

        def finish(output: Any) -> None:
            if not name:
                whole.append(_now(run.call) - start)
            else:
                spent.extend([_now(run.call) - start] * len(activations_in(output)))

        return passed, finish

    with torch.no_grad(), around(dict(run.model.named_modules()), visit):
        run.run()
    return spent, whole[0]


def _now(call: Inputs) -> float:
    """Seconds on a clock, once the device has done what was asked of it."""
    if (device := call.images[0].device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _reached(run: Session, target: Any) -> set[CallLabel] | None:
    """The calls that the score's gradient reaches; None if the output holds no class scores."""
    layers = {name: module for name, module in run.model.named_modules() if name}
    tape, batch = run.record(layers), run.call.batch
    try:
        scores = targets.resolve(target, tape.outputs, targets.Context(batch, run.call.sizes))(tape.outputs)
    except OutputError:
        return None
    scores = targets.checked(scores, batch)
    try:
        found = next(gradients(scores.reshape(batch, -1)[:, :1], tape.activations))
    except GradientError:
        return set()
    return {label for label, slope in found.items() if bool(slope.any())}
