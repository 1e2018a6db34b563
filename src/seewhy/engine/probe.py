"""Ask what the score becomes when the input, or what a layer returned, is changed: a batch of changes at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from seewhy._torch import computes_bf16
from seewhy._types import Ask, AskSlopes, Fold, Slopes
from seewhy.engine.per_model import PerModel
from seewhy.engine.replay import Lend, Memory, companions, replay, replayer, rounding, warn_of_mixing
from seewhy.engine.session import Session, check_has_gradient
from seewhy.engine.tape import gradients
from seewhy.engine.winograd import winograd
from seewhy.errors import MethodError, ReplayWarning, warn
from seewhy.inputs import Inputs

Precision = Literal["full", "bf16"]

# of a model: by shapes and limits, calls whose rows have been seen not to depend on each other, and how many rows it
# takes, if it takes one number only
_independent: PerModel[dict[Any, int | None]] = PerModel(dict)


@dataclass(frozen=True)
class Limits:
    """How changed rows are run.

    Attributes:
        batch_size: how many rows run at once.
        progress: whether a bar is shown.
        precision: "bf16" runs changed inputs under autocast, on hardware that computes in bfloat16.
        traced: whether tensors have no values: all changes of a layer run at once, and nothing is tried before.
    """

    batch_size: int = 32
    progress: bool = False
    precision: Precision = "full"
    traced: bool = False


@dataclass(frozen=True)
class Probe:
    """One forward, and how to ask again.

    Attributes:
        run: the session of the forward.
        outputs: what the model returned.
        score: (outputs for N rows, the image of each row) -> scores (N, T).
        scores: (B, T), those of the forward.
        limits: how changed rows are run.
    """

    run: Session
    outputs: Any
    score: Callable[[Any, Int[Tensor, " N"]], Float[Tensor, "N T"]]
    scores: Float[Tensor, "B T"]
    limits: Limits

    def inputs(self) -> Callable[[int], Ask]:
        """For each target: its scores for changed images (N, C, *space).

        The images go in channels last, which convolutions run faster on, until the model shows that it cannot have
        that: by `x.view(...)`, say. A model whose answer to a row depends on the other rows runs them one at a time.
        One that takes no other batch than the caller's, as an exported one, runs as many rows as that has.
        """
        call, device = self.run.call, self.run.call.images[0].device
        halved = self.limits.precision == "bf16" and computes_bf16(device)
        casting = torch.autocast(device.type, torch.bfloat16) if halved else contextlib.nullcontext()
        laid_out: Callable[[Tensor], Tensor] = _channels_last
        rows_at_once: int | None = None

        def forward(changed: Tensor, images: Tensor) -> Tensor:
            rows = call.with_rows(lambda tensor: tensor[images.to(tensor.device)], laid_out(changed))
            with torch.set_grad_enabled(changed.requires_grad), casting:
                return self.score(self.run.forward(rows), images)

        def run(changed: Tensor, images: Tensor) -> Tensor:
            nonlocal laid_out
            if laid_out is not _channels_last:
                return forward(changed, images)
            try:
                return forward(changed, images)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # of a model that reads its input by its strides; anything else is raised again
                laid_out = Tensor.contiguous
                return forward(changed, images)

        fitted = _Fitted(run, call.batch)

        def at_once() -> int:
            nonlocal rows_at_once
            if rows_at_once is None and self.limits.batch_size == 1:
                rows_at_once = 1
            if rows_at_once is None:
                with torch.no_grad():
                    independent = self._rows_are_independent(fitted)
                rows_at_once = self.limits.batch_size if independent else 1
            return rows_at_once

        def ask(column: int, images: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
            def score(rows: Tensor) -> Tensor:
                changed = make(rows)
                if changed.requires_grad:
                    check_has_gradient(call.images[0])
                return fitted(changed.to(call.images[0].dtype), images[rows])[:, column]

            with winograd(self.run.model):
                return self._collect(_parts(torch.arange(len(images), device=device), at_once()), score)

        return lambda column: partial(ask, column)

    def slopes(self, recorded: Callable[[], AbstractContextManager[Any]]) -> Callable[[int], AskSlopes]:
        """For each target: the gradients of its scores at changed images (N, C, *space).

        Args:
            recorded: makes what is entered while a forward is recorded.
        """
        call = self.run.call
        rows_at_once: list[int] = []

        def of_rows(changed: Tensor, images: Tensor) -> Inputs:
            return call.with_rows(lambda tensor: tensor[images.to(tensor.device)], changed)

        def score(changed: Tensor, images: Tensor) -> Tensor:
            with torch.no_grad():
                return self.score(self.run.run(of_rows(changed, images)), images)

        fitted = _Fitted(score, call.batch)

        def ask(column: int, images: Tensor, make: Callable[[Tensor], Tensor]) -> Iterator[Slopes]:
            if not rows_at_once:
                independent = self._rows_are_independent(fitted)
                rows_at_once.append(fitted.size or self.limits.batch_size if independent else 1)
            parts = _parts(torch.arange(len(images), device=call.images[0].device), rows_at_once[0])
            for rows in tqdm(parts, unit="batch", leave=False, disable=not self.limits.progress):
                taken = rows if fitted.size is None else _filled(rows, fitted.size)
                changed = of_rows(make(taken).to(call.images[0].dtype), images[taken])
                with recorded():
                    tape = self.run.record({}, changed, from_input=True)
                scores = self.score(tape.outputs, images[taken])[:, column, None]
                assert tape.image is not None
                (found,) = gradients(scores, {"the input": tape.image})
                own = slice(len(rows))
                yield Slopes(rows, scores[own, 0].detach(), found["the input"][own])

        return lambda column: partial(ask, column)

    def layer(self, label: object, memory: Memory, kept: Tensor, fold: Fold) -> Callable[[int], Ask]:
        """For each target: its scores for changed activations of a layer, as its `fold` shows them: (N, C, *grid).

        Args:
            label: the layer's, for the error.
            memory: what a replay of the layer's call needs.
            kept: what the layer returned.
            fold: takes the layer's tensors to (B, C, *grid).

        Raises:
            MethodError: for a layer whose output has no row for each image.
        """
        call = self.run.call
        if kept.shape[0] != call.batch:
            raise MethodError(
                f"{label} cannot be replayed: the images are not its output's first dimension.",
                got=f"shape {tuple(kept.shape)} for {call.batch} image(s)",
                do="choose a method that changes the input, such as score_cam, or one of gradients",
            )
        put_back = _putting_back(kept, fold, traced=self.limits.traced)

        def forward(lend: Lend) -> Any:
            return self.run.forward(call.with_rows(lend))

        def ask_at_once(column: int, images: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
            def lend(tensor: Tensor) -> Tensor:
                return tensor[images] if tensor.ndim > 0 and tensor.shape[0] == call.batch else tensor

            changed = put_back(images, make(torch.arange(images.shape[0], device=images.device)))
            return self.score(replay(memory, forward, lend, changed), images)[:, column]

        if self.limits.traced:
            return lambda column: partial(ask_at_once, column)

        def of_rows(image: int, outputs: Any, rows: int) -> Tensor:
            return self.score(outputs, torch.full((rows,), image, device=self.scores.device))

        trial = min(4, self.limits.batch_size)
        tolerance = rounding(self.outputs, kept)
        again, at_once = replayer(memory, forward, kept, of_rows, self.scores, tolerance, trial)
        size = self.limits.batch_size if at_once is None else at_once

        def ask(column: int, images: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
            by_image = [(images == image).nonzero()[:, 0] for image in range(call.batch)]
            parts = [part for rows in by_image for part in _parts(rows, size)]

            def score(rows: Tensor) -> Tensor:
                image = int(images[rows[0]])
                changed = put_back(images[rows], make(rows))
                return self.score(again(image, changed), images[rows])[:, column]

            return self._collect(parts, score)[torch.cat(by_image).argsort()]

        return lambda column: partial(ask, column)

    def _rows_are_independent(self, run: _Fitted) -> bool:
        """Whether an image's scores are the same alone and beside companions; a warning if not.

        A model that was seen to be so is so for all batches of a shape.
        """
        call = self.run.call
        image, known, key = call.image[:1], _independent.of(self.run.model), (call.signature, call.batch, self.limits)
        if key in known:
            run.size = known[key]
            return True

        def scores(rows: Tensor) -> Tensor:
            return run(rows, torch.zeros(len(rows), dtype=torch.long, device=image.device))

        with self.run.aside():
            alone = scores(image)
        tolerance = rounding(self.outputs, image if image.is_floating_point() else self.scores)
        if self.limits.precision == "bf16":
            tolerance = tolerance.maximum(alone.abs().max() * 2**-6)
        steady = bool(((alone - self.scores[:1]).abs() <= tolerance).all())
        if not steady:
            warn(
                "the model answers otherwise to the same image when it runs again: the map may be wrong. A forward "
                "that draws at random or counts its calls does this.",
                ReplayWarning,
            )
        same = True
        for rows, unchanged in companions(image, min(4, self.limits.batch_size)):
            with self.run.aside():
                beside = scores(rows)[unchanged]
            same = same and bool(((beside - alone).abs() <= tolerance).all())
        if not same:
            warn_of_mixing("the images of a batch")
        elif steady:
            known[key] = run.size
        return same

    def _collect(self, parts: Sequence[Tensor], score: Callable[[Tensor], Tensor]) -> Float[Tensor, " N"]:
        """The scores of all parts, in their order."""
        found = [self.scores.new_zeros(0)]
        with tqdm(total=sum(map(len, parts)), unit="row", leave=False, disable=not self.limits.progress) as bar:
            for rows in parts:
                found.append(score(rows))
                bar.update(len(rows))
        return torch.cat(found)


class _Fitted:
    """What scores any number of rows, of a model that may take one number only: that of the caller's images.

    Args:
        run: (changed images (N, C, *space), the image of each) -> scores (N, T).
        batch: how many rows the model has been seen to take.
    """

    def __init__(self, run: Callable[[Tensor, Tensor], Tensor], batch: int) -> None:
        self.run, self.batch = run, batch
        self.size: int | None = None  # of each batch; None as long as any will do

    def __call__(self, changed: Tensor, images: Tensor) -> Tensor:
        if self.size is None:
            try:
                return self.run(changed, images)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # of whatever kind: it ran on the caller's batch, so it cannot do another size
                if len(changed) == self.batch:
                    raise
                try:
                    made = self._in_batches(changed, images)
                except torch.OutOfMemoryError:
                    raise
                except Exception:  # then it is not the size
                    raise error from None
                self.size = self.batch
                return made
        return self._in_batches(changed, images)

    def _in_batches(self, changed: Tensor, images: Tensor) -> Tensor:
        parts = []
        for rows in _parts(torch.arange(len(images), device=images.device), self.batch):
            taken = _filled(rows, self.batch)
            parts.append(self.run(changed[taken.to(changed.device)], images[taken])[: len(rows)])
        return torch.cat(parts)


def _filled(rows: Tensor, size: int) -> Tensor:
    """Rows, and the last one again until there are `size`."""
    return torch.cat([rows, rows[-1:].expand(size - len(rows))])


def _parts(rows: Tensor, size: int) -> list[Tensor]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _channels_last(images: Tensor) -> Tensor:
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    return images.contiguous(memory_format=layouts.get(images.ndim, torch.contiguous_format))


def _putting_back(kept: Tensor, fold: Fold, *, traced: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of images (N,) and changed activations of them (N, C, *grid): these in the layer's own layout.

    Places that `fold` leaves out, such as class tokens, keep what they were. Without values, `traced`, the fold is not
    checked.

    Raises:
        MethodError: for a fold that does more than rearrange and select.
    """

    def spread(folded: Tensor) -> Tensor:  # the transpose of a linear map is what its gradient is
        with torch.enable_grad():
            leaf = kept.new_zeros(1).expand(folded.shape[0], *kept.shape[1:]).requires_grad_()
            return torch.autograd.grad(fold(leaf), leaf, folded)[0].to(kept.dtype)

    shape = fold(kept[:1].detach()).shape
    covered = spread(torch.ones(shape, device=kept.device))
    if not traced and bool(((covered != 0) & (covered != 1)).any()):
        raise MethodError(
            "changed activations cannot be put back into the layer.",
            got="a grid function that mixes values",
            expected="one that only rearranges and selects: reshape, permute, slices",
            do="pass such a function as grid=, or choose a method that changes the input",
        )
    everywhere, covered = not traced and bool(covered.all()), covered.bool()

    def put_back(images: Tensor, changed: Tensor) -> Tensor:
        back = spread(changed)
        return back if everywhere else torch.where(covered, back, kept.detach()[images])

    return put_back
