"""One HTML file of many explanations: photographs and maps to sort, filter and print, without outside requests."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from seewhy.errors import InputError, SeewhyError
from seewhy.images.files import written_whole
from seewhy.images.photo import Photo
from seewhy.render._colormap import default_colormap
from seewhy.render._overlay import Drawing, drawings, heat_image, listed, painted

if TYPE_CHECKING:
    from seewhy.results.explanation import Explanation

_SIDE = 420  # pixels, the longest side of a picture in the file
_MEAN = 96  # places a side of a class's mean map


class _Card(NamedTuple):
    """One image and target, with the map of each method."""

    name: str
    about: str  # what is explained
    answer: str  # what the model says
    truth: str  # "" where it is not known
    score: float
    probability: float | None
    chance: float | None  # the largest p-value of the checks
    rows: tuple[tuple[str, str], ...]  # further facts, name and text
    pictures: tuple[tuple[str, Image.Image], ...]  # caption and picture
    heat: Float[Tensor, "H W"]  # of the first method

    @property
    def wrong(self) -> bool:
        return bool(self.truth) and self.truth != self.answer


def report(
    explanations: Explanation | Mapping[str, Explanation] | Iterable[Explanation | Mapping[str, Explanation]],
    path: str | Path,
    *,
    photos: Photo | Sequence[Photo | None] | None = None,
    title: str = "Why did the model say that?",
    note: str = "",
    truths: Sequence[str] | None = None,
    answers: Sequence[str] | None = None,
    chances: Mapping[str, Sequence[float | None]] | Sequence[float | None] | None = None,
    groups: Mapping[str, Mapping[str, Float[Tensor, "h w"]]] | None = None,
    audit: Mapping[str, Any] | None = None,
) -> Path:
    """Write a page of explanations: one self-contained HTML file.

    Args:
        explanations: one or several; a mapping holds several methods' explanations of the same images, which are shown
            side by side.
        path: of the file, with the ending .html.
        photos: the originals, one for each image over all explanations, None for one that is not there; None takes the
            explanations' own.
        title: the heading.
        note: more of the line below it.
        truths: the right class of each image, by name, over all explanations; "" where it is not known. Answers that
            are others are marked.
        answers: what the model says of each image, by name. None is the class that its outputs rank first, or, without
            outputs, what is explained.
        chances: for each image the p-value of `Explanation.check`; of several methods by their names.
        groups: maps that several images share, such as means, by their captions, under headings. None makes the mean
            map of each class that several images have.
        audit: facts to be told below: model, weights' hash, versions. They are also written beside the page, as .json.

    Returns:
        The path.

    Raises:
        InputError: for no explanation, another ending, or truths, answers and chances that are not one for each image.
    """
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise InputError("a report is a page.", got=repr(path.name), expected="a file name that ends in .html")
    one = isinstance(explanations, Mapping) or not isinstance(explanations, Iterable)  # an explanation is a sequence
    given: list[Any] = [explanations] if one else list(explanations)  # type: ignore[arg-type]
    several = [entry if isinstance(entry, Mapping) else {entry.method: entry} for entry in given]
    images = sum(len(next(iter(methods.values()))) for methods in several if methods)
    if not images:
        raise InputError("there is nothing to report.", got="no explanation")
    by_method = chances if isinstance(chances, Mapping) else {"": chances}
    told = {"truths": truths, "answers": answers, **{f"chances {name}".strip(): row for name, row in by_method.items()}}
    for name, values in told.items():
        if values is not None and len(values) != images:
            raise InputError(f"{name} are one for each image.", got=len(values), expected=images)
    cards: list[_Card] = []
    start = 0
    for methods in several:
        first = next(iter(methods.values()))
        here = slice(start, start := start + len(first))
        own = None if photos is None else listed(photos, images, len(first.size))[here]  # type: ignore[arg-type]
        worth = {name or next(iter(methods)): row[here] for name, row in by_method.items() if row is not None}
        right, said = (None if row is None else row[here] for row in (truths, answers))
        cards += _cards(methods, own, right, said, worth)
    page = Template((files("seewhy.render") / "report.html").read_text()).substitute(
        title=escape(title),
        lead=escape(", ".join(filter(None, (_lead(cards, images), note)))),
        width=f"{170 * len(cards[0].pictures)}px",
        classes="".join(f"<option>{escape(about)}</option>" for about in sorted({card.about for card in cards})),
        cards="\n".join(_drawn(card, number) for number, card in enumerate(cards)),
        means="\n".join(_group(*entry) for entry in (_means(cards) if groups is None else groups).items()),
        audit=f'<h2>Audit</h2>\n<div class="audit">{_table(audit)}</div>' if audit else "",
    )
    texts = {path: page} | (
        {path.with_suffix(".json"): json.dumps(audit, indent=2, default=str) + "\n"} if audit else {}
    )
    with ExitStack() as stack:  # all of them, or none
        for place, text in texts.items():
            stack.enter_context(written_whole(place)).write_text(text, encoding="utf-8")
    return path


def _cards(
    methods: Mapping[str, Explanation],
    photos: Sequence[Photo | None] | None,
    truths: Sequence[str] | None,
    answers: Sequence[str] | None,
    chances: Mapping[str, Sequence[float | None]],
) -> list[_Card]:
    drawn = {name: _drawings(explanation, photos) for name, explanation in methods.items()}
    first = next(iter(methods.values()))
    cards = []
    for number, drawing in enumerate(next(iter(drawn.values()))):
        image, target = drawing.image, drawing.target
        pictures = [] if drawing.photo is None else [("photograph", Image.fromarray(drawing.photo))]
        worth = {name: p for name, row in chances.items() if (p := row[image]) is not None}
        for name, every in drawn.items():
            pictures.append((f"{name}, p = {worth[name]:.2f}" if name in worth else name, _picture(every[number])))
        facts = [("layers", ", ".join(first.layers)), ("why there", first.note), ("map", drawing.blank)]
        about = first.name(image, target)
        cards.append(
            _Card(
                name=Path(first.files[image]).name if first.files else f"image {image}",
                about=about,
                answer=_answer(first, image) or about if answers is None else answers[image],
                truth=truths[image] if truths else "",
                score=_of(first.scores, image, target),
                probability=None if first.probabilities is None else _of(first.probabilities, image, target),
                chance=max(worth.values(), default=None),
                rows=tuple((name, text) for name, text in facts if text),
                pictures=tuple((caption, _small(picture)) for caption, picture in pictures),
                heat=drawing.heat,
            )
        )
    return cards


def _drawings(explanation: Explanation, photos: Sequence[Photo | None] | None) -> list[Drawing]:
    """The maps over the photographs that are there, and the others alone."""
    if photos is None or None not in photos:
        return list(drawings(explanation, photos))  # type: ignore[arg-type]  # None of them is None
    found: list[Drawing] = []
    for image, photo in enumerate(photos):
        own = dataclasses.replace(explanation[image], photos=None)
        found += [drawn._replace(image=image) for drawn in drawings(own, None if photo is None else [photo])]
    return found


def _answer(explanation: Explanation, image: int) -> str:
    """The class that the model's outputs rank first; "" where they are no class scores, or not there."""
    try:
        return explanation[image].top(1)[0][0][0]
    except SeewhyError:
        return ""


