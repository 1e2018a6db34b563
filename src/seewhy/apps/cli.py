"""The command line: `seewhy explain`, `seewhy methods`, `seewhy layers`. Torch is imported by the commands, not here.

Exit codes: 0 all done; 1 some photographs could not be explained, the others were; 2 an option is wrong; 130 Ctrl-C.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seewhy.errors import GradientError, InputError, LayerError, OutputError, SeewhyError

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console
    from rich.table import Table
    from torch import Tensor

    from seewhy.explain import Explainer
    from seewhy.explanation import Explanation
    from seewhy.models import Loaded
    from seewhy.models.loaded import Frame, Preprocess
    from seewhy.targets import Context, Target, Text

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
        from seewhy.explain import Explainer
        from seewhy.methods import get
        from seewhy.models.loaded import open_photo
        from seewhy.render.overlay import find_colormap
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
        where = None if pixel is None else _numbers(pixel)
        region = None if mask is None else open_photo(mask)

        def asked(photo: Image.Image) -> _Asked | Text:
            if target is not None and loaded.embed_text is not None:
                return Text(target)
            place = None if where is None else _place(where, loaded.preprocess.frame(photo.size))
            return _Asked(index, box, place, None if region is None else _region(region, photo, loaded.preprocess))

        _make_folder(out)
        paths = images or [_sample()]
        job = _Job(explainer, asked, colormap, alpha, raw)
        results = _explain_all(job, paths, _names(paths, out, chosen))
        if as_json:
            typer.echo(json.dumps([_entry(result) for result in results], indent=2, ensure_ascii=False))
        elif done := [result for result in results if isinstance(result, _Result)]:
            _print(_results_table(done))
        if any(isinstance(result, _Failure) for result in results):
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
        _print(_table(("name", "family", "needs", "cost", "source"), rows))


@app.command()
def layers(model: Model = "default", weights: Weights = "pretrained", device: Device = "cpu") -> None:
    """List a model's layers in the order they run on a sample photograph, what each costs, and which one is chosen."""
    with _exit_codes():
        from seewhy.explain import Explainer
        from seewhy.summary import HEADS, summary

        loaded = _load(model, weights, device)
        inputs, _, _ = loaded.prepare([_sample()])
        found = summary(loaded.module, inputs)
        chosen: tuple[str, ...] = ()
        with _warnings_shown(_say):
            try:
                explanation = Explainer(loaded)(inputs)
                chosen, note = explanation.layers, explanation.note
            except (LayerError, GradientError) as error:  # the list is what helps to name one instead
                note = f"No layer can be chosen: {error}"
        rows = [("->" if row.label in chosen else "", *row.cells) for row in found.rows]
        _print(_table(("", *HEADS), rows))
        _say(f"-> {note}" if chosen else note)


@dataclass(frozen=True)
class _Asked:
    """A class of whatever model: the image's, that of the best box, or where a segmenter sees it; None is predicted.

    box: the number of another one. place, region: where a segmenter is to see it: at one place, (across, down) as
    shares of the input, or inside a mask.
    """

    index: int | None
    box: int | None = None
    place: tuple[float, float] | None = None
    region: Tensor | None = None

    def resolved(self, outputs: Any, context: Context) -> Target:
        from seewhy.targets import Box, Category, Pixel, Region, resolve
        from seewhy.targets.outputs import is_detections, named, scores_tensor

        placed = self.place is not None or self.region is not None
        detects = is_detections(outputs) or bool(named(outputs, ("pred_boxes",)))
        if self.box is not None or (detects and not placed):
            return resolve(Box(self.index, index=self.box), outputs, context)
        if self.index is None and context.encode is not None:
            raise OutputError("the model compares pictures with words.", do='say which, as in --target "a cat"')
        dense = placed or named(outputs, ("masks_queries_logits",)) or scores_tensor(outputs).ndim > 3
        if self.index is None and dense:
            raise OutputError("the model sees several classes in one picture.", do="say which with --target")
        if self.place is not None and self.index is not None and context.sizes is not None:
            (across, down), (height, width) = self.place, context.sizes[0]
            return resolve(Pixel(self.index, int(down * height), int(across * width)), outputs, context)
        return resolve(Region(self.index, self.region) if dense else Category(self.index), outputs, context)


