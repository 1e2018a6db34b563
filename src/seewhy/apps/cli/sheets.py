"""What `seewhy report` shows: explanations of photographs, of .npz files, or of the folders of runs."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from seewhy.apps.cli.asked import asked_of
from seewhy.apps.cli.options import RULES
from seewhy.apps.cli.records import Failure, finite
from seewhy.apps.cli.run import Job, Photograph, Result, batches, explain_batch
from seewhy.apps.cli.sources import photographs
from seewhy.apps.cli.terminal import CtrlC, say
from seewhy.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from seewhy.jobs import Table
    from seewhy.models import Loaded
    from seewhy.results import Explanation

Kind = Literal["photographs", ".npz files", "jobs"]

_SIDE = 1024  # pixels: the longer side of a photograph that is kept
_GROUPED = 10  # labels whose maps are grouped, those with most rows
_MEASURED = 16  # photographs that an audit evaluates the methods on
_METRICS = ("insertion", "deletion")


@dataclass
class Sheet:
    """The arguments of `seewhy.render.report`, image by image, and what could not be shown."""

    explanations: list[dict[str, Explanation]] = field(default_factory=list)
    photos: list[Image.Image | None] = field(default_factory=list)
    truths: list[str] | None = None
    answers: list[str] | None = None
    chances: dict[str, list[float | None]] | None = None
    groups: dict[str, dict[str, Tensor]] | None = None
    audit: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    failures: list[str] = field(default_factory=list)


def kind_of(paths: Sequence[Path], out: Path) -> tuple[Kind, list[Any]]:
    """What is to be reported, and its files: of photographs paths and failures.

    Raises:
        InputError: for several kinds at once.
    """
    found: dict[Kind, list[Any]] = {}
    for path in paths:
        saved = sorted(path.glob("*.npz")) if path.is_dir() else [path] if path.suffix.lower() == ".npz" else []
        if (path / "plan.json").is_file():
            found.setdefault("jobs", []).append(path)
        elif saved:
            found.setdefault(".npz files", []).extend(saved)
        else:
            found.setdefault("photographs", []).append(path)
    if len(found) > 1:
        raise InputError("one kind is reported at a time.", got=" and ".join(found), do="write several reports")
    ((kind, files),) = found.items()
    return kind, list(photographs(files, out.with_suffix(""))) if kind == "photographs" else files


def of_photographs(
    found: Sequence[Path | Failure],
    loaded: Loaded,
    methods: Sequence[str],
    target: str | None,
    layers: Sequence[str] | None,
    *,
    by_folder: bool,
    check: bool,
    measured: bool,
    spec: str,
    batch_size: int,
    stop: CtrlC,
) -> Sheet:
    """Explain photographs, and look back at what was done.

    Args:
        found: the photographs.
        loaded: the model.
        methods: names; "auto" or "default" alone.
        target: what was asked for, None for the predicted class.
        layers: where to look; None chooses.
        by_folder: whether a photograph's folder is its right class.
        check: whether each map is held against chance.
        measured: whether the methods are evaluated.
        spec: the options that name the model.
        batch_size: photographs at once.
        stop: Ctrl-C.

    Raises:
        InputError: if none of them can be explained.
    """
    from seewhy.explainer import Explainer

    asked = asked_of(loaded, target)
    chosen: Any = methods[0] if methods[0] in RULES else list(methods)
    explainer = Explainer(loaded, chosen, layers=list(layers) if layers else None, batch_size=batch_size)
    job = Job(explainer, lambda _: asked, True, batch_size, check=check)
    sheet = Sheet(failures=[entry.error for entry in found if isinstance(entry, Failure)])
    chances: dict[str, list[float | None]] = {}
    done: dict[Path, dict[str, Explanation]] = {}

    def keep(photograph: Photograph, result: Result) -> None:
        done.setdefault(photograph.path, {})[result.explanation.method] = _reduced(result.explanation)
        chances.setdefault(result.explanation.method, []).append(result.p_value)

    for batch in batches(job, [Photograph(path) for path in found if isinstance(path, Path)]):
        explain_batch(job, batch, keep, say, stop)
        sheet.failures += [entry.error for each in batch for entry in each.entries if isinstance(entry, Failure)]
    if not done:
        raise InputError("none of these could be explained.", got="\n".join(sheet.failures))
    sheet.explanations = list(done.values())
    sheet.photos = [_photo(each) for each in sheet.explanations]
    sheet.truths = [path.absolute().parent.name for path in done] if by_folder else None
    sheet.chances = chances if check else None
    if measured:
        sheet.audit = _audit(sheet, loaded, target, spec)
        sheet.audit["evaluation"] = _evaluation(loaded, sheet, asked, list(layers) if layers else None)
    return sheet


def of_files(found: Iterable[Path], *, by_folder: bool) -> Sheet:
    """The explanations in .npz files; those of the same images by several methods are put side by side.

    Raises:
        InputError: if none of them can be read.
    """
    from seewhy.images.photo import open_photo
    from seewhy.results import Explanation

    sheet = Sheet()
    by_image: dict[tuple[Any, ...], dict[str, Explanation]] = {}
    rows = []
    for path in found:
        try:
            read = Explanation.load(path)
        except InputError as error:
            sheet.failures.append(str(error))
            continue
        rows.append({"file": str(path), "method": read.method, "layers": read.layers, "why there": read.note})
        for image in range(len(read)):
            one = read[image]
            name = one.files[0] if one.files else f"{path}#{image}"
            about = tuple(one.name(0, number) for number in _numbers(one))
            entry = by_image.setdefault((name, about, one.scores.ndim), {})
            entry[one.method if one.method not in entry else f"{one.method} ({path.name})"] = one
    if not by_image:
        raise InputError("none of these could be read.", got="\n".join(sheet.failures))
    for (name, *_), methods in by_image.items():
        photo = None
        if Path(name).is_file():
            photo = open_photo(name)
        sheet.explanations.append(methods)
        sheet.photos.append(photo)
    if by_folder:
        sheet.truths = [Path(name).absolute().parent.name for name, *_ in by_image]
    sheet.audit = {"made by": "seewhy report", "explanations": rows}
    return sheet


def of_jobs(folders: Sequence[Path], limit: int) -> Sheet:
    """The rows of runs over the same images, side by side: the wrong and odd ones first; means and groups of all.

    Raises:
        InputError: if a run has no rows.
    """
    import numpy as np

    from seewhy import jobs

    tables = {folder: jobs.open(folder) for folder in folders}
    first = tables[folders[0]]
    fine = first.filter(status="ok")
    if not len(fine):
        raise InputError(f"{folders[0]}: has no maps yet.", do="let `seewhy run` go on")
    known = np.array([label is not None for label in fine["label"]], bool)
    wrong = known & (fine["predicted"] != fine["label"])
    odd = set(_keys(fine, [suspect.key for suspect in fine.suspects()]) if known.any() else [])
    rank = np.where(wrong, 0, np.where([key in odd for key in fine["key"]], 1, 2))
    order = np.lexsort((-np.nan_to_num(fine["probability"].astype(float)), rank))[:limit]
    kept = np.zeros(len(fine), bool)
    kept[order] = True
    names = _names(tables)
    sheet = Sheet(chances={name: [] for name in names.values()}, truths=[], answers=[])
    shown = fine.filter(kept)
    others = {folder: _by_key(table, shown) for folder, table in tables.items() if folder != folders[0]}
    place = {int(number): at for at, number in enumerate(np.flatnonzero(kept))}
    for number in order:
        at = place[int(number)]
        row = shown.row(at)
        photo = _photo_of(shown, at)
        methods = {names[folders[0]]: shown[at]}
        p_values = {names[folders[0]]: row["check"]}
        for folder, by_key in others.items():
            if (there := by_key.get((row["key"], row["target"]))) is not None:
                methods[names[folder]] = tables[folder][there]
                p_values[names[folder]] = tables[folder].row(there)["check"]
        frame = None if photo is None else (first.plan.seen_through.frame(photo.size),)
        sheet.explanations.append({name: replace(one, frames=frame) for name, one in methods.items()})
        sheet.photos.append(photo)
        assert sheet.truths is not None
        assert sheet.answers is not None
        assert sheet.chances is not None
        sheet.truths.append(row["label"] or "")
        sheet.answers.append(row["predicted"] or "")
        for name, values in sheet.chances.items():
            values.append(p_values.get(name))
    notes = [f"out of {len(fine):,} rows, the wrong and odd ones first"] if len(order) < len(fine) else []
    if first.errors:
        notes.append("1 row is an error" if first.errors == 1 else f"{first.errors:,} rows are errors")
    sheet.note = ", ".join(notes)
    sheet.groups = _groups(fine)
    sheet.audit = {"made by": "seewhy report", "runs": {str(folder): _plan(table) for folder, table in tables.items()}}
    return sheet


def _reduced(explanation: Explanation) -> Explanation:
    """The same with its photograph no larger than a page shows it: a report holds many."""
    if explanation.photos is None:
        return explanation
    (photo,) = explanation.photos
    factor = min(1.0, _SIDE / max(photo.size))
    small = photo.resize((max(1, round(photo.width * factor)), max(1, round(photo.height * factor))))
    across, down = small.width / photo.width, small.height / photo.height
    frames = explanation.frames
    if frames is not None:
        ((x0, y0, x1, y1),) = frames
        frames = ((x0 * across, y0 * down, x1 * across, y1 * down),)
    return replace(explanation, photos=(small,), frames=frames)


def _photo(methods: Mapping[str, Explanation]) -> Image.Image | None:
    photos = next(iter(methods.values())).photos
    return photos[0] if photos else None


def _numbers(explanation: Explanation) -> Sequence[int | None]:
    return [None] if explanation.scores.ndim == 1 else range(explanation.scores.shape[1])


def _audit(sheet: Sheet, loaded: Loaded, target: str | None, spec: str) -> dict[str, Any]:
    """What the maps rest on."""
    from seewhy.models.fingerprint import versions, weights_hash

    methods: dict[str, dict[str, Any]] = {}
    rows = []
    for number, entry in enumerate(sheet.explanations):
        for name, one in entry.items():
            methods.setdefault(name, {"method": name, "layers": one.layers, "why there": one.note})
        one = next(iter(entry.values()))
        (name,) = one.files or ("",)
        rows.append(
            {
                "file": name,
                "sha256": hashlib.sha256(Path(name).read_bytes()).hexdigest(),
                "explained": one.name(),
                "score": finite(float(one.scores.flatten()[0])),
                **{f"p, {method}": row[number] for method, row in (sheet.chances or {}).items()},
            }
        )
    return {
        "made by": "seewhy report",
        "model": f"{loaded.name} ({spec})",
        "weights sha256": weights_hash(loaded.module),
        "versions": versions(),
        "seed": 0,
        "preprocessing": repr(loaded.preprocess),
        "target": "the predicted class" if target is None else target,
        "maps": list(methods.values()),
        "photographs": rows,
    }


def _evaluation(loaded: Loaded, sheet: Sheet, asked: Any, layers: Any) -> list[dict[str, Any]]:
    """How far the score follows what the maps show, on some of the photographs, beside maps of chance."""
    from seewhy.evaluation import evaluate

    photos = [photo for photo in sheet.photos if photo is not None][:_MEASURED]
    found = evaluate(
        loaded,
        ([photo] for photo in photos),
        asked,
        methods=list(sheet.explanations[0]),
        metrics=_METRICS,
        layers=layers,
    )
    return [
        {
            key: finite(value) if isinstance(value, float) else value
            for key, value in row._asdict().items()
            if key != "seconds"
        }
        for row in found.rows()
    ]


def _names(tables: Mapping[Path, Table]) -> dict[Path, str]:
    """What the runs are called: by their methods, and where those are the same by their folders too."""
    methods = [table.plan.found.method for table in tables.values()]
    return {
        folder: method if methods.count(method) == 1 else f"{method} ({folder})"
        for (folder, _), method in zip(tables.items(), methods, strict=True)
    }


def _keys(table: Table, wanted: Iterable[str]) -> list[str]:
    """The keys that the table has."""
    there = set(table["key"])
    return [key for key in wanted if key in there]


def _by_key(table: Table, shown: Table) -> dict[tuple[str, str], int]:
    """Where the table has the rows that are shown."""
    wanted = set(zip(shown["key"], shown["target"], strict=True))
    read = zip(table["key"], table["target"], table["status"], strict=True)
    return {
        (key, target): at for at, (key, target, status) in enumerate(read) if (key, target) in wanted and status == "ok"
    }


def _photo_of(table: Table, number: int) -> Image.Image | None:
    """The photograph of a row; None if it is no longer where it was."""
    try:
        return table.photo(number)
    except (InputError, OSError):
        return None


def _groups(table: Table) -> dict[str, dict[str, Tensor]]:
    """Mean maps by label, and of the labels with most rows the groups of alike maps."""
    summary = table.summary().labels
    large = [each for each in summary if each.rows > 1]
    found = {"Mean maps": {f"{each.label or 'all'}, {each.rows} images": each.mean_map for each in large}}
    for each in sorted(large, key=lambda one: -one.rows)[:_GROUPED]:
        if each.rows < 4:
            continue
        try:
            groups = table.clusters(each.label)
        except MissingExtra as error:
            say(f"warning: no groups of alike maps: {error}")
            break
        if len(groups) > 1:
            found[f"Groups of alike maps: {each.label or 'all'}"] = {
                f"{len(group.table)} maps, {group.share:.0%}": group.mean_map for group in groups
            }
    return {heading: maps for heading, maps in found.items() if maps}


def _plan(table: Table) -> dict[str, Any]:
    """What a run's rows depend on, and how they came out."""
    plan = dataclasses.asdict(table.plan)
    chosen = plan.pop("found")
    summary = table.summary()
    return {
        "state": "complete" if table.complete else "unfinished",
        **{key: value for key, value in plan.items() if key != "options"},
        "options": {key: value for key, value in plan["options"].items() if value is not None and key != "labels"},
        "layers": chosen["layers"],
        "why there": chosen["reason"],
        "rows": len(table),
        "errors": table.errors,
        "by label": [
            {"label": each.label, "rows": each.rows, "accuracy": finite(each.accuracy), "entropy": finite(each.entropy)}
            for each in summary.labels
        ],
    }
