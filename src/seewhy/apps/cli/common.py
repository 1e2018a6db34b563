"""What all commands share: the options that name a model, the model itself, exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seewhy.apps.cli.terminal import CtrlC, say, warnings_shown
from seewhy.errors import SeewhyError

if TYPE_CHECKING:
    from seewhy.models import Loaded

_MODEL = "default, timm:NAME, torchvision:NAME, transformers:NAME, open_clip:NAME, or path/to/file.py:build"
_WEIGHTS = "pretrained, none (random), or a checkpoint file"

Model = Annotated[str, typer.Option("--model", "-m", help=_MODEL)]
Weights = Annotated[str, typer.Option("--weights", "-w", help=_WEIGHTS)]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document per line instead of a table.")]


def load(model: str, weights: str, device: str) -> Loaded:
    """The model of the options, its warnings said."""
    from seewhy.models import load

    with warnings_shown(say):
        return load(model, weights=weights, device=device)


def sample() -> Path:
    """The photograph that stands in where none is named."""
    from seewhy import samples

    return samples.path("chelsea.png")


@contextmanager
def exit_codes() -> Iterator[CtrlC]:
    """A user's mistake is told in plain words and ends with 2; anything else keeps its traceback."""
    try:
        with CtrlC() as stop:
            yield stop
    except SeewhyError as error:
        say(f"error: {error}")
        raise typer.Exit(2) from error
    except KeyboardInterrupt as interrupt:
        say("stopped")
        raise typer.Exit(130) from interrupt
