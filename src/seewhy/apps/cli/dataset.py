"""The command that explains a whole dataset: `seewhy run`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from seewhy.apps.cli.commands import app
from seewhy.apps.cli.common import BatchSize, Channels, Gray, Labels, Layer, Model, Size, Weights, exit_codes
from seewhy.apps.cli.options import labels_in, seen_through
from seewhy.apps.cli.records import json_line
from seewhy.apps.cli.terminal import say, warnings_shown


@app.command()
def run(
    photos: Annotated[
        str,
        typer.Argument(
            help="A folder, a pattern in quotes, a .csv or .parquet file, or .tar files; or a URL of these."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the results, to be gone on with.")],
    model: Model = "default",
    weights: Weights = "pretrained",
    labels: Labels = None,
    size: Size = None,
    mean: Channels = None,
    std: Channels = None,
    gray: Gray = False,
    method: Annotated[str, typer.Option(help="One of `seewhy methods`, or auto: what measures best.")] = "grad_cam",
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            help="A class; label: the picture's own; top:5: the most likely ones. [default: predicted]",
            show_default=False,
        ),
    ] = None,
    layer: Layer = None,
    engine: Annotated[str, typer.Option(help="local, ray, or ray://host:10001.")] = "local",
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that decode; with Ray: actors that explain.", show_default=False),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda, cuda:1, mps, ... [default: every GPU, or the CPU]", show_default=False),
    ] = None,
    batch_size: BatchSize = 32,
    part_size: Annotated[
        int | None,
        typer.Option(min=1, help="Photographs in a part of the table. [default: by their number]", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of random weights, and of methods that draw.")] = 0,
    check: Annotated[
        bool, typer.Option("--check", help="Hold each map against chance; some 60 forwards each.")
    ] = False,
    overlays: Annotated[
        str | None,
        typer.Option(metavar="all|worst:N|wrong:N", help="Draw overlays in the end.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print events, one JSON document per line.")] = False,
) -> None:
    """Explain a whole dataset into a table. The same command again goes on where it stopped."""
    with exit_codes():
        import sys

        from seewhy import jobs

        with warnings_shown(say):
            found = jobs.run(
                photos,
                out,
                model=model,
                weights=weights,
                method=method,
                layers=layer or None,
                target=int(target) if target is not None and target.lstrip("-").isdecimal() else target,
                labels=None if labels is None else labels_in(labels),
                preprocess=partial(seen_through, gray=gray, size=size, mean=mean, std=std),
                engine=engine,
                workers=workers,
                device=device,
                batch_size=batch_size,
                part_size=part_size,
                seed=seed,
                check=check,
                overlays=overlays,
                progress=not as_json and sys.stderr.isatty(),
                listener=(lambda event: typer.echo(json_line(event))) if as_json else None,
            )
        if not as_json:
            typer.echo(f"{found.images:,} images are explained in {out}, {found.new:,} of them now")
        if found.errors:
            say(f"error: {found.errors:,} could not be explained: the column error says why")
            raise typer.Exit(1)
