"""Explain the same images again and again while a model trains, and tell how far the heatmaps moved."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from seewhy import targets
from seewhy.errors import GradientError, InputError, MapWarning
from seewhy.explainer import Explainer
from seewhy.hooks.nested import rebuild
from seewhy.images.photo import Photo
from seewhy.integrations import tensorboard
from seewhy.models.loaded import Loaded
from seewhy.results.explanation import Explanation

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclass(frozen=True, eq=False)
class Look:
    """What a `Monitor` saw at one step.

    Attributes:
        step: the number that the monitor was called with.
        explanation: None where no gradient reached any layer.
        moved: (B, [T]) the `distance` of each heatmap from the one of the look before, from 0 to 1; NaN where either is
            blank. None at the first look, and where there is no explanation now or before.
        problem: why there is no explanation; "" where there is one.
    """

    step: int
    explanation: Explanation | None
    moved: Float[Tensor, "B *T"] | None
    problem: str = ""

    @property
    def blank(self) -> float:
        """The share of maps with nothing in them, from 0 to 1."""
        if self.explanation is None:
            return 1.0
        hot = self.explanation.heatmap.flatten(-len(self.explanation.size)).any(-1)
        return 1 - float(hot.float().mean())


class Monitor:
    """Explains a fixed set of images at step 0 and every `every` steps, and hands a `Look` to `log`.

    Call it at any place of a training loop. The weights come out bit by bit as without it: modes, buffers, gradients
    and random states are kept. Only the heatmaps of the last look are held.

    A map may be blank, early on or when training diverges. That ends no run: instead of `GradientError` and
    `MapWarning` there is `Look.problem` and `Look.blank`. All other errors come through.

    Args:
        model: the model that is trained, any module, or what `seewhy.load` returned.
        inputs: as for `seewhy.explain`; tensors among them follow the model to its device.
        target: as for `seewhy.explain`. Give the true class, or a heatmap will move because the prediction did. None is
            the predicted class.
        log: takes each look; `to_tensorboard` makes one.
        every: how many steps lie between two looks, 1 or more.
        **options: those of `seewhy.Explainer`. The layer is chosen once, at the first look that finds one.

    Raises:
        InputError: for an interval below 1.
        SeewhyError: one of `seewhy.errors`, as for `seewhy.Explainer`.
    """

    def __init__(
        self,
        model: nn.Module | Loaded,
        inputs: Any,
        target: targets.Classes | targets.Target = None,
        *,
        log: Callable[[Look], object],
        every: int = 100,
        **options: Any,
    ) -> None:
        if every < 1:
            raise InputError("the interval is out of range.", got=f"every={every}", expected="1 or more")
        self.explainer = Explainer(model, **options)
        self.inputs = inputs
        self.target = target
        self.log = log
        self.every = every
        self._step: int | None = None
        self._heatmap: Tensor | None = None

    def __call__(self, step: int) -> Look | None:
        """Look, if it is time; a step before the last look's is that of a new run.

        Args:
            step: the number of steps (or epochs, or whatever is counted) done so far.

        Returns:
            The look; None, at once, less than `every` after the last look.
        """
        if self._step is not None and 0 <= step - self._step < self.every:
            return None
        explanation, problem = self._explain()
        moved, heatmap = None, None
        if explanation is not None:
            heatmap = explanation.heatmap
            if self._heatmap is not None:
                moved = distance(self._heatmap.to(heatmap.device), heatmap, explanation.size)
        self._step, self._heatmap = step, heatmap
        look = Look(step, explanation, moved, problem)
        self.log(look)
        return look

    def _explain(self) -> tuple[Explanation | None, str]:
        device = next((parameter.device for parameter in self.explainer.model.parameters()), None)
        inputs = rebuild(self.inputs, lambda tensor: tensor.to(device))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MapWarning)  # `Look.blank` tells of these
            try:
                return self.explainer(inputs, self.target), ""
            except GradientError as error:
                return None, str(error)


def distance(
    before: Float[Tensor, "B *rest"], after: Float[Tensor, "B *rest"], size: tuple[int, ...]
) -> Float[Tensor, "B *T"]:
    """How far heatmaps (B, [T,] *size) moved: 1 - their cosine similarity, (B, [T]).

    0 for the same map at whatever strength, 1 for maps that share no pixel; nothing in between depends on how large the
    hot region is, as a mean difference would. NaN where either map is all zero.
    """
    first, second = (F.normalize(maps.flatten(-len(size)).double(), dim=-1, eps=0) for maps in (before, after))
    squared = (first - second).square().sum(-1)  # for unit vectors 2 - 2 cos, and exactly 0 where they are equal
    return squared.float() / 2


def to_tensorboard(
    writer: SummaryWriter, photos: Photo | Sequence[Photo] | None, *, tag: str = "seewhy", **drawing: Any
) -> Callable[[Look], None]:
    """A log for `Monitor`: overlays, as "seewhy/overlays/0" and so on, and two curves.

    "seewhy/moved" is the mean of `Look.moved` over the maps that have one, "seewhy/blank" is `Look.blank`; a problem is
    a text, "seewhy/problem".

    Args:
        writer: where to write.
        photos: the images before normalisation; None where the monitor's inputs are photographs.
        tag: the first part of the names.
        **drawing: the options of `seewhy.Explanation.overlay`.

    Returns:
        A function that takes a `Look`.
    """

    def log(look: Look) -> None:
        writer.add_scalar(f"{tag}/blank", look.blank, look.step)
        if look.problem:
            writer.add_text(f"{tag}/problem", look.problem, look.step)
        if look.moved is not None and not math.isnan(mean := float(look.moved.nanmean())):
            writer.add_scalar(f"{tag}/moved", mean, look.step)
        if look.explanation is not None:
            tensorboard.overlays(writer, look.explanation, photos, step=look.step, tag=f"{tag}/overlays", **drawing)

    return log