def _numbers(pixel: str) -> tuple[int, int]:
    """(x, y) for "X,Y"."""
    x, comma, y = (part.strip() for part in pixel.partition(","))
    if not (comma and x.isdecimal() and y.isdecimal()):
        raise InputError("--pixel is no place.", got=pixel, expected="X,Y: pixels from the left and from the top")
    return int(x), int(y)


def _place(pixel: tuple[int, int], frame: Frame) -> tuple[float, float]:
    """A pixel of a photograph as shares, (across, down), of the input, which shows `frame` of it."""
    x0, y0, x1, y1 = frame
    across, down = (pixel[0] + 0.5 - x0) / (x1 - x0), (pixel[1] + 0.5 - y0) / (y1 - y0)
    if not (0 <= across < 1 and 0 <= down < 1):
        raise InputError(
            "the model does not see this pixel.",
            got=f"{pixel[0]},{pixel[1]}",
            expected=f"{x0:.0f},{y0:.0f} to {x1 - 1:.0f},{y1 - 1:.0f}, which is what it is shown of the photograph",
        )
    return across, down


def _region(mask: Image.Image, photo: Image.Image, preprocess: Preprocess) -> Tensor:
    """The part of a photograph that is white in `mask`, at the input's size, as the photograph comes to be there."""
    if mask.size != photo.size:
        sizes = (f"{picture.width} x {picture.height}" for picture in (mask, photo))
        raise InputError("the mask is not of the photograph's size.", got=next(sizes), expected=next(sizes))
    plain = replace(preprocess, mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="nearest")
    return (plain(mask).amax(0) > 0.5).float()


@dataclass(frozen=True)
class _Job:
    """What is the same for every photograph."""

    explainer: Explainer
    asked: Callable[[Image.Image], _Asked | Text]
    colormap: str
    alpha: float
    raw: bool


@dataclass(frozen=True)
class _Result:
    """What came out for one photograph. label: the class, or the prompt, which has no index.

    probability: None where the model's output gives none.
    """

    image: str
    label: str
    index: int | None
    probability: float | None
    score: float
    layers: tuple[str, ...]
    method: str
    overlay: str
    figure: str
    raw: str | None
    note: str
    warnings: list[str]


@dataclass(frozen=True)
class _Failure:
    image: str
    error: str


def _explain_all(job: _Job, paths: Sequence[Path], stems: Sequence[Path]) -> list[_Result | _Failure]:
    """One photograph after the other; one that cannot be read or written is told on stderr and left out."""
    from rich.console import Console
    from rich.progress import Progress

    from seewhy.models.loaded import open_photo

    errors = Console(stderr=True, highlight=False)
    results: list[_Result | _Failure] = []
    hidden = len(paths) < 2 or not errors.is_terminal
    with Progress(console=errors, transient=True, disable=hidden) as progress:
        for path, stem in progress.track(list(zip(paths, stems, strict=True)), description="explaining"):
            try:
                photo = open_photo(path)
            except InputError as error:
                results.append(_Failure(str(path), str(error)))
                _say(f"error: {error}", errors)
                continue
            caught: list[str] = []
            with _warnings_shown(caught.append):
                target = job.asked(photo)
                explanation = job.explainer([photo], target)  # type: ignore[arg-type]  # it is resolved, then called
            for text in caught:
                _say(f"{path}: {text}", errors)
            try:
                files = _write(explanation, stem, job)
            except OSError as error:
                results.append(_Failure(str(path), f"{path}: its pictures could not be written: {error}"))
                _say(f"error: {path}: its pictures could not be written: {error}", errors)
                continue
            results.append(_result(str(path), explanation, files, caught, target))
    return results


