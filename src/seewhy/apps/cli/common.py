"""What commands share: options that mean the same in each, the model, exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seewhy.apps.cli.options import labels_in, seen_through
from seewhy.apps.cli.terminal import CtrlC, say, warnings_shown
from seewhy.errors import SeewhyError

if TYPE_CHECKING:
    from seewhy.models import Loaded

BATCH = 32  # photographs at once

_MODEL = "default, timm:NAME, torchvision:NAME, transformers:NAME, open_clip:NAME, or path/to/file.py:build"
_WEIGHTS = "pretrained, none (random), or a checkpoint file"

Images = Annotated[
    list[Path] | None,
    typer.Argument(help="Photographs, folders, or patterns in quotes; a sample if there are none.", show_default=False),
]
Model = Annotated[str, typer.Option("--model", "-m", help=_MODEL)]
Weights = Annotated[str, typer.Option("--weights", "-w", help=_WEIGHTS)]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")]
Labels = Annotated[
    Path | None, typer.Option(help="A file with the class names: one in each line, or JSON.", show_default=False)
]
Size = Annotated[
    str | None, typer.Option(metavar="SIDE|HxW", help="The input's size in pixels. [default: the model's]")
]
Channels = Annotated[str | None, typer.Option(metavar="X[,X,X]", help="For pixels from 0 to 1. [default: the model's]")]
Gray = Annotated[bool, typer.Option("--gray", help="The model takes one channel: grey levels.")]
Method = Annotated[
    list[str] | None,
    typer.Option(
        help="One of `seewhy methods`; auto measures which. [default: by the kind of model]", show_default=False
    ),
]
Methods = Annotated[
    list[str] | None, typer.Option(help="Several, with commas: grad_cam,layer_cam.", show_default=False)
]
Wanted = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        help="A class: index, label or part of one; a prompt for text-image models. [default: predicted]",
        show_default=False,
    ),
]
Layer = Annotated[
    list[str] | None, typer.Option(help="A name or pattern of `seewhy layers`; may be repeated. [default: chosen]")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Photographs at once.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document per line instead of a table.")]


def load(model: str, weights: str, device: str) -> Loaded:
    """The model of the options, its warnings said."""
    from seewhy.models import load

    with warnings_shown(say):
        return load(model, weights=weights, device=device)


def shown_as(
    loaded: Loaded, *, labels: Path | None, gray: bool, size: str | None, mean: str | None, std: str | None
) -> Loaded:
    """The model with class names and preprocessing as the options say.

    Raises:
        InputError: for options that do not fit it.
    """
    from seewhy.models import Preprocess

    if labels is not None:
        loaded = replace(loaded, labels=labels_in(labels))
    assert isinstance(loaded.preprocess, Preprocess)  # of what `load` made
    return replace(loaded, preprocess=seen_through(loaded.preprocess, gray=gray, size=size, mean=mean, std=std))


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
