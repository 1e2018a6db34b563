"""The words of an answer with their maps: a strip of pictures, and a page that shows the map of the word pointed at."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from seewhy.errors import InputError
from seewhy.images.photo import Photo
from seewhy.render._colormap import DEFAULT
from seewhy.render._layout import headed
from seewhy.render._overlay import Drawing, drawings, heat_image, painted

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from seewhy.results.explanation import Explanation

_PANEL = 1.9  # inches
_ACROSS = 6  # panels in a row
_LONGEST = 512  # pixels: the longer side of a picture on a page

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body {{ font: 1.1rem/1.7 system-ui, sans-serif; margin: 2rem auto; max-width: 46rem; padding: 0 1rem; color: #222 }}
.picture {{ display: grid; width: min(100%, {width}px) }}
.picture img {{ grid-area: 1 / 1; width: 100%; height: auto; visibility: hidden }}
.picture img.shown {{ visibility: visible }}
.word {{ background: none; border: 0; border-bottom: 2px solid #bbb; border-radius: 0; cursor: pointer; font: inherit;
  margin: 0 .15rem; padding: 0 .1rem }}
.word:hover, .word:focus, .word[aria-pressed=true] {{ background: #ffe9a8; border-color: #d08700; outline: none }}
small {{ color: #666 }}
</style></head><body>
<div class="picture">{pictures}</div>
<p>{words}</p><small id="told">{told}</small>
<script>
const words = document.querySelectorAll(".word"), pictures = document.querySelectorAll(".picture img");
const told = document.getElementById("told"), before = told.textContent;
let kept = 0;
const show = number => {{
  pictures.forEach((picture, at) => picture.classList.toggle("shown", at === number));
  told.textContent = number ? words[number - 1].title : before;
}};
words.forEach((word, at) => {{
  word.onmouseenter = word.onfocus = () => show(at + 1);
  word.onmouseleave = word.onblur = () => show(kept);
  word.onclick = () => {{
    kept = kept === at + 1 ? 0 : at + 1;
    words.forEach((other, number) => other.setAttribute("aria-pressed", number + 1 === kept));
    show(kept);
  }};
}});
</script></body></html>
"""


def strip(
    explanation: Explanation,
    photos: Photo | Sequence[Photo] | None = None,
    *,
    colormap: str | Colormap = DEFAULT,
    alpha: float = 0.5,
    max_words: int = 60,
    **options: Any,
) -> Figure:
    """The maps of an answer's words, in reading order, each under its word and probability.

    Args:
        explanation: of several targets for each image.
        photos: as for `overlays`.
        colormap: a matplotlib colormap or the name of one.
        alpha: the share of the colours, from 0 to 1; the rest is photograph.
        max_words: how many words of an image to draw.
        **options: scaling, target, slice_index, interpolation and frame, as for `overlays`.

    Returns:
        A matplotlib figure that a notebook shows.

    Raises:
        InputError: where there is nothing to draw, or one of the arguments does not fit the explanation.
    """
    from seewhy.render._canvas import Canvas

    every = _by_image(explanation, photos, max_words, **options)
    rows = sum(math.ceil(len(drawn) / _ACROSS) for drawn in every)
    across = min(_ACROSS, max(len(drawn) for drawn in every))
    height, width = every[0][0].heat.shape if every[0][0].photo is None else every[0][0].photo.shape[:2]
    panel = _PANEL * min(max(height / width, 0.4), 2)
    drawing = Canvas((_PANEL * across, (panel + 0.45) * rows + 0.4), "constrained")
    grid = drawing.subplots(rows, across, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    first = 0
    for drawn in every:
        for number, one in enumerate(drawn):
            axes = grid[first + number // _ACROSS, number % _ACROSS]
            axes.imshow(_picture(one, colormap, alpha))
            axes.set_title(_told(explanation, one), fontsize=9, parse_math=False)
        first += math.ceil(len(drawn) / _ACROSS)
    headed(drawing, explanation)
    return drawing


def words(
    explanation: Explanation,
    photos: Photo | Sequence[Photo] | None = None,
    *,
    image: int = 0,
    colormap: str | Colormap = DEFAULT,
    alpha: float = 0.5,
    **options: Any,
) -> str:
    """A page of HTML with nothing outside it: the answer, and the map of the word that is pointed at.

    Args:
        explanation: of several targets for each image.
        photos: as for `overlays`.
        image: which image of the explanation.
        colormap: a matplotlib colormap or the name of one.
        alpha: the share of the colours, from 0 to 1; the rest is photograph.
        **options: scaling, target, slice_index, interpolation and frame, as for `overlays`.

    Returns:
        The page.

    Raises:
        InputError: where there is nothing to draw, or one of the arguments does not fit the explanation.
    """
    drawn = _by_image(explanation, photos, None, **options)[image]
    plain = Image.new("RGB", (drawn[0].heat.shape[1], drawn[0].heat.shape[0]), "white")
    pictures = [plain if drawn[0].photo is None else Image.fromarray(drawn[0].photo)]
    pictures += [_picture(one, colormap, alpha) for one in drawn]
    names = ["the picture", *(explanation.name(one.image, one.target) for one in drawn)]
    shown = (
        f'<img src="{_data(picture)}" alt="{html.escape(name)}"{" class=shown" if not at else ""}>'
        for at, (picture, name) in enumerate(zip(pictures, names, strict=True))
    )
    spoken = (
        f'<button class="word" title="{html.escape(_told(explanation, one))}">{html.escape(name)}</button>'
        for one, name in zip(drawn, names[1:], strict=True)
    )
    return _PAGE.format(
        title=html.escape(" ".join(names[1:])),
        width=min(_LONGEST, max(pictures[1].size) * 8),
        pictures="".join(shown),
        words=" ".join(spoken),
        told=html.escape(f"{explanation.method} at {', '.join(explanation.layers)}: point at a word"),
    )


def _by_image(explanation: Explanation, photos: Any, most: int | None, **options: Any) -> list[list[Drawing]]:
    """The drawings of each image."""
    if explanation.scores.ndim != 2 or not explanation.scores.numel():
        raise InputError(
            "there are no words to show.",
            got=f"scores of shape {tuple(explanation.scores.shape)}",
            expected="an explanation of several targets for each image",
            do="seewhy.explain(model, processor_output, seewhy.Token())",
        )
    found: list[list[Drawing]] = [[] for _ in range(len(explanation))]
    for drawn in drawings(explanation, photos, **options):
        if most is None or len(found[drawn.image]) < most:
            found[drawn.image].append(drawn)
    return found


def _picture(drawn: Drawing, colormap: str | Colormap, alpha: float) -> Image.Image:
    """The overlay; the map alone where there is no photograph."""
    if drawn.photo is not None:
        return painted(drawn, colormap=colormap, alpha=alpha)
    return heat_image(drawn.heat, colormap)


def _told(explanation: Explanation, drawn: Drawing) -> str:
    """The word and its probability."""
    name = explanation.name(drawn.image, drawn.target)
    if explanation.probabilities is None:
        return name
    return f"{name} ({float(torch.as_tensor(explanation.probabilities)[drawn.image, drawn.target]):.2f})"


def _data(picture: Image.Image) -> str:
    """A picture as an address that holds it."""
    picture.thumbnail((_LONGEST, _LONGEST))
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
