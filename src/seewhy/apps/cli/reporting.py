"""`seewhy report` and `seewhy studio`: explanations on one page, and in a browser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seewhy.apps.cli.common import (
    BATCH,
    BatchSize,
    Channels,
    Device,
    Gray,
    Labels,
    Layer,
    Method,
    Methods,
    Model,
    Size,
    Wanted,
    Weights,
    exit_codes,
    load,
    shown_as,
)
from seewhy.apps.cli.options import methods_named
from seewhy.apps.cli.run import CHECK_FORWARDS
from seewhy.apps.cli.terminal import say, warnings_shown
from seewhy.errors import InputError

if TYPE_CHECKING:
    from seewhy.models import Loaded

_MARK = '<meta name="generator" content="seewhy">'


def report(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Photographs, folders of them, or patterns in quotes; .npz files; or folders of `run`."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("why.html"),
    title: Annotated[str, typer.Option(help="The heading.")] = "Why did the model say that?",
    model: Model = "default",
    weights: Weights = "pretrained",
    labels: Labels = None,
    size: Size = None,
    mean: Channels = None,
    std: Channels = None,
    gray: Gray = False,
    method: Method = None,
    methods: Methods = None,
    target: Wanted = None,
    layer: Layer = None,
    by_folder: Annotated[
        bool, typer.Option("--by-folder", help="A photograph's folder is its right class: wrong answers are marked.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help=f"Say whether each map is better than chance, for {CHECK_FORWARDS} more forwards."
        ),
    ] = False,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit", help="Tell model, weights, versions, target, layers, checks and evaluation; and as .json."
        ),
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, help="Of the folders of `run`: how many images, wrong and odd ones first.")
    ] = 200,
    batch_size: BatchSize = BATCH,
    device: Device = "cpu",
) -> None:
    """Put explanations on one page: to be sorted, filtered and printed, in a single HTML file."""
    with exit_codes() as stop:
        from seewhy import render
        from seewhy.apps.cli import sheets

        _check_out(out, audit=audit)
        kind, found = sheets.kind_of(paths, out)
        options = (method, methods, target, layer, labels, size, mean, std, gray, check)
        if kind != "photographs" and any(options):
            raise InputError(
                f"{kind} are explained already.", got="options of a model or its maps", do="leave them out"
            )
        with warnings_shown(say):
            if kind == "jobs":
                sheet = sheets.of_jobs([Path(path) for path in found], limit)
            elif kind == ".npz files":
                sheet = sheets.of_files(found, by_folder=by_folder)
            else:
                loaded = shown_as(load(model, weights, device), labels=labels, gray=gray, size=size, mean=mean, std=std)
                named = methods_named(method or (), methods or ())
                sheet = sheets.of_photographs(
                    found, loaded, named, target, layer, by_folder=by_folder, check=check or audit, measured=audit,
                    spec=f"{model}, {weights}", batch_size=batch_size, stop=stop,
                )  # fmt: skip
            page = render.report(
                sheet.explanations,
                out,
                photos=sheet.photos,
                title=title,
                note=sheet.note,
                truths=sheet.truths,
                answers=sheet.answers,
                chances=sheet.chances,
                groups=sheet.groups,
                audit=sheet.audit if audit else None,
            )
        for problem in sheet.failures:
            say(f"error: {problem}")
        typer.echo(f"{page}" + (f" and {page.with_suffix('.json')}" if audit else ""))
        if sheet.failures:
            raise typer.Exit(1)


def studio(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="As for `explain`; may be repeated. [default: default]", show_default=False),
    ] = None,
    weights: Weights = "pretrained",
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 7860,
    device: Device = "cpu",
) -> None:
    """Explain photographs in a browser, until Ctrl-C."""
    with exit_codes() as stop:
        from seewhy.apps.studio import check_address, serve

        check_address(host, port)
        loaded: list[Loaded] = []
        for spec in model or ["default"]:
            found = load(spec, weights, device)
            if found.processor is not None:
                raise InputError(
                    "the studio is for models that give scores, and this one answers in words.",
                    got=f"--model {spec}", do="seewhy explain --prompt",
                )  # fmt: skip
            taken = found.name in {each.name for each in loaded}
            loaded.append(replace(found, name=spec) if taken else found)
        application = serve(loaded, host=host, port=port, wait=False)
        try:
            say(f"The studio is at http://{host}:{port}/ (Ctrl-C ends it).")
            stop.wait()
        finally:
            application.close()


def _check_out(out: Path, *, audit: bool) -> None:
    """What stands there is ours, or nothing.

    Raises:
        InputError: for another ending, and where something else would be overwritten.
    """
    if out.suffix.lower() != ".html":
        raise InputError("a report is a page.", got=f"--out {out}", expected="a file name that ends in .html")
    for path in (out, out.with_suffix(".json")) if audit else (out,):
        if path.is_dir() or (path.exists() and not _ours(path)):
            raise InputError(f"{path}: holds something else, and nothing is overwritten.", do="name another --out")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise InputError(f"--out {out}: {folder} is no folder.", do="name another --out")


def _ours(path: Path) -> bool:
    start = path.read_bytes()[:600].decode(errors="replace")
    return _MARK in start or '"made by": "seewhy report"' in start
