"""Ask what the score becomes when the input, or what a layer returned, is changed: a batch of changes at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from seewhy import targets
from seewhy._torch import computes_bf16
from seewhy._types import Ask
from seewhy.engine.replay import Lend, Memory, replayer, rounding
from seewhy.engine.winograd import winograd
from seewhy.errors import MethodError
from seewhy.inputs.call import Inputs

Precision = Literal["full", "bf16"]
Fold = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Probe:
    """One forward, and how to ask again: at most `batch_size` rows at once, with a bar if `progress`.

    scores: (B, T), the original ones. precision: "bf16" runs changed inputs under autocast, where that is faster.
    """

    model: nn.Module
    call: Inputs
    outputs: Any
    target: targets.Target
    scores: Float[Tensor, "B T"]
    batch_size: int
    progress: bool
    precision: Precision

    def inputs(self, column: int) -> Ask:
        """Scores of one target for changed images (N, C, *space).

        They go in channels last, which convolutions run faster on, until a model shows that it cannot have that: by
        `x.view(...)`, say.
        """
        laid_out: Callable[[Tensor], Tensor] = _channels_last
        device = self.call.images[0].device
        halved = self.precision == "bf16" and computes_bf16(device)
        casting = torch.autocast(device.type, torch.bfloat16) if halved else contextlib.nullcontext()

        def run(changed: Tensor, images: Tensor) -> Tensor:
            call = self.call.with_rows(lambda tensor: tensor[images.to(tensor.device)], laid_out(changed))
            with torch.set_grad_enabled(changed.requires_grad), casting:
                return self._scores(call.run(self.model), images)[:, column]

        def ask(images: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
            def score(rows: Tensor) -> Tensor:
                nonlocal laid_out
                changed = make(rows).to(self.call.images[0].dtype)
                if laid_out is _channels_last:
                    try:
                        return run(changed, images[rows])
                    except RuntimeError:
                        laid_out = Tensor.contiguous
                return run(changed, images[rows])

            with winograd(self.model):
                return self._collect(_parts(torch.arange(len(images), device=device), self.batch_size), score)

        return ask

    def layer(self, label: str, memory: Memory, kept: Tensor, fold: Fold) -> Callable[[int], Ask]:
        """For each target: scores for changed activations of a layer, as its `fold` shows them: (N, C, *grid).

        Raises `MethodError` for a layer whose output has no row per image.
        """
        if kept.shape[0] != self.call.batch:
            raise MethodError(
                f"{label} cannot be replayed: the images are not its output's first dimension.",
                got=f"shape {tuple(kept.shape)} for {self.call.batch} image(s)",
                do="choose a method that changes the input, such as score_cam, or one of gradients",
            )
        put_back = _putting_back(kept, fold)

        def forward(lend: Lend) -> Any:
            return self.call.with_rows(lend).run(self.model)

        def agrees(image: int, outputs: Any) -> bool:
            found = self._scores(outputs, torch.full((2,), image, device=self.scores.device))
            return bool(((found - self.scores[image]).abs() <= rounding(self.outputs, kept)).all())

        run = replayer(memory, forward, kept, agrees)

        def ask(column: int, images: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
            by_image = [(images == image).nonzero()[:, 0] for image in range(self.call.batch)]
            parts = [part for rows in by_image for part in _parts(rows, self.batch_size)]

            def score(rows: Tensor) -> Tensor:
                image = int(images[rows[0]])
                return self._scores(run(image, put_back(image, make(rows))), images[rows])[:, column]

            return self._collect(parts, score)[torch.cat(by_image).argsort()]

        return lambda column: partial(ask, column)

    def _scores(self, outputs: Any, images: Tensor) -> Float[Tensor, "N T"]:
        found = targets.for_rows(self.target, outputs, images, self.outputs, self.call.batch)
        return (found if found.ndim == 2 else found[:, None]).to(self.scores.dtype)

    def _collect(self, parts: Sequence[Tensor], score: Callable[[Tensor], Tensor]) -> Float[Tensor, " N"]:
        """The scores of all parts, in their order."""
        found = [self.scores.new_zeros(0)]
        with tqdm(total=sum(map(len, parts)), unit="row", leave=False, disable=not self.progress) as bar:
            for rows in parts:
                found.append(score(rows))
                bar.update(len(rows))
        return torch.cat(found)


def _parts(rows: Tensor, size: int) -> list[Tensor]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last if images.ndim == 4 else torch.channels_last_3d)


def _putting_back(kept: Tensor, fold: Fold) -> Callable[[int, Tensor], Tensor]:
    """What takes changed activations (N, C, *grid) of an image back to the layer's own layout, as `fold` read it.

    Places that `fold` leaves out, such as class tokens, keep what they were. Raises `MethodError` for a fold that is
    not a mere rearrangement.
    """

    def spread(folded: Tensor) -> Tensor:  # the transpose of a linear map is what its gradient is
        with torch.enable_grad():
            leaf = kept.new_zeros(1).expand(len(folded), *kept.shape[1:]).requires_grad_()
            return torch.autograd.grad(fold(leaf), leaf, folded)[0].to(kept.dtype)

    shape = fold(kept[:1].detach()).shape
    covered = spread(torch.ones(shape, device=kept.device))
    if bool(((covered != 0) & (covered != 1)).any()):
        raise MethodError(
            "changed activations cannot be put back into the layer.",
            got="a grid function that mixes values",
            expected="one that only rearranges and selects: reshape, permute, slices",
            do="pass such a function as grid=, or choose a method that changes the input",
        )
    everywhere, covered = bool(covered.all()), covered.bool()

    def put_back(image: int, changed: Tensor) -> Tensor:
        back = spread(changed)
        return back if everywhere else torch.where(covered, back, kept[image : image + 1].detach())

    return put_back
