"""Photographs in batches: explained together, drawn and written beside the next batch, handed over one by one."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from seewhy.apps.cli.asked import NotInPictureError
from seewhy.apps.cli.names import KEY, Files
from seewhy.apps.cli.records import Failure, Record, Sink, finite
from seewhy.apps.cli.terminal import CtrlC, warnings_shown
from seewhy.errors import GradientError, InputError, SeewhyError

if TYPE_CHECKING:
    from PIL import Image

    from seewhy.apps.cli.asked import Asked
    from seewhy.explainer import Explainer
    from seewhy.results.explanation import Explanation
    from seewhy.targets import Text

_OTHERS = 30  # maps that one is checked against
CHECK_FORWARDS = _OTHERS + 3  # those, the map itself, the photograph and a blurred one
_FIRST = 8  # photographs that "auto" chooses by
_WRITERS = 2  # threads that draw and write while the next batch runs
_OF_THE_PHOTOGRAPH = (GradientError, InputError, NotInPictureError)  # another photograph may do: the run goes on


@dataclass(frozen=True)
class Job:
    """What is the same for every photograph.

    Attributes:
        explainer: with one or several methods.
        asked: what to explain of a photograph.
        alike: whether that is the same for all photographs, so that they can be explained in one batch.
        batch_size: how many photographs to explain at once.
        drawing: options of overlay and figure.
        overlay: options of the overlay alone.
        check: whether each map is held against chance.
    """

    explainer: Explainer
    asked: Callable[[Image.Image], Asked | Text]
    alike: bool
    batch_size: int
    drawing: Mapping[str, Any] = field(default_factory=dict)
    overlay: Mapping[str, Any] = field(default_factory=dict)
    check: bool = False


@dataclass
class Photograph:
    """A photograph on its way.

    Attributes:
        path: its file.
        files: where its pictures go, by method, if it has any.
        entries: what came of it: failures, and records that are being written.
    """

    path: Path
    files: Mapping[str, Files] = field(default_factory=dict)
    entries: list[Failure | Future[list[Record | Failure]]] = field(default_factory=list)

    def fail(self, problem: object) -> None:
        """Note that it could not be explained."""
        text = str(problem)
        here = text.startswith(str(self.path))
        self.entries.append(Failure(str(self.path), text if here else f"{self.path}: {text}"))


Entry = TypeVar("Entry")
Opened = tuple[Photograph, "Image.Image"]


class Result(NamedTuple):
    """What one method says of one photograph.

    Attributes:
        method: what it was asked for as.
        explanation: of this one photograph, on the CPU.
        warnings: what is to be known of it.
        p_value: of the check; None where it was not asked for.
    """

    method: str
    explanation: Explanation
    warnings: tuple[str, ...]
    p_value: float | None


Deliver = Callable[[Photograph, Result], None]


def explain_all(
    job: Job, photographs: Sequence[Photograph | Failure], hand_over: Sink, warn: Callable[[str], None], stop: CtrlC
) -> None:
    """Explain photographs batch by batch, in order.

    Args:
        job: what is the same for all.
        photographs: what to explain. A failure is handed over in its turn.
        hand_over: takes each record when its files are written. A photograph that cannot be read, explained or written
            becomes a failure, and the others are done.
        warn: takes each warning, once.
        stop: Ctrl-C. What is written by then is handed over.

    Raises:
        SeewhyError: where what is asked for fits no photograph.
        KeyboardInterrupt: after Ctrl-C.
    """
    said: set[str] = set()

    def warn_once(text: str) -> None:
        if text not in said:
            said.add(text)
            warn(text)

    before: list[Photograph | Failure] = []
    batch: list[Photograph | Failure] = []
    with ThreadPoolExecutor(_WRITERS) as writers:
        deliver = partial(_write, job, writers, warn_once)
        try:
            for each in batches(job, photographs):
                stop.check()
                batch = list(each)
                explain_batch(job, [one for one in batch if isinstance(one, Photograph)], deliver, warn_once, stop)
                _hand_over(before, hand_over, stop)
                before, batch = batch, []
        finally:
            with stop.held():  # pressed again, Ctrl-C does not wait
                _hand_over([*before, *batch], hand_over, stop)


def batches(job: Job, photographs: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """The photographs in batches, the first one alone: then the layer is chosen, which costs most in a whole batch."""
    first = _FIRST if job.explainer.auto else 1
    for start in (0, *range(first, len(photographs), job.batch_size)):
        yield photographs[start : start + job.batch_size if start else first]


def _hand_over(photographs: list[Photograph | Failure], hand_over: Sink, stop: CtrlC) -> None:
    """What came of photographs, in order, each once: what is handed over is dropped."""
    while photographs:
        photograph = photographs[0]
        entries = photograph.entries if isinstance(photograph, Photograph) else []
        while entries:
            found = [entries[0]] if isinstance(entries[0], Failure) else entries[0].result()
            with stop.held():
                for record in found:
                    hand_over(record)
                entries.pop(0)
        with stop.held():
            if isinstance(photograph, Failure):
                hand_over(photograph)
            photographs.pop(0)


def explain_batch(
    job: Job, batch: Sequence[Photograph], deliver: Deliver, warn: Callable[[str], None], stop: CtrlC
) -> None:
    """Read and explain photographs. Those that cannot be fail, and the others are done.

    Args:
        job: what is the same for all.
        batch: the photographs.
        deliver: takes what each method says of each of them.
        warn: takes each warning.
        stop: Ctrl-C.

    Raises:
        SeewhyError: where what is asked for fits no photograph.
    """
    from seewhy.images.photo import open_photo

    opened: dict[Any, list[Opened]] = {}
    for photograph in batch:
        try:
            with warnings_shown(warn):
                photo = open_photo(photograph.path)
        except InputError as error:
            photograph.fail(error)
            continue
        # those of one size are seen alike by a model that takes photographs whole
        loaded = job.explainer.loaded
        whole = loaded is not None and loaded.preprocess.size is None
        key = (photo.size if whole else None) if job.alike else photograph.path
        opened.setdefault(key, []).append((photograph, photo))
    for group in opened.values():
        _explain_group(job, group, deliver, warn, stop)


def _explain_group(
    job: Job, group: Sequence[Opened], deliver: Deliver, warn: Callable[[str], None], stop: CtrlC
) -> None:
    """Explain photographs in one batch; where that cannot be done, each by itself."""
    from seewhy.results.checks import blanks

    stop.check()
    caught: list[str] = []
    try:
        with warnings_shown(caught.append):
            target = job.asked(group[0][1])
            photos = [photo for _, photo in group]
            found = job.explainer.each(photos, target)  # type: ignore[arg-type]  # resolved first
            chances = {method: _chances(job, each, photos) for method, each in found.items()} if job.check else {}
    except SeewhyError as error:
        if len(group) > 1:  # one of them, or what is asked for: it is told of each
            for alone in group:
                _explain_group(job, [alone], deliver, warn, stop)
        elif isinstance(error, _OF_THE_PHOTOGRAPH):
            group[0][0].fail(error)
        else:
            raise
        return
    files = tuple(str(photograph.path) for photograph, _ in group)
    every = {method: dataclasses.replace(each.cpu(), files=files) for method, each in found.items()}
    of_maps = {what for each in every.values() for what, _, _ in blanks(each)}  # which are told of each map instead
    general = tuple(text for text in caught if not any(what in text for what in of_maps))
    for text in general:
        warn(text)
    for number, (photograph, _) in enumerate(group):
        for method, explanation in every.items():
            one = explanation[number]
            p_value = chances[method][number] if method in chances else None
            own = [f"warning: {what}: {advice}." for what, _, advice in blanks(one)]
            if p_value is not None and p_value > 0.05:
                own.append(f"warning: the {one.method} map cannot be told from chance (p = {p_value:.2f}).")
            for text in own:
                warn(f"{photograph.path}: {text}")
            told = general if one.scores.ndim == 2 else (*general, *own)  # of several maps each has its own
            deliver(photograph, Result(method, one, told, p_value))


def _chances(job: Job, explanation: Explanation, photos: Sequence[Image.Image]) -> list[float]:
    """For each map how likely chance makes one as good."""
    from seewhy.errors import MapWarning
    from seewhy.evaluation import check

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MapWarning)  # it is told of each photograph
        found = check(explanation, job.explainer.loaded or job.explainer.model, photos, others=_OTHERS, redraw=False)
    return found.p_value.tolist()


def _write(
    job: Job, writers: ThreadPoolExecutor, warn: Callable[[str], None], photograph: Photograph, result: Result
) -> None:
    """Draw the figure here, as matplotlib is not made for threads, and have everything else written."""
    writing = _Writing(job, photograph.files[result.method], result.explanation, result.warnings, result.p_value)
    if writing.files.figure is not None:
        caught: list[str] = []
        with warnings_shown(caught.append):
            problem = writing.figure()
        for text in caught:
            warn(f"{photograph.path}: {text}")
        if problem:
            photograph.fail(problem)
            return
    photograph.entries.append(writers.submit(writing))


@dataclass(frozen=True)
class _Writing:
    """The files of one photograph and method, each whole or not at all."""

    job: Job
    files: Files
    explanation: Explanation
    warnings: tuple[str, ...]
    p_value: float | None

    def __call__(self) -> list[Record | Failure]:
        """Draw and write everything but the figure; a record for each map."""
        metadata = {KEY: self.files.request}
        several = self.explanation.scores.ndim == 2
        ranks = range(self.explanation.scores.shape[1]) if several else [None]
        options = {**self.job.drawing, **self.job.overlay, "metadata": metadata, "what": "overlay"}
        try:
            if self.files.raw is not None:
                self.explanation.save(self.files.raw, metadata=metadata)
            for rank, file in zip(ranks, self.files.overlays, strict=False):
                self.explanation.save(file, target=rank, **options)
        except OSError as error:
            (image,) = self.explanation.files or ("",)
            return [Failure(image, _unwritten(image, error))]
        return list(self._records(ranks))

    def figure(self) -> str:
        """Draw and write the figure; what went wrong, "" if nothing did."""
        assert self.files.figure is not None
        try:
            self.explanation.save(self.files.figure, metadata={KEY: self.files.request}, **self.job.drawing)
        except OSError as error:
            (image,) = self.explanation.files or ("",)
            return _unwritten(image, error)
        return ""

    def _records(self, ranks: Sequence[int | None]) -> Iterator[Record]:
        explanation = self.explanation
        (image,) = explanation.files or ("",)
        overlays = self.files.overlays or (None,) * len(ranks)
        for rank, overlay in zip(ranks, overlays, strict=False):
            place = (0,) if rank is None else (0, rank)
            index, probabilities = explanation.index, explanation.probabilities
            blank = "" if rank is None else explanation.blank(0, rank)
            yield Record(
                image=image,
                label=explanation.name(0, rank),
                index=None if index is None else int(index[place]),
                probability=None if probabilities is None else finite(float(probabilities[place])),
                score=finite(float(explanation.scores[place])),
                rank=None if rank is None else rank + 1,
                layers=explanation.layers,
                method=explanation.method,
                overlay=None if overlay is None else str(overlay),
                figure=None if self.files.figure is None else str(self.files.figure),
                raw=None if self.files.raw is None else str(self.files.raw),
                note=explanation.note,
                warnings=(*self.warnings, *([f"warning: the map shows nothing: {blank}."] if blank else [])),
                p_value=self.p_value,
            )


def _unwritten(image: str, error: OSError) -> str:
    return f"{image}: its pictures could not be written: {error}"