def _of(values: Tensor, image: int, target: int | None) -> float:
    return float(values[image] if target is None else values[image, target])


def _picture(drawing: Drawing) -> Image.Image:
    """The map over its photograph, or alone where there is none."""
    if drawing.photo is None:
        return heat_image(drawing.heat, default_colormap("per_image"))
    return painted(drawing, colormap=default_colormap("per_image"), alpha=0.5)


def _lead(cards: Sequence[_Card], images: int) -> str:
    parts = [f"{images} image{'s' * (images != 1)}"]
    if any(card.truth for card in cards):
        parts.append(f"{sum(card.wrong for card in cards)} wrong")
    if any(card.chance is not None for card in cards):
        parts.append(f"{sum((card.chance or 0) > 0.05 for card in cards)} not better than chance")
    return ", ".join(parts)


def _drawn(card: _Card, number: int) -> str:
    facts = [("explained", card.about)]
    facts += [("answer", card.answer)] if card.answer != card.about else []
    facts += [("truth", card.truth)] if card.truth else []
    facts += [("score", f"{card.score:.3f}")]
    facts += [] if card.probability is None else [("probability", f"{card.probability:.1%}")]
    facts += [] if card.chance is None else [("chance does as well", f"p = {card.chance:.2f}")]
    facts += card.rows
    data = {
        "number": number, "name": card.name, "about": card.about, "wrong": int(card.wrong), "score": card.score,
        "chance": "" if card.chance is None else card.chance,
    }  # fmt: skip
    attributes = " ".join(f'data-{key}="{escape(str(value))}"' for key, value in data.items())
    pictures = "".join(
        f'<figure><img src="{_inline(picture)}" alt="{escape(f"{caption} of {card.name}")}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, picture in card.pictures
    )
    texts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    kind = "card wrong" if card.wrong else "card"
    return (
        f'<article class="{kind}" {attributes}><div class="pictures">{pictures}</div>'
        f"<dl><dt>image</dt><dd>{escape(card.name)}</dd>{texts}</dl></article>"
    )


