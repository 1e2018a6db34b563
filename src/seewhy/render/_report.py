"""One HTML file of many explanations: photographs and maps to sort, filter and print, without outside requests."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from seewhy.errors import InputError
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
    truth: str  # "" where it is not known
    score: float
    probability: float | None
    chance: float | None  # p-value of the check
    rows: tuple[tuple[str, str], ...]  # further facts, name and text
    pictures: tuple[tuple[str, Image.Image], ...]  # caption and picture
    heat: Float[Tensor, "H W"]  # of the first method

    @property
    def wrong(self) -> bool:
        return bool(self.truth) and self.truth != self.about


def report(
    explanations: Explanation | Mapping[str, Explanation] | Iterable[Explanation | Mapping[str, Explanation]],
    path: str | Path,
    *,
    photos: Photo | Sequence[Photo] | None = None,
    title: str = "Why did the model say that?",
    truths: Sequence[str] | None = None,
    chances: Sequence[float] | None = None,
    audit: Mapping[str, Any] | None = None,
) -> Path:
    """Write a page of explanations: one self-contained HTML file.

    Args:
        explanations: one or several; a mapping holds several methods' explanations of the same images, which are shown
            side by side.
        path: of the file, with the ending .html.
        photos: the originals, one for each image over all explanations; None takes the explanations' own.
        title: the heading.
        truths: the right class of each image, by name, over all explanations. Answers that are others are marked.
        chances: for each image the p-value of `Explanation.check`.
        audit: facts to be told below: model, weights' hash, versions. They are also written beside the page, as .json.

    Returns:
        The path.

    Raises:
        InputError: for no explanation, another ending, or truths and chances that are not one for each image.
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
    for name, values in (("truths", truths), ("chances", chances)):
        if values is not None and len(values) != images:
            raise InputError(f"{name} are one for each image.", got=len(values), expected=images)
    cards: list[_Card] = []
    start = 0
    for methods in several:
        first = next(iter(methods.values()))
        here = slice(start, start := start + len(first))
        own = None if photos is None else listed(photos, images, len(first.size))[here]
        worth: list[float | None] = [None] * len(first) if chances is None else list(chances[here])
        cards += _cards(methods, own, list(truths or [""] * images)[here], worth)
    page = Template((files("seewhy.render") / "report.html").read_text()).substitute(
        title=escape(title),
        lead=escape(_lead(cards, images)),
        width=f"{170 * len(cards[0].pictures)}px",
        classes="".join(f"<option>{escape(about)}</option>" for about in sorted({card.about for card in cards})),
        cards="\n".join(_drawn(card, number) for number, card in enumerate(cards)),
        means=_means(cards),
        audit=_audited(audit or {}),
    )
    with written_whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    if audit:
        with written_whole(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(audit, indent=2, default=str) + "\n", encoding="utf-8")
    return path


def _cards(
    methods: Mapping[str, Explanation],
    photos: Sequence[Photo] | None,
    truths: Sequence[str],
    chances: Sequence[float | None],
) -> list[_Card]:
    drawn = {name: list(drawings(explanation, photos)) for name, explanation in methods.items()}
    first = next(iter(methods.values()))
    cards = []
    for number, drawing in enumerate(next(iter(drawn.values()))):
        image, target = drawing.image, drawing.target
        pictures = [] if drawing.photo is None else [("photograph", Image.fromarray(drawing.photo))]
        pictures += [(name, _picture(every[number])) for name, every in drawn.items()]
        facts = [("layers", ", ".join(first.layers)), ("why there", first.note), ("map", drawing.blank)]
        cards.append(
            _Card(
                name=Path(first.files[image]).name if first.files else f"image {image}",
                about=first.name(image, target),
                truth=truths[image],
                score=_of(first.scores, image, target),
                probability=None if first.probabilities is None else _of(first.probabilities, image, target),
                chance=chances[image],
                rows=tuple((name, text) for name, text in facts if text),
                pictures=tuple((caption, _small(picture)) for caption, picture in pictures),
                heat=drawing.heat,
            )
        )
    return cards


def _of(values: Tensor, image: int, target: int | None) -> float:
    return float(values[image] if target is None else values[image, target])


def _picture(drawing: Drawing) -> Image.Image:
    """The map over its photograph, or alone where there is none."""
    if drawing.photo is None:
        return heat_image(drawing.heat, default_colormap("per_image"))
    return painted(drawing, colormap=default_colormap("per_image"), alpha=0.5, mode="blend", resize="bilinear")


def _lead(cards: Sequence[_Card], images: int) -> str:
    parts = [f"{images} image{'s' * (images != 1)}"]
    if any(card.truth for card in cards):
        parts.append(f"{sum(card.wrong for card in cards)} wrong")
    if any(card.chance is not None for card in cards):
        parts.append(f"{sum((card.chance or 0) > 0.05 for card in cards)} not better than chance")
    return ", ".join(parts)


def _drawn(card: _Card, number: int) -> str:
    facts = [("explained", card.about)]
    facts += [("truth", card.truth)] if card.truth else []
    facts += [("score", f"{card.score:.3f}")]
    facts += [] if card.probability is None else [("probability", f"{card.probability:.1%}")]
    facts += [] if card.chance is None else [("better than chance", f"p = {card.chance:.2f}")]
    facts += card.rows
    data = {
        "number": number, "name": card.name, "about": card.about, "wrong": int(card.wrong), "score": card.score,
        "chance": "" if card.chance is None else card.chance,
    }  # fmt: skip
    attributes = " ".join(f'data-{key}="{escape(str(value))}"' for key, value in data.items())
    pictures = "".join(
        f'<figure><img src="{_inline(picture)}" alt="{escape(f"{caption} of {card.name}")}" loading="lazy">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, picture in card.pictures
    )
    texts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    kind = "card wrong" if card.wrong else "card"
    return (
        f'<article class="{kind}" {attributes}><div class="pictures">{pictures}</div>'
        f"<dl><dt>image</dt><dd>{escape(card.name)}</dd>{texts}</dl></article>"
    )


def _means(cards: Sequence[_Card]) -> str:
    """The mean map of every class that several images have."""
    by_class: dict[str, list[Tensor]] = {}
    for card in cards:
        resized = F.interpolate(card.heat[None, None].float(), (_MEAN, _MEAN), mode="bilinear", antialias=True)
        by_class.setdefault(card.about, []).append(resized[0, 0])
    figures = "".join(
        f'<article class="card"><div class="pictures"><figure><img src="{_inline(_colored(maps))}" '
        f'alt="mean map of {escape(about)}"><figcaption>{escape(about)}, {len(maps)} images</figcaption></figure></div>'
        "</article>"
        for about, maps in sorted(by_class.items())
        if len(maps) > 1
    )
    return f'<h2>Mean maps</h2>\n<section class="cards">{figures}</section>' if figures else ""


def _colored(maps: Sequence[Tensor]) -> Image.Image:
    mean = sum(maps[1:], maps[0]) / len(maps)
    return heat_image(mean / mean.max().clamp(min=1e-12), default_colormap("per_image"))


def _audited(audit: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>" for name, value in audit.items()
    )
    return f"<h2>Audit</h2>\n<table>{rows}</table>" if rows else ""


def _small(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGB")
    picture.thumbnail((_SIDE, _SIDE))
    return picture


def _inline(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.convert("RGB").save(file, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
