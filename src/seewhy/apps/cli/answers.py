"""`seewhy explain --prompt`: a model answers a question about each photograph, and every word of it is explained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from seewhy.models import Loaded

HEADS = ("photo", "method", "answer", "least sure of", "files")


class Answered(NamedTuple):
    """What came of one photograph and method: the words of the answer with their probabilities, and the files."""

    photo: str
    method: str
    words: tuple[str, ...]
    probabilities: tuple[float, ...]
    files: tuple[str, ...]

    @property
    def cells(self) -> tuple[str, ...]:
        """A row of the table."""
        least = min(range(len(self.words)), key=self.probabilities.__getitem__)
        doubted = f"{self.words[least]} ({self.probabilities[least]:.2f})"
        return self.photo, self.method, " ".join(self.words), doubted, ", ".join(self.files)


def answer(
    loaded: Loaded, path: Path, prompt: str, methods: Sequence[str], out: Path, *, figure: bool, raw: bool
) -> list[Answered]:
    """Ask about a photograph, explain each word of the answer, and write a page and a figure.

    Args:
        loaded: a model with a processor.
        path: the photograph.
        prompt: the question.
        methods: names of methods.
        out: the folder to write to.
        figure: whether a figure is written beside the page.
        raw: whether the numbers are written too.

    Raises:
        SeewhyError: where it cannot be answered or explained.
    """
    from seewhy.explainer import Explainer
    from seewhy.images.files import written_whole
    from seewhy.images.photo import open_photo
    from seewhy.render import words
    from seewhy.targets import Token

    photo = open_photo(path)
    asked = methods[0] if len(methods) == 1 else list(methods)  # "default" stands alone
    found = Explainer(loaded, asked).each(loaded.ask(photo, prompt), Token(per="word"))
    made = []
    for explanation in found.values():
        name = explanation.method
        files = [out / f"{path.stem}-{name}-words.html"]
        with written_whole(files[0]) as temporary:
            temporary.write_text(words(explanation), encoding="utf-8")
        if figure:
            files.append(explanation.save(files[0].with_suffix(".png")))
        if raw:
            files.append(explanation.save(files[0].with_suffix(".npz")))
        spoken = tuple(explanation.name(0, number) for number in range(explanation.scores.shape[1]))
        sure = explanation.probabilities
        chances = tuple(map(float, () if sure is None else sure[0]))
        made.append(Answered(str(path), name, spoken, chances, tuple(map(str, files))))
    return made
