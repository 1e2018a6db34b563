"""`seewhy explain`, `seewhy methods` and `seewhy layers`. They import torch, not this file.

Exit codes: 0 all done; 1 some photographs could not be explained, the others were; 2 an option is wrong; 130 Ctrl-C.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seewhy.apps.cli import measuring, reporting
from seewhy.apps.cli.asked import Asked, class_of, pixel_of, place_of, region_of
from seewhy.apps.cli.common import (
    BATCH,
    AsJson,
    BatchSize,
    Channels,
    Device,
    Gray,
    Images,
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
    sample,
    shown_as,
)
from seewhy.apps.cli.names import Files, Naming, names_of, part_of_name
from seewhy.apps.cli.options import RULES, methods_named
from seewhy.apps.cli.records import CHANCE, HEADS, Failure, Record, csv_file, json_line
from seewhy.apps.cli.run import CHECK_FORWARDS, Job, Photograph, explain_all
from seewhy.apps.cli.sources import photographs
from seewhy.apps.cli.terminal import CtrlC, any_character, print_table, say, warnings_shown
from seewhy.errors import GradientError, InputError, LayerError

if TYPE_CHECKING:
    from PIL import Image

    from seewhy.explainer import Explainer
    from seewhy.models import Loaded
    from seewhy.targets import Text

app = typer.Typer(
    help="See why a vision model answered as it did.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Mode(StrEnum):
    """How heat is laid over a photograph."""

    blend = "blend"
    opacity = "opacity"


def main() -> None:
    """The console entry `seewhy`."""
    any_character()
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
    images: Images = None,
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
    prompt: Annotated[
        str | None, typer.Option(help="A question to a model that answers in words: every word is explained.")
    ] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", min=1, help="Explain the K most likely classes.")] = None,
    box: Annotated[
        int | None, typer.Option(min=0, help="Of a detector the box of this number, from 0 on. [default: the best]")
    ] = None,
    pixel: Annotated[
        str | None, typer.Option(metavar="X,Y", help="Of a segmenter the class at this pixel of the photograph.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Of a segmenter the class where this picture of the same size is white.")
    ] = None,
    layer: Layer = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write to.")] = Path("seewhy-out"),
    mode: Annotated[
        Mode, typer.Option(help="blend: the same share everywhere; opacity: the more heat, the more colour.")
    ] = Mode.blend,
    signed: Annotated[bool, typer.Option("--signed", help="Show what spoke against it too, in blue.")] = False,
    colormap: Annotated[
        str | None,
        typer.Option(help="ember, or any of matplotlib's. [default: ember; coolwarm for --signed]", show_default=False),
    ] = None,
    alpha: Annotated[float, typer.Option(min=0, max=1, help="How strong the heatmap is over the photograph.")] = 0.5,
    no_figure: Annotated[bool, typer.Option("--no-figure", help="Write no figures: much faster.")] = False,
    no_overlay: Annotated[bool, typer.Option("--no-overlay", help="Write no overlays.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Write the numbers too, as .npz.")] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help=f"Say whether each map is better than chance, for {CHECK_FORWARDS} more forwards."
        ),
    ] = False,
    csv: Annotated[
        Path | None, typer.Option(help="Add a row for each result to this file.", show_default=False)
    ] = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out what the same command has written before.")
    ] = False,
    batch_size: BatchSize = BATCH,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Explain photographs: an overlay and a figure of each.

    Nothing is overwritten, but for what the same command wrote before.
    """
    with exit_codes() as stop:
        if not 0 <= alpha <= 1:  # not every typer stops nan
            raise InputError("alpha is out of range.", got=alpha, expected="a number in [0, 1]")
        if signed and mode is Mode.opacity:
            raise InputError("opacity has no sign.", got="--signed with --mode opacity", do="leave one of them out")
        names = methods_named(method or (), methods or ())
        given = [f"--{name}" for name, value in (("box", box), ("pixel", pixel), ("mask", mask)) if value is not None]
        if len(given) > 1:
            raise InputError("only one of these says where.", got=", ".join(given), do="leave the others out")
        if top_k and (given or target is not None):
            raise InputError(
                "--top-k ranks classes.", got=given[0] if given else "--target", do="leave one of them out"
            )
        if top_k and check:
            raise InputError("--check holds one map against chance.", got="--top-k", do="leave one of them out")
        if skip_existing and no_figure and no_overlay and not raw:
            raise InputError("--skip-existing looks for files, and none are written.", do="leave it out")
        from seewhy.explainer import Explainer
        from seewhy.images.photo import open_photo
        from seewhy.render._colormap import colours
        from seewhy.targets import Text

        if prompt is not None:
            if target is not None or given or top_k:
                got = "--target" if target is not None else given[0] if given else "--top-k"
                raise InputError("--prompt asks for words, not for a class.", got=got, do=f"leave {got} out")
            _make_folder(out)
            found = photographs(images or [sample()], out)
            loaded = load(model, weights, device)
            if not _answer(
                loaded, found, prompt, names, out, figure=not no_figure, raw=raw, as_json=as_json, stop=stop
            ):
                raise typer.Exit(1)
            return
        if colormap is not None:
            colours(colormap)
        loaded = load(model, weights, device)
        loaded = shown_as(loaded, labels=labels, gray=gray, size=size, mean=mean, std=std)
        explainer = _explainer(Explainer, loaded, names, layer, batch_size)
        index = None
        if loaded.embed_text is not None and (given or top_k):
            got = given[0] if given else "--top-k"
            raise InputError("the model compares whole pictures with words.", got=got, do=f"leave {got} out")
        if target is not None and loaded.embed_text is None:
            index = class_of(target, loaded)
        where = None if pixel is None else pixel_of(pixel)
        region = None if mask is None else open_photo(mask)

        def asked(photo: Image.Image) -> Asked | Text:
            if target is not None and loaded.embed_text is not None:
                return Text(target)
            place = None if where is None else place_of(where, loaded.preprocess.frame(photo.size))
            inside = None
            if region is not None:
                inside = region_of(region, photo, loaded.preprocess)  # type: ignore[arg-type]  # of what `load` made
            return Asked(index, box, place, inside, top_k or 0)

        _make_folder(out)
        drawing = {"scaling": "none" if signed else "per_image", "colormap": colormap, "alpha": alpha}
        request = {
            "model": model, "weights": weights, "labels": str(labels), "preprocess": repr(loaded.preprocess),
            "target": target, "box": box, "pixel": pixel, "mask": str(mask), "layer": layer, "top_k": top_k,
            "mode": mode.value, **drawing,
        }  # fmt: skip
        parts = [*([target] if target else []), *given, *(layer or []), *([f"top{top_k}"] if top_k else [])]
        suffix = "-".join(["", *filter(None, map(part_of_name, parts))])
        found = photographs(images or [sample()], out)
        read = [path for path in (mask, labels, csv) if path is not None]
        first = Naming(out, "", request, top_k or 0, overlay=not no_overlay, figure=not no_figure, raw=raw)
        namings = {name: replace(first, suffix=name + suffix, request={**request, "method": name}) for name in names}
        todo = _todo(found, namings, read, skip_existing=skip_existing)
        alike = where is None and region is None
        job = Job(explainer, asked, alike, batch_size, drawing, {"mode": mode.value}, check)
        if not _run(job, todo, csv, as_json=as_json, stop=stop):
            raise typer.Exit(1)


