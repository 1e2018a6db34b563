"""What the site has beside the pages that lie here.

Tutorials run as they are built, a picture of every method's map for the gallery and the cards, the reference, the
measured tables, the changelog, llms.txt. mkdocs calls these functions; nothing is written into the source tree.
"""

from __future__ import annotations

import os
import posixpath
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
sys.path[:0] = map(str, (ROOT, ROOT / "docs", ROOT / "docs" / "methods"))  # tests: scenes, and models that know them
import make_cards  # noqa: E402
import make_maps  # noqa: E402
import notebooks  # noqa: E402

from seewhy import methods  # noqa: E402

_GALLERY = """---
hide: [toc]
---

# Gallery

"Tiger cat" in the same photograph, by each method, on the network that `seewhy.load()` brings. What cannot explain that
has a scene, and a small model that has learnt it: methods of attention a ViT, `d_rise` a detector, `tam` and `eagle` a
language model. So have `vit_cx` and `poly_cam`, which would take minutes. All were drawn as this page was built. The
options below a picture are what was asked beside the defaults, so that it takes seconds. A picture that looks well need
not be right: the [cards](cards.md) say how well each method lies on the evidence, where that is known.
"""
REFERENCE = {
    "explain": ("Explaining", ["seewhy.explainer.explain", "seewhy.explainer.Explainer", "seewhy.explainer.concepts"]),
    "results": ("Results", ["seewhy.results"]),
    "targets": ("Targets", ["seewhy.targets"]),
    "methods": ("Methods", ["seewhy.methods"]),
    "evaluation": ("Evaluating and choosing", ["seewhy.evaluation"]),
    "metrics": ("Metrics", ["seewhy.metrics"]),
    "render": ("Pictures", ["seewhy.render"]),
    "hooks": ("Hooks", ["seewhy.hooks"]),
    "inspect": ("Looking into a model", ["seewhy.inspect"]),
    "exporting": ("Exporting", ["seewhy.exporting"]),
    "jobs": ("Whole datasets", ["seewhy.jobs.running", "seewhy.jobs.table", "seewhy.jobs.analysis"]),
    "integrations": ("Training", ["seewhy.integrations"]),
    "models": ("Models", ["seewhy.models"]),
    "errors": ("Errors", ["seewhy.errors"]),
}
RUN = os.environ.get("SEEWHY_DOCS_RUN", "1") != "0"  # 0: tutorials without outputs, no maps, for a quick look
_TABLES = re.compile(r"\]\((?:\.\./)*benchmarks/results/")


def on_config(config: Any) -> Any:
    """Put the generated pages into the navigation."""
    config.nav += [
        {"Reference": [f"reference/{name}.md" for name in REFERENCE]},
        {"Tables": [f"tables/{path.name}" for path in _tables()]},
        {"Changelog": "changelog.md"},
    ]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    generated = {f"reference/{name}.md": _reference(title, names) for name, (title, names) in REFERENCE.items()}
    generated |= {f"tables/{path.name}": path.read_text() for path in _tables()}
    generated["changelog.md"] = (ROOT / "CHANGELOG.md").read_text()
    generated["methods/gallery.md"] = _gallery()
    pictures = {_place(name): make_maps.drawn(name) for name in _maps()}
    for path in notebooks.TUTORIALS.glob("*.ipynb"):
        text, drawn = notebooks.page(path) if RUN else notebooks.plain(path)
        generated[f"tutorials/{path.stem}.md"] = text
        pictures |= {f"tutorials/{name}": content for name, content in drawn.items()}
    generated["llms.txt"] = _summary(files, generated)
    for place, content in (generated | pictures).items():
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Cards with their pictures; links to the measured tables, which lie outside `docs`, lead to their copies here."""
    if page.file.src_uri == "methods/cards.md":
        markdown = make_cards.cards({name: _shown(name) for name in _maps()})
    return _TABLES.sub(f"]({'../' * page.file.src_uri.count('/')}tables/", markdown)


def _maps() -> list[str]:
    """The methods whose maps are drawn."""
    return list(methods.available()) if RUN else []


def _place(name: str) -> str:
    return f"methods/maps/{name}.jpg"


def _shown(name: str) -> str:
    """A method's map as Markdown, with what was asked beside the defaults."""
    asked = f"\n\n*Drawn with {told}.*" if (told := make_maps.told(name)) else ""
    return f"![The map of {name}](maps/{name}.jpg){asked}"


def _tables() -> list[Path]:
    return sorted((ROOT / "benchmarks" / "results").glob("*.md"))


def _gallery() -> str:
    """Every method's map of the same photograph."""
    cells = "\n".join(
        textwrap.indent(f"{_shown(name)}\n\n[`{name}`](cards.md#{name})\n", "    ").replace("    ", "-   ", 1)
        for name in _maps()
    )
    return f'{_GALLERY}\n<div class="grid cards" markdown>\n\n{cells}\n</div>\n'


def _reference(title: str, names: list[str]) -> str:
    headed = "\n    options:\n      show_root_heading: true\n      heading_level: 2"
    return "\n\n".join([f"# {title}", *(f"::: {name}{headed if len(names) > 1 else ''}" for name in names)])


def _summary(files: Files, generated: dict[str, str]) -> str:
    """llms.txt: every page with its title, for readers that are programs."""
    pages = {file.src_uri: file.content_string for file in files.documentation_pages()} | generated
    lines = [
        f"- [{_title(text)}]({posixpath.splitext(place)[0]}/)"
        for place, text in sorted(pages.items())
        if place.endswith(".md")
    ]
    return "\n".join(["# seewhy", "", "> Which pixels of an input spoke for which output.", "", *lines, ""])


def _title(text: str) -> str:
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    return found[1] if found else "seewhy"
