"""What every target is: a score for each image out of a model's output, and what it can say about itself."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial, wraps
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.errors import GradientError, TargetError, TargetTypeError, TargetWarning, warn
from seewhy.hooks.nested import rebuild, tensors
from seewhy.targets.context import Context

Target = Callable[[Any], Tensor]

_MANY = 16  # more scores per image than this were hardly meant


class BaseTarget(ABC):
    """A question about a model's output: one score for each image, or T of them.

    Everything else in the library asks a target only through these methods. A subclass has to say its score; the other
    methods have defaults. A dataclass whose tensors have a row for each image needs no `for_rows` of its own.

    Examples:
        >>> import torch
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Margin(BaseTarget):
        ...     low: int
        ...     high: int
        ...     def __call__(self, outputs):
        ...         return outputs[:, self.high] - outputs[:, self.low]
        >>> Margin(0, 2)(torch.tensor([[1.0, 5.0, 4.0]]))
        tensor([3.])
    """

    @abstractmethod
    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        """The scores of a batch, in the graph of `outputs`.

        Args:
            outputs: what the model returned for B images.

        Returns:
            (B,), or (B, T) where T questions are asked about each image.

        Raises:
            TargetError: where the outputs are none that it can be asked of.
        """

    def resolved(self, outputs: Any, context: Context) -> BaseTarget:  # noqa: ARG002
        """The target made definite for these outputs, so that it means the same when the images are changed later.

        Args:
            outputs: what the model returned for the caller's images.
            context: what is known of the call.

        Returns:
            A target whose tensors hold a row for each image. Resolved once more, it stays as it is.

        Raises:
            TargetError: where it does not fit the outputs: a class that there is not, a place outside of the image.
            OutputError: where the outputs are not of the kind that it asks about.
        """
        return self

    def for_rows(
        self,
        outputs: Any,
        images: Int[Tensor, " N"],
        original: Any,  # noqa: ARG002
        batch: int,  # noqa: ARG002
    ) -> Float[Tensor, "N *T"]:
        """The scores of N rows of `outputs`: row n by what is asked of image `images[n]`.

        Args:
            outputs: what the model returned for N changed images.
            images: (N,), the image that each row is of.
            original: what the model returned for the caller's images.
            batch: the number of the caller's images.

        Returns:
            (N,), or (N, T) for T questions about each image.
        """
        of_rows: BaseTarget = rebuild(self, lambda per_image: per_image[images.to(per_image.device)])
        return of_rows(outputs)

    def of_row(self, row: int, original: Any, batch: int) -> BaseTarget:  # noqa: ARG002
        """The same question about one image of the batch, for outputs of that image alone.

        Args:
            row: which image, from 0.
            original: what the model returned for the caller's images.
            batch: the number of the caller's images.

        Returns:
            A target for a batch of one.
        """
        alone: BaseTarget = rebuild(self, lambda per_image: per_image[row : row + 1])
        return alone

    def one_of(self, number: int) -> BaseTarget:
        """The question that is number `number` of the T that are asked about each image.

        Args:
            number: which of them, from 0.

        Returns:
            A target with one score for each image.
        """
        return _OneOf(self, number)

    def mirrored(self) -> BaseTarget:
        """The same question about the same images with left and right exchanged.

        Returns:
            A target with its places mirrored; one without places stays as it is.
        """
        return self

    def classes(self) -> Any:
        """The classes that are asked about.

        Returns:
            Indices (B,) or (B, T) of a resolved target. For a single output 1 is the output itself and 0 its other
            side. None where the question is not about classes.
        """
        return None

    def outline(self, image: int, number: int | None) -> tuple[float, ...] | None:  # noqa: ARG002
        """The box that is asked about.

        Args:
            image: which of the batch.
            number: which of its T targets; None where there is one per image.

        Returns:
            (x0, y0, x1, y1), in shares of the input's width and height. None where no box is asked about, and where the
            size of the inputs is not known.
        """
        return None

    def probabilities(self, outputs: Any) -> Float[Tensor, "B *T"] | None:  # noqa: ARG002
        """The probability of the classes or tokens that are asked about.

        Args:
            outputs: what the model returned for B images.

        Returns:
            (B,) or (B, T). None where there is no probability, as of a regression.
        """
        return None

    def describe(self, labels: Sequence[str] | None = None, image: int = 0, number: int | None = None) -> str:  # noqa: ARG002
        """What is asked, in a few words.

        Args:
            labels: a name per class; None where they are not known.
            image: which of the batch.
            number: which of its T targets; None where there is one per image.

        Returns:
            A text such as "tabby", "not nodule", "class 7" or a prompt; "" where nothing is known.
        """
        return ""


@dataclass(frozen=True)
class Unasked(BaseTarget):
    """No question: for methods whose map is the same for every score, where the output has none to take by itself.

    Its scores are NaN.

    Args:
        batch: the number of images.
    """

    batch: int

    def __call__(self, outputs: Any) -> Float[Tensor, " B"]:  # noqa: ARG002
        return torch.full((self.batch,), math.nan)

    def of_row(self, row: int, original: Any, batch: int) -> Unasked:  # noqa: ARG002
        return Unasked(1)


@dataclass(frozen=True)
class _OneOf(BaseTarget):
    """One of the T questions of a target."""

    target: BaseTarget
    number: int

    def __call__(self, outputs: Any) -> Float[Tensor, " B"]:
        return self.target(outputs)[:, self.number]

    def for_rows(self, outputs: Any, images: Int[Tensor, " N"], original: Any, batch: int) -> Float[Tensor, " N"]:
        return self.target.for_rows(outputs, images, original, batch)[:, self.number]

    def of_row(self, row: int, original: Any, batch: int) -> _OneOf:
        return _OneOf(self.target.of_row(row, original, batch), self.number)


@dataclass(frozen=True)
class FunctionTarget(BaseTarget):
    """Any function of a model's output.

    It is described by the function's name and the line where that is written.

    Args:
        function: returns (B,) or (B, T), or a scalar for a batch of one.
        tried: whether it is known to give scores. Filled in when the target is resolved.
    """

    function: Target
    tried: bool = field(default=False, repr=False, compare=False)

    def __call__(self, outputs: Any) -> Tensor:
        return self.function(outputs)

    def resolved(self, outputs: Any, context: Context) -> FunctionTarget:
        """The same, once it has shown that it gives scores.

        Args:
            outputs: what the model returned for the caller's images.
            context: what is known of the call.

        Returns:
            The same function, known to give scores.

        Warns:
            TargetWarning: if it gives more scores per image than anybody would look at.

        Raises:
            TargetTypeError: if it does not return a tensor.
            TargetError: if it does not return a score per image.
            GradientError: if gradients are needed, and the scores have none though the outputs do.
        """
        if self.tried:
            return self
        scores = checked(self.function(outputs), context.batch, self.describe())
        if scores.ndim == 2 and scores.shape[1] > _MANY:
            warn(
                f"the target {self.describe()} returned {scores.shape[1]} scores per image, and each is explained by "
                "itself: return output[:, 3] for one class, or their sum for one map.",
                TargetWarning,
            )
        with_gradient = any(tensor.requires_grad for tensor in tensors(outputs))
        if context.differentiable and with_gradient and not scores.requires_grad:
            raise GradientError(
                f"the score of the target {self.describe()} does not depend on the model's output.",
                got="a score without a gradient",
                expected="a score that torch operations compute from the output",
                do="look for detach(), item(), argmax() or numpy in it; methods such as rise need no gradient",
            )
        return FunctionTarget(self.function, tried=True)

    def for_rows(self, outputs: Any, images: Int[Tensor, " N"], original: Any, batch: int) -> Float[Tensor, "N *T"]:
        """The scores of N rows, asked for in batches like the original one, which the function was made for.

        Rows stand in their image's place. Images without a row in this round keep what the model gave for them.

        Args:
            outputs: what the model returned for N changed images.
            images: (N,), the image that each row is of.
            original: what the model returned for the caller's images.
            batch: the number of the caller's images.

        Returns:
            (N,), or (N, T) for T scores of each image.

        Raises:
            TargetTypeError: if the function does not return a tensor.
            TargetError: if it does not return a score per image.
        """
        turns = (images[:, None] == images).tril(-1).sum(1)  # the number of earlier rows of the same image
        scores, order = [], []
        for turn in range(int(turns.max()) + 1):
            rows = (turns == turn).nonzero()[:, 0]
            before = tensors(original)

            def in_place(after: Tensor, rows: Tensor = rows, before: Iterator[Tensor] = before) -> Tensor:
                kept = next(before).detach()
                per_image = after.ndim > 0 and after.shape[0] == len(images) and kept.shape[0] == batch
                return kept.index_copy(0, images[rows], after[rows].to(kept.dtype)) if per_image else after

            found = checked(self.function(rebuild(outputs, in_place)), batch, self.describe())
            scores.append(found[images[rows]])
            order.append(rows)
        return torch.cat(scores)[torch.cat(order).argsort()]

    def of_row(self, row: int, original: Any, batch: int) -> FunctionTarget:
        @wraps(self.function)
        def alone(outputs: Any) -> Tensor:
            return self.for_rows(outputs, torch.tensor([row]), original, batch)

        return FunctionTarget(alone, tried=True)

    def describe(self, labels: Sequence[str] | None = None, image: int = 0, number: int | None = None) -> str:  # noqa: ARG002
        function = self.function
        while isinstance(function, partial):
            function = function.func
        name = getattr(function, "__qualname__", type(function).__qualname__).rpartition("<locals>.")[2]
        code = getattr(inspect.unwrap(function), "__code__", None)
        return name if code is None else f"{name} ({Path(code.co_filename).name}, line {code.co_firstlineno})"


def checked(scores: Any, batch: int, name: str = "function") -> Float[Tensor, "B *T"]:
    """What a target returned, if it is a score for each image, or T for each.

    Args:
        scores: what it returned.
        batch: the number of images.
        name: what the target is called, for the error.

    Returns:
        (B,) or (B, T). A scalar becomes (1,) for a batch of one.

    Raises:
        TargetTypeError: if it is no tensor.
        TargetError: if it is of another shape, or of integers.
    """
    if not isinstance(scores, Tensor):
        raise TargetTypeError(
            f"the target {name} did not return a tensor.",
            got=type(scores).__name__,
            expected="a tensor that torch operations compute from the output: numpy and item() cut the gradient off",
        )
    found: Tensor = scores[None] if scores.ndim == 0 and batch == 1 else scores
    if found.ndim not in (1, 2) or found.shape[0] != batch or not found.is_floating_point():
        raise TargetError(
            f"the target {name} did not return a score per image.",
            got=f"{scores.dtype} of shape {tuple(scores.shape)}",
            expected=f"floating point of shape ({batch},), or ({batch}, T) for T targets",
        )
    return found