app.command()(measuring.choose)
app.command()(measuring.evaluate)
app.command()(reporting.report)
app.command()(reporting.studio)


@app.command()
def methods(as_json: AsJson = False) -> None:
    """List the explanation methods."""
    with exit_codes():
        from seewhy.methods import available

        heads = ("name", "family", "needs", "cost", "source")
        rows = [
            (found.name, found.family, ", ".join(found.needs), found.cost, found.source)
            for found in available().values()
        ]
        if as_json:
            for row, found in zip(rows, available().values(), strict=True):
                typer.echo(json_line(dict(zip(heads, row, strict=True)) | {"needs": found.needs}))
        else:
            print_table(heads, rows)


@app.command()
def layers(
    model: Model = "default", weights: Weights = "pretrained", device: Device = "cpu", as_json: AsJson = False
) -> None:
    """List a model's layers in the order they run on a sample photograph, what each costs, and which one is chosen."""
    with exit_codes():
        from seewhy.explainer import Explainer
        from seewhy.inspect._summary import HEADS as COLUMNS
        from seewhy.inspect._summary import summary

        loaded = load(model, weights, device)
        inputs, _, _ = loaded.prepare([sample()])
        found = summary(loaded.module, inputs)
        chosen: tuple[str, ...] = ()
        with warnings_shown(say):
            try:
                explanation = Explainer(loaded, "grad_cam")(inputs)
                chosen, note = explanation.layers, explanation.note
            except (LayerError, GradientError) as error:  # the list is what helps to name one instead
                note = f"No layer can be chosen: {error}"
        if as_json:
            for row in found.rows:
                content = asdict(row) | {"grid": row.cells[3] or None, "chosen": row.label in chosen}
                typer.echo(json_line(content))
        else:
            print_table(("", *COLUMNS), [("->" if row.label in chosen else "", *row.cells) for row in found.rows])
        say(f"-> {note}" if chosen else note)