def _means(cards: Sequence[_Card]) -> Mapping[str, Mapping[str, Tensor]]:
    """The mean map of every class that several images have."""
    by_class: dict[str, list[Tensor]] = {}
    for card in cards:
        resized = F.interpolate(card.heat[None, None].float(), (_MEAN, _MEAN), mode="bilinear", antialias=True)
        by_class.setdefault(card.about, []).append(resized[0, 0])
    means = {
        f"{about}, {len(maps)} images": torch.stack(maps).mean(0)
        for about, maps in sorted(by_class.items())
        if len(maps) > 1
    }
    return {"Mean maps": means} if means else {}


def _group(heading: str, maps: Mapping[str, Tensor]) -> str:
    """Maps under a heading, each scaled by its own largest value."""
    figures = "".join(
        f'<figure><img src="{_inline(_large(heat))}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption>'
        "</figure>"
        for caption, heat in maps.items()
    )
    return f'<h2>{escape(heading)}</h2>\n<section class="maps">{figures}</section>'


def _large(heat: Float[Tensor, "h w"]) -> Image.Image:
    heat = F.interpolate(heat[None, None].float(), scale_factor=max(1, _MEAN / max(heat.shape)), mode="bilinear")[0, 0]
    return heat_image(heat / heat.max().clamp(min=1e-12), default_colormap("per_image"))


def _table(facts: Mapping[str, Any]) -> str:
    """Facts as a table, with tables in it for those that have parts."""
    rows = "".join(f"<tr><th>{escape(str(name))}</th><td>{_value(value)}</td></tr>" for name, value in facts.items())
    return f"<table>{rows}</table>"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return _table(value)
    if isinstance(value, list | tuple) and value and all(isinstance(row, Mapping) for row in value):
        heads = dict.fromkeys(name for row in value for name in row)
        lines = [f"<th>{escape(str(name))}</th>" for name in heads]
        lines = ["".join(lines), *("".join(f"<td>{_value(row.get(name, ''))}</td>" for name in heads) for row in value)]
        return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return f"{value:.4g}" if isinstance(value, float) else _breakable(str(value))


def _breakable(text: str) -> str:
    """Text in which what is long and has no spaces, a digest or a path, may go on in the next line."""
    return re.sub(r"\S+", lambda word: "<wbr>".join(map(escape, re.findall(".{1,24}", word[0]))), text)


def _small(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGB")
    picture.thumbnail((_SIDE, _SIDE))
    return picture


def _inline(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.convert("RGB").save(file, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
