"""One tree of errors. Every message says what came, what was expected and what to do."""

from __future__ import annotations

import sys
import warnings


class SeewhyError(Exception):
    """Root of every error that seewhy raises by itself; a model's own exceptions come through unchanged.

    Args:
        problem: what is wrong, in a sentence.
        got: what came; None leaves the line out.
        expected: what would be right; None leaves the line out.
        do: what to do; None leaves the line out.
    """

    def __init__(self, problem: str, *, got: object = None, expected: object = None, do: str | None = None) -> None:
        advice = (("got", got), ("expected", expected), ("do", do))
        super().__init__("\n".join([problem, *(f"  {word}: {text}" for word, text in advice if text is not None)]))
        self.add_note(f"docs/errors/{type(self).__name__}.md tells more.")


class InputError(SeewhyError, ValueError):
    """What was passed as inputs, photographs or options cannot be used."""


class InputTypeError(SeewhyError, TypeError):
    """An input is of a type that is not understood."""


class TargetError(SeewhyError, ValueError):
    """The target does not fit the model's output: out of range, wrong count, unknown label."""


class TargetTypeError(SeewhyError, TypeError):
    """The target is of a type that cannot name a class."""


class OutputError(SeewhyError, ValueError):
    """No class scores were found in what the model returned."""


class LayerError(SeewhyError, ValueError):
    """A layer does not exist, did not run, has no space, or none could be chosen."""


class MethodError(SeewhyError, ValueError):
    """There is no such method, or it cannot apply to this model."""


class MetricError(SeewhyError, ValueError):
    """There is no such metric."""


class GradientError(SeewhyError, RuntimeError):
    """No gradient leads from the score to the layer."""


class ModelError(SeewhyError, ValueError):
    """A model could not be found, built or filled with weights."""


class ConcurrencyError(SeewhyError, RuntimeError):
    """Threads are in each other's way: two wait for each other, or one changes the model that another one explains."""


class MissingExtra(SeewhyError, ImportError):
    """An optional library is not installed."""

    @classmethod
    def of(cls, library: str, extra: str) -> MissingExtra:
        """The error for an absent library.

        Args:
            library: what is not installed.
            extra: the extra of seewhy that brings it.

        Returns:
            The error, to be raised.
        """
        return cls(f"{library} is not installed.", do=f'pip install "seewhy[{extra}]"')


class MapWarning(UserWarning):
    """A map that could not mean anything: all zero, not finite, or nothing positive in it."""


class ReplayWarning(UserWarning):
    """Images or changes could not run as cheaply as they should; the message says if the map may be wrong."""


class TargetWarning(UserWarning):
    """A target that is probably not what was meant: scores by the hundred for each image."""


def warn(message: str, category: type[Warning] = MapWarning) -> None:
    """Warn at the line that called into seewhy, however deep inside it the cause was found.

    Args:
        message: what is wrong and what to do.
        category: the class of the warning.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("seewhy", "jaxtyping"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