def _todo(
    found: list[Path | Failure], namings: dict[str, Naming], read: list[Path], *, skip_existing: bool
) -> list[Photograph | Failure]:
    """The photographs with the files of each method; without those that are done, if these are to be skipped."""
    paths = [entry for entry in found if isinstance(entry, Path)]
    inputs = frozenset(path.resolve() for path in [*paths, *read])
    named: dict[Path, dict[str, Files]] = {path: {} for path in paths}
    for method, naming in namings.items():
        for path, files in zip(paths, names_of(paths, naming, inputs), strict=True):
            named[path][method] = files
    done = {path for path in paths if skip_existing and all(files.done for files in named[path].values())}
    if done:
        say(f"{len(done)} of {len(paths)} photographs were explained before and are skipped")
    return [
        entry if isinstance(entry, Failure) else Photograph(entry, named[entry]) for entry in found if entry not in done
    ]


def _run(job: Job, todo: list[Photograph | Failure], csv: Path | None, *, as_json: bool, stop: CtrlC) -> bool:
    """Explain, and print each record when it is done; whether all went well."""
    from rich.console import Console
    from rich.progress import Progress

    errors = Console(stderr=True, highlight=False)
    rows: list[tuple[str, ...]] = []
    failures = 0
    maps = max(1, len(job.explainer.methods))
    hidden = len(todo) < 2 or not errors.is_terminal
    with csv_file(csv) as add, Progress(console=errors, transient=True, disable=hidden) as progress:
        task = progress.add_task("explaining", total=len(todo) * maps)

        def hand_over(record: Record | Failure) -> None:
            nonlocal failures
            add(record)
            if isinstance(record, Failure):
                failures += 1
                say(f"error: {record.error}", errors)
            else:
                rows.append(record.cells(checked=job.check))
            if as_json:
                typer.echo(json_line(asdict(record)))
            first = isinstance(record, Failure) or record.rank in (None, 1)
            progress.advance(task, (maps if isinstance(record, Failure) else 1) if first else 0)

        try:
            explain_all(job, todo, hand_over, lambda text: say(text, errors), stop)
        finally:
            progress.stop()
            if rows and not as_json:
                print_table((*HEADS, CHANCE) if job.check else HEADS, rows)
    return not failures


def _answer(
    loaded: Loaded,
    found: list[Path | Failure],
    prompt: str,
    methods: list[str],
    out: Path,
    *,
    figure: bool,
    raw: bool,
    as_json: bool,
    stop: CtrlC,
) -> bool:
    """Ask about each photograph, and print what was answered; whether all went well."""
    from seewhy.apps.cli.answers import HEADS as COLUMNS
    from seewhy.apps.cli.answers import answer

    rows: list[tuple[str, ...]] = []
    failures = 0
    for entry in found:
        stop.check()
        try:
            if isinstance(entry, Failure):
                raise InputError(entry.error)
            with warnings_shown(say):
                answers = answer(loaded, entry, prompt, methods, out, figure=figure, raw=raw)
        except InputError as error:
            failures += 1
            say(f"error: {error}")
            continue
        rows += [one.cells for one in answers]
        for one in answers if as_json else ():
            typer.echo(json_line(one._asdict()))
    if rows and not as_json:
        print_table(COLUMNS, rows)
    return not failures


def _explainer(
    kind: type[Explainer], loaded: Loaded, methods: list[str], layers: list[str] | None, batch_size: int
) -> Explainer:
    """An explainer; if a layer does not exist, the error names those that have space."""
    import difflib

    from seewhy.hooks.select import find
    from seewhy.inspect import summary

    for layer in layers or ():
        try:
            find(loaded.module, layer)
        except LayerError as error:
            inputs, _, _ = loaded.prepare([sample()])
            spacious = [row.label for row in summary(loaded.module, inputs).rows if row.grid is not None]
            near = difflib.get_close_matches(layer, spacious, n=5, cutoff=0.6)
            shallow = [name for name in spacious if "." not in name]
            raise LayerError(
                str(error).splitlines()[0],
                expected="a layer with space, such as " + ", ".join(near or shallow[-5:] or spacious[-5:]),
                do="`seewhy layers` lists them",
            ) from error
    method: Any = methods if methods[0] not in RULES else methods[0]
    return kind(loaded, method, layers=layers or None, batch_size=batch_size)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: is no folder that can be written to ({error.strerror}).") from error
