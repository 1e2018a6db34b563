"""Draw the pictures of these pages and of the README.

PYTHONPATH=src python docs/make_pictures.py              # all
PYTHONPATH=src python docs/make_pictures.py signal       # one
PYTHONPATH=src python docs/make_pictures.py studio       # a screenshot; needs gradio, playwright, chromium
"""

from __future__ import annotations

import re
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

import seewhy
from seewhy import samples

DOCS = Path(__file__).parent
OUT = DOCS / "images"
PHOTOS = [samples.path("chelsea.png"), samples.path("coffee.png")]


def chelsea() -> None:
    """The figure that the README begins with."""
    drawn = seewhy.explain(seewhy.load(), PHOTOS[0]).figure()
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        drawn.savefig(file.name, dpi=100)
        Image.open(file.name).convert("RGB").save(OUT / "chelsea.jpg", quality=88)


def sheet() -> None:
    """Two photographs by three methods."""
    found = seewhy.explain(seewhy.load(), PHOTOS, method=["grad_cam", "layer_cam", "eigen_cam"])
    seewhy.render.sheet(found, contours=[0.5]).savefig(OUT / "sheet.png", dpi=150)


def cells() -> None:
    """A map as its places."""
    drawn = seewhy.explain(seewhy.load(), PHOTOS[0]).figure(interpolation="nearest")
    drawn.savefig(OUT / "cells.png", dpi=80)


def signal() -> None:
    """The figure of signals.md."""
    names = _names_of("signals.md")
    names["found"].figure(names["signal"]).savefig(OUT / "signal.png", dpi=100)


def volume() -> None:
    """The figure of volumes.md."""
    names = _names_of("volumes.md")
    names["found"].figure(names["scan"], planes=True).savefig(OUT / "volume.png", dpi=80)


def studio() -> None:
    """The studio with two maps of a photograph, and what the check says of them."""
    from seewhy.apps.studio import serve

    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = int(trial.getsockname()[1])
    application = serve([seewhy.load()], port=port, wait=False)
    try:
        with _browser(1400, 1000) as page:
            page.goto(f"http://127.0.0.1:{port}/")
            page.locator("#photo input[type=file]").set_input_files(str(PHOTOS[0]))
            page.locator("#likely").get_by_text("tiger cat").first.wait_for()
            page.locator("#run").click()
            page.locator("#gallery").get_by_text("layer_cam at").first.wait_for()
            page.locator("#check").click()
            page.locator("#verdicts").get_by_text("p = ").first.wait_for()
            page.wait_for_timeout(500)
            _keep(page, "studio")
    finally:
        application.close()


def report() -> None:
    """A page of two photographs by two methods."""
    model = seewhy.load()  # kept for the check
    found = seewhy.explain(model, PHOTOS, method=["grad_cam", "layer_cam"])
    chances = {name: one.check().p_value.tolist() for name, one in found.items()}
    with tempfile.TemporaryDirectory() as folder, _browser(1000, 420) as page:
        path = seewhy.render.report(found, Path(folder) / "why.html", chances=chances, truths=["tabby", "espresso"])
        page.goto(f"file://{path}")
        _keep(page, "report")


def _keep(page: Any, name: str) -> None:
    """The whole page as a small file."""
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        page.screenshot(path=file.name, full_page=True)
        shown = Image.open(file.name).convert("RGB")
    shown.thumbnail((1000, 2000), Image.Resampling.LANCZOS)
    shown.save(OUT / f"{name}.jpg", quality=82, optimize=True)


def _browser(width: int, height: int) -> Any:
    """A page of Debian's Chromium, to be used in `with`."""
    from contextlib import contextmanager

    from playwright.sync_api import sync_playwright

    @contextmanager
    def opened() -> Any:
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(120_000)
            yield page
            browser.close()

    return opened()


def _names_of(page: str) -> dict[str, Any]:
    """What the first block of code on a page leaves."""
    block = re.search(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    assert block is not None
    names: dict[str, Any] = {}
    exec(block[1], names)
    return names


PICTURES: dict[str, Callable[[], None]] = {
    each.__name__: each for each in (chelsea, sheet, cells, signal, volume, studio, report)
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name]()
        print(name, flush=True)
