"""Photograph after photograph: explained, written to files, and told."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seewhy.apps.cli.terminal import say, warnings_shown
from seewhy.errors import InputError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from seewhy.apps.cli.asked import Asked
    from seewhy.explainer import Explainer
    from seewhy.results.explanation import Explanation
    from seewhy.targets import Text

HEADS = ("label", "probability", "layer", "method", "file")


@dataclass(frozen=True)
class Job:
    """What is the same for every photograph."""

    explainer: Explainer
    asked: Callable[[Image.Image], Asked | Text]
    colormap: str
    alpha: float
    raw: bool


@dataclass(frozen=True)
class Result:
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

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of a table under `HEADS`."""
        return (
            self.label,
            "" if self.probability is None else f"{self.probability:.3f}",
            "\n".join(self.layers),
            self.method,
            f"{self.overlay}\n{self.figure}",
        )


@dataclass(frozen=True)
class Failure:
    image: str
    error: str


def explain_all(job: Job, paths: Sequence[Path], stems: Sequence[Path]) -> list[Result | Failure]:
    """One photograph after the other; one that cannot be read or written is told on stderr and left out."""
    from rich.console import Console
    from rich.progress import Progress

    from seewhy.images.photo import open_photo

    errors = Console(stderr=True, highlight=False)
    results: list[Result | Failure] = []
    hidden = len(paths) < 2 or not errors.is_terminal
    with Progress(console=errors, transient=True, disable=hidden) as progress:
        for path, stem in progress.track(list(zip(paths, stems, strict=True)), description="explaining"):
            try:
                photo = open_photo(path)
            except InputError as error:
                results.append(Failure(str(path), str(error)))
                say(f"error: {error}", errors)
                continue
            caught: list[str] = []
            with warnings_shown(caught.append):
                target = job.asked(photo)
                explanation = job.explainer([photo], target)  # type: ignore[arg-type]  # it is resolved, then called
            for text in caught:
                say(f"{path}: {text}", errors)
            try:
                files = _write(explanation, stem, job)
            except OSError as error:
                results.append(Failure(str(path), f"{path}: its pictures could not be written: {error}"))
                say(f"error: {path}: its pictures could not be written: {error}", errors)
                continue
            results.append(_result(str(path), explanation, files, caught, target))
    return results


def _write(explanation: Explanation, stem: Path, job: Job) -> dict[str, str]:
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
    image: str, explanation: Explanation, files: dict[str, str], caught: list[str], target: Asked | Text
) -> Result:
    from seewhy.targets import classes

    prompt = getattr(target, "prompt", None)
    index = None if prompt else int(classes(explanation.targets)[0])
    labels = explanation.labels
    return Result(
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


def names_of(paths: Sequence[Path], out: Path, method: str) -> list[Path]:
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