def _write(explanation: Explanation, stem: Path, job: _Job) -> dict[str, str]:
    """The files of one photograph, each whole or not at all: what is in it -> its name."""
    options: dict[str, Any] = {"colormap": job.colormap, "alpha": job.alpha}
    files = {
        "overlay": explanation.save(stem.with_name(stem.name + ".png"), what="overlay", **options),
        "figure": explanation.save(stem.with_name(stem.name + "-figure.png"), **options),
    }
    if job.raw:
        files["raw"] = explanation.save(stem.with_name(stem.name + ".npz"))
    return {what: str(file) for what, file in files.items()}


def _result(
    image: str, explanation: Explanation, files: dict[str, str], caught: list[str], target: _Asked | Text
) -> _Result:
    from seewhy.targets import classes

    prompt = getattr(target, "prompt", None)
    index = None if prompt else int(classes(explanation.targets)[0])
    labels = explanation.labels
    return _Result(
        image=image,
        label=prompt or (labels[index] if labels and index is not None and index < len(labels) else f"class {index}"),
        index=index,
        probability=_finite(explanation.probabilities),
        score=float(explanation.scores[0]),
        layers=explanation.layers,
        method=explanation.method,
        overlay=files["overlay"],
        figure=files["figure"],
        raw=files.get("raw"),
        note=explanation.note,
        warnings=caught,
    )


def _finite(probabilities: Tensor | None) -> float | None:
    """The one probability, as JSON can hold it."""
    return None if probabilities is None or not math.isfinite(probabilities) else float(probabilities)


def _names(paths: Sequence[Path], out: Path, method: str) -> list[Path]:
    """Where to write for each of `paths`, without an ending: no two alike, whatever their case, and none an input."""
    inputs = {path.resolve() for path in paths}
    stems = Counter(path.stem.casefold() for path in paths)
    taken = {stem for stem, count in stems.items() if count == 1}
    names = []
    for path in paths:
        name, number = path.stem, 1
        alone = stems[name.casefold()] == 1
        while (not alone and name.casefold() in taken) or _files(out / f"{name}-{method}") & inputs:
            number, alone = number + 1, False
            name = f"{path.stem}-{number}"
        taken.add(name.casefold())
        names.append(out / f"{name}-{method}")
    return names


def _files(stem: Path) -> set[Path]:
    """The pictures that are written for `stem`."""
    return {stem.with_name(stem.name + ending).resolve() for ending in (".png", "-figure.png")}


def _load(model: str, weights: str, device: str) -> Loaded:
    from seewhy.models import load

    with _warnings_shown(_say):
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
        _say(f"error: {error}")
        raise typer.Exit(2) from error
    except KeyboardInterrupt as stop:
        _say("stopped")
        raise typer.Exit(130) from stop


@contextmanager
def _warnings_shown(show: Callable[[str], Any]) -> Iterator[None]:
    """Each different warning in the block goes to `show`, once, without the line of code it came from."""
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            yield
    finally:
        for text in dict.fromkeys(str(warning.message) for warning in caught):
            show(f"warning: {text}")


def _entry(result: _Result | _Failure) -> dict[str, Any]:
    return asdict(result)


def _results_table(results: Sequence[_Result]) -> Table:
    rows = [
        (
            result.label,
            "" if result.probability is None else f"{result.probability:.3f}",
            "\n".join(result.layers),
            result.method,
            f"{result.overlay}\n{result.figure}",
        )
        for result in results
    ]
    return _table(("label", "probability", "layer", "method", "file"), rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _print(table: Table) -> None:
    """On a terminal as wide as that is; into a file or pipe as wide as the table needs."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=max(80, console.measure(table, options=console.options.update(width=10_000)).maximum))
    console.print(table)


def _say(text: str, console: Console | None = None) -> None:
    """To stderr, as it is: no markup, no wrapping; above the progress bar where there is one."""
    from rich.console import Console
    from rich.text import Text

    (console or Console(stderr=True)).print(Text(text), soft_wrap=True)
