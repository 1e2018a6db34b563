"""The command line: `seewhy explain`, `seewhy methods`, `seewhy layers`. Torch is imported by the commands, not here.

Exit codes: 0 all done; 1 some photographs could not be explained, the others were; 2 an option is wrong; 130 Ctrl-C.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seewhy.apps.cli.asked import Asked, pixel_of, place_of, region_of
from seewhy.apps.cli.photographs import HEADS, Failure, Job, Result, explain_all, names_of
from seewhy.apps.cli.terminal import print_table, say, warnings_shown
from seewhy.errors import GradientError, InputError, LayerError, SeewhyError

if TYPE_CHECKING:
    from PIL import Image

    from seewhy.models import Loaded
    from seewhy.targets import Text

app = typer.Typer(
    help="See why a vision model answered as it did.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_MODEL = "default, timm:NAME, torchvision:NAME, transformers:NAME, open_clip:NAME, or path/to/file.py:build"
_WEIGHTS = "pretrained, none (random), or a checkpoint file"

Model = Annotated[str, typer.Option("--model", "-m", help=_MODEL)]
Weights = Annotated[str, typer.Option("--weights", "-w", help=_WEIGHTS)]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")]


def main() -> None:
    """The console entry `seewhy`."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)


def _version(wanted: bool) -> bool:
    if wanted:
        import seewhy

        typer.echo(f"seewhy {seewhy.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def explain(
    images: Annotated[
        list[Path] | None,
        typer.Argument(help="Photographs; a sample is explained if there are none.", show_default=False),
    ] = None,
    model: Model = "default",
    weights: Weights = "pretrained",
    method: Annotated[str, typer.Option(help="One of `seewhy methods`.")] = "grad_cam",
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            help="A class: index, label or part of one; a prompt for text-image models. [default: predicted]",
        ),
    ] = None,
    box: Annotated[
        int | None, typer.Option(min=0, help="Of a detector the box of this number, from 0 on. [default: the best]")
    ] = None,
    pixel: Annotated[
        str | None, typer.Option(metavar="X,Y", help="Of a segmenter the class at this pixel of the photograph.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Of a segmenter the class where this picture of the same size is white.")
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="A name or pattern of `seewhy layers`; may be repeated. [default: chosen]")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write to.")] = Path("seewhy-out"),
    colormap: Annotated[str, typer.Option(help="Any of matplotlib's.")] = "jet",
    alpha: Annotated[float, typer.Option(min=0, max=1, help="How strong the heatmap is over the photograph.")] = 0.5,
    device: Device = "cpu",
    raw: Annotated[bool, typer.Option("--raw", help="Write the numbers too, as .npz.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON instead of a table.")] = False,
) -> None:
    """Explain photographs: an overlay and a figure of each."""
    with _exit_codes():
        if not 0 <= alpha <= 1:  # not every typer stops nan
            raise InputError("alpha is out of range.", got=alpha, expected="a number in [0, 1]")
        from seewhy.explainer import Explainer
        from seewhy.images.photo import open_photo
        from seewhy.methods import get
        from seewhy.render._overlay import find_colormap
        from seewhy.targets import Text, find_label

        chosen = get(method).name
        find_colormap(colormap)
        loaded = _load(model, weights, device)
        explainer = Explainer(loaded, chosen, layers=layer or None)
        index = None
        if target is not None and loaded.embed_text is None:
            index = int(target) if target.lstrip("-").isdecimal() else find_label(target, loaded.labels)
        given = [f"--{name}" for name, value in (("box", box), ("pixel", pixel), ("mask", mask)) if value is not None]
        if len(given) > 1:
            raise InputError("only one of these says where.", got=", ".join(given), do="leave the others out")
        if given and loaded.embed_text is not None:
            raise InputError("the model compares whole pictures with words.", got=given[0], do=f"leave {given[0]} out")
        where = None if pixel is None else pixel_of(pixel)
        region = None if mask is None else open_photo(mask)

        def asked(photo: Image.Image) -> Asked | Text:
            if target is not None and loaded.embed_text is not None:
                return Text(target)
            place = None if where is None else place_of(where, loaded.preprocess.frame(photo.size))
            return Asked(index, box, place, None if region is None else region_of(region, photo, loaded.preprocess))

        _make_folder(out)
        paths = images or [_sample()]
        job = Job(explainer, asked, colormap, alpha, raw)
        results = explain_all(job, paths, names_of(paths, out, chosen))
        if as_json:
            typer.echo(json.dumps([asdict(result) for result in results], indent=2, ensure_ascii=False))
        elif done := [result for result in results if isinstance(result, Result)]:
            print_table(HEADS, [result.cells for result in done])
        if any(isinstance(result, Failure) for result in results):
            raise typer.Exit(1)


@app.command()
def methods() -> None:
    """List the explanation methods."""
    with _exit_codes():
        from seewhy.methods import available

        rows = [
            (found.name, found.family, ", ".join(found.needs), found.cost, found.source)
            for found in available().values()
        ]
        print_table(("name", "family", "needs", "cost", "source"), rows)


@app.command()
def layers(model: Model = "default", weights: Weights = "pretrained", device: Device = "cpu") -> None:
    """List a model's layers in the order they run on a sample photograph, what each costs, and which one is chosen."""
    with _exit_codes():
        from seewhy.explainer import Explainer
        from seewhy.inspect._summary import HEADS as COLUMNS
        from seewhy.inspect._summary import summary

        loaded = _load(model, weights, device)
        inputs, _, _ = loaded.prepare([_sample()])
        found = summary(loaded.module, inputs)
        chosen: tuple[str, ...] = ()
        with warnings_shown(say):
            try:
                explanation = Explainer(loaded)(inputs)
                chosen, note = explanation.layers, explanation.note
            except (LayerError, GradientError) as error:  # the list is what helps to name one instead
                note = f"No layer can be chosen: {error}"
        rows = [("->" if row.label in chosen else "", *row.cells) for row in found.rows]
        print_table(("", *COLUMNS), rows)
        say(f"-> {note}" if chosen else note)


def _load(model: str, weights: str, device: str) -> Loaded:
    from seewhy.models import load

    with warnings_shown(say):
        return load(model, weights=weights, device=device)


def _sample() -> Path:
    from seewhy import samples

    return samples.path("chelsea.png")


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: is no folder that can be written to ({error.strerror}).") from error


@contextmanager
def _exit_codes() -> Iterator[None]:
    """A user's mistake is told in plain words and ends with 2; anything else keeps its traceback."""
    try:
        yield
    except SeewhyError as error:
        say(f"error: {error}")
        raise typer.Exit(2) from error
    except KeyboardInterrupt as stop:
        say("stopped")
        raise typer.Exit(130) from stop
