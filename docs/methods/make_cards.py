"""Write cards.md: what each method shows, what it costs, and against what it was checked.

python docs/methods/make_cards.py
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache, partial
from pathlib import Path

from seewhy import methods
from seewhy.methods import Method
from seewhy.methods.cam import combined

_HEAD = """# A card for each method

Written by `python docs/methods/make_cards.py` from the registry, `seewhy.methods.available()`. "Checked" says against
what a method was compared, and with what difference: its paper's formula, its authors' code, or another library.
Which method to take when is told in [methods.md](../methods.md).

"On the evidence" is measured on scenes whose evidence is known: the average precision of the heatmap against the true
marks, with the method's own layers, over the [models of the table](../../benchmarks/results/truth.md) that it can
explain. Chance has 0.07. On the site that `make docs` builds each card has the method's map of one photograph, or of a
scene where the method cannot explain that.
"""
_DOCS = Path(__file__).parent.parent
_NAMES = {"plain": "plain CNN", "resnet": "ResNet", "mobilenet": "MobileNetV2", "convnext": "ConvNeXt", "vit": "ViT"}
_PAPERS = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}
_MADE = {"finer_": combined.finer, "refine_": combined.refine, "d_": combined._d_rise}  # of other methods
_FUSED = {
    "mean": "their mean",
    "max": "their maximum",
    "product": "their product",
    "local_product": "Poly-CAM's product",
}


def cards(pictures: Mapping[str, str] | None = None) -> str:
    """All cards, in the order of the registry, with pictures by the names of their methods."""
    shown = pictures or {}
    return "\n".join([_HEAD, *(card(method, shown.get(name, "")) for name, method in methods.available().items())])


def card(method: Method, picture: str = "") -> str:
    """The card of one method, as Markdown."""
    rows = {
        "Cost": method.cost,
        "Looks at": _looks_at(method),
        "Target": "any" if method.scored else "none: the map does not depend on the score",
        "Options": ", ".join(f"`{name}={_shown(value)}`" for name, value in method.options.items()) or "none",
        "Needs": ", ".join(f"`{need}`" for need in method.needs),
        "Checked": method.checked,
        "On the evidence": _truth(method.name),
    }
    heads = [f"| Source | {_linked(method.source)} |", "|---|---|"]
    table = "\n".join([*heads, *(f"| {name} | {text} |" for name, text in rows.items())])
    parts = filter(None, (f"## {method.name}", _described(method), picture, table))
    return "\n\n".join(parts) + "\n"


def _linked(source: str) -> str:
    """A paper's number as a link to it."""
    kind, _, number = source.partition(":")
    return f"[{source}]({_PAPERS[kind]}{number})" if kind in _PAPERS else source


def _truth(name: str) -> str:
    """The average precision on each model where it was measured."""
    found = [
        f"{label} {row['ap']:.2f}"
        for model, label in _NAMES.items()
        for row in _measured()
        if (row["model"], row["method"]) == (model, name) and "ap" in row
    ]
    return ", ".join(found) or "not measured"


@cache
def _measured() -> list[dict[str, object]]:
    """The rows of seewhy's methods at their own layers."""
    read: Iterable[dict[str, object]] = json.loads((_DOCS.parent / "benchmarks/results/truth.json").read_text())["rows"]
    return [row for row in read if (row["library"], row["layer"]) == ("seewhy", "default")]


def _looks_at(method: Method) -> str:
    if method.attends:
        return "all attention over the image's tokens"
    if not method.layered:
        return "the input"
    if method.staged:
        return f"the last layer of every resolution, fused by {_FUSED[method.fuse]}"
    return "one layer, the last with space unless told"


def _described(method: Method) -> str:
    """The function's docstring: its text, and the options as a list."""
    function = method.function.func if isinstance(method.function, partial) else method.function
    text, _, rest = inspect.cleandoc(function.__doc__ or "").partition("\nArgs:\n")
    if made := next((_MADE[start] for start in _MADE if method.name.startswith(start)), None):
        text = f"{inspect.cleandoc(made.__doc__ or '')} Here it is [`{function.__name__}`](#{function.__name__})."
    options = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", rest.partition("\n\n")[0], re.MULTILINE)
    listed = [f"- `{name}`: {' '.join(told.split())}" for name, told in options]
    return text.strip() + ("\n\n" + "\n".join(listed) if listed else "")


def _shown(value: object) -> str:
    return value.__name__ if inspect.isfunction(value) else repr(value)


if __name__ == "__main__":
    (Path(__file__).parent / "cards.md").write_text(cards())
