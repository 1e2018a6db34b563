"""`seewhy choose` and `seewhy evaluate`: which method to believe on a model, measured on photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seewhy.apps.cli.asked import asked_of
from seewhy.apps.cli.common import (
    BATCH,
    AsJson,
    BatchSize,
    Device,
    Images,
    Model,
    Wanted,
    Weights,
    exit_codes,
    load,
    sample,
)
from seewhy.apps.cli.options import listed
from seewhy.apps.cli.records import Failure, json_line
from seewhy.apps.cli.sources import photographs
from seewhy.apps.cli.terminal import print_table, say, warnings_shown
from seewhy.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

_ENDINGS = (".csv", ".json", ".parquet")


def choose(
    images: Images = None,
    model: Model = "default",
    weights: Weights = "pretrained",
    target: Wanted = None,
    candidates: Annotated[
        list[str] | None,
        typer.Option(help="Several, with commas: grad_cam@layer3,le_grad. [default: the cheap ones]"),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(min=1, help="Forwards of a photograph that the measuring takes. [default: 50 for each of 8]"),
    ] = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Find the method and layer whose maps the model's own score agrees with best, on some eight photographs."""
    with exit_codes():
        import seewhy

        loaded = load(model, weights, device)
        photos, all_read = _opened(images)
        with warnings_shown(say):
            asked: Any = asked_of(loaded, target)
            found = seewhy.choose(loaded, photos, asked, candidates=listed(candidates or ()) or None, budget=budget)
        if as_json:
            names = ("method", "layers", "reason", "forwards", "beats_floor", "scores")
            typer.echo(json_line({name: getattr(found, name) for name in names}))
        else:
            ranked = sorted(found.scores.items(), key=lambda entry: -entry[1])
            print_table(("candidate", "insertion minus deletion"), [(name, f"{value:.3f}") for name, value in ranked])
            say(found.reason)
            say(" ".join(["seewhy explain --method", found.method, *(f"--layer {name}" for name in found.layers)]))
        if not all_read:
            raise typer.Exit(1)


def evaluate(
    images: Images = None,
    model: Model = "default",
    weights: Weights = "pretrained",
    target: Wanted = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(help="Several, with commas: grad_cam@layer3,le_grad. [default: default,grad_cam]"),
    ] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(help="Several, with commas. [default: insertion,deletion,road]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A .csv, .json or .parquet file to write.", show_default=False)
    ] = None,
    batch_size: BatchSize = BATCH,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Measure methods on a model: how far its score follows what their maps show, beside maps of chance."""
    with exit_codes():
        import seewhy

        if out is not None and out.suffix.lower() not in _ENDINGS:
            raise InputError("unknown file ending.", got=f"--out {out}", expected=", ".join(_ENDINGS))
        loaded = load(model, weights, device)
        photos, all_read = _opened(images)
        asked: Any = asked_of(loaded, target)
        with warnings_shown(say):
            found = seewhy.evaluate(
                loaded,
                ((photos[start : start + batch_size], None) for start in range(0, len(photos), batch_size)),
                asked,
                methods=listed(methods or ()) or ("default", "grad_cam"),
                metrics=listed(metrics or ()) or ("insertion", "deletion", "road"),
            )
        if out is not None:
            found.save(out)
        if as_json:
            for row in found.rows():
                typer.echo(json_line(row._asdict()))
        else:
            typer.echo(found.table())
        if not all_read:
            raise typer.Exit(1)


def _opened(images: Sequence[Path] | None) -> tuple[list[Image.Image], bool]:
    """The photographs that could be read, and whether that is all of them; what could not is said.

    Raises:
        InputError: if there is none.
    """
    from seewhy.images.photo import open_photo

    opened: list[Image.Image] = []
    found = photographs(images or [sample()], Path("seewhy-out"))
    for entry in found:
        if isinstance(entry, Failure):
            say(f"error: {entry.error}")
            continue
        try:
            opened.append(open_photo(entry))
        except InputError as error:
            text = str(error)
            say(f"error: {text if text.startswith(str(entry)) else f'{entry}: {text}'}")
    if not opened:
        raise InputError("none of these could be read, and there is nothing to measure.")
    return opened, len(opened) == len(found)
