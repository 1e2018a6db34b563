"""The studio: what it does without a browser, and driven in a real one where Chromium is installed."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from seewhy import samples
from seewhy.apps.studio import _desk as desks
from seewhy.apps.studio import _page, serve
from seewhy.apps.studio._desk import AUTO, Desk, Wish
from seewhy.errors import InputError, SeewhyError
from seewhy.images.preprocess import Preprocess
from seewhy.models import Loaded
from tests.truth import scenes
from tests.truth.models import CASES

PLAIN = Preprocess(size=(64, 64), resize=64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def desk() -> Desk:
    """A small ResNet that was trained on scenes of marks, taken for a model of photographs."""
    case = CASES["resnet"]
    return Desk(Loaded(case.model().eval(), PLAIN, tuple(f"mark {number}" for number in range(6)), "marks"))


class Halves(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 2, 1, bias=False)
        torch.nn.init.ones_(self.conv.weight)  # what is bright speaks for either class
        self.register_buffer("sides", torch.linspace(-5, 5, 8))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores = torch.nn.functional.avg_pool2d(self.conv(images), 8)
        return scores + torch.stack([-self.sides, self.sides])[None, :, None]


def segmenter() -> Loaded:
    """Sees one class in the left half of every picture, and another one in the right half."""
    return Loaded(Halves().eval(), PLAIN, ("left", "right"), "halves")


class Finds(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 1, 1, bias=False)
        torch.nn.init.ones_(self.conv.weight)  # what is bright speaks for either box

    def forward(self, images: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        boxes = torch.tensor([[4.0, 4.0, 20.0, 20.0], [30.0, 30.0, 60.0, 60.0]])
        score = self.conv(images).mean((1, 2, 3)).sigmoid()
        return [
            {"boxes": boxes, "scores": torch.stack([one, one / 2]), "labels": torch.tensor([1, 0])} for one in score
        ]


def detector() -> Loaded:
    """Finds the same two boxes in every picture."""
    return Loaded(Finds().eval(), PLAIN, ("cat", "dog"), "finds")


def words() -> Loaded:
    """A model of pictures and prompts: a prompt is the colours that it names."""
    colours = torch.eye(3)

    def embed(prompts: Sequence[str]) -> torch.Tensor:
        return torch.stack([sum(colours[at] for at, name in enumerate(("red", "green", "blue")) if name in prompt)
                            + torch.full((3,), 0.1) for prompt in prompts])  # fmt: skip

    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 3, 1, bias=False), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    with torch.no_grad():
        module[0].weight.copy_(colours[:, :, None, None])
    return Loaded(module.eval(), PLAIN, None, "words", embed)


def photo() -> Image.Image:
    pixels = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0))
    return Image.fromarray((pixels * 255).to(torch.uint8).numpy())


def test_the_desk_explains_what_it_is_asked_by_every_method() -> None:
    """The same maps as those of `seewhy.explain`."""
    at, picture = desk(), photo()
    likely, boxes = at.seen(picture)
    assert boxes == []
    inputs, _, _ = at.loaded.prepare([picture])
    with torch.no_grad():
        expected = at.loaded.module(inputs)[0].softmax(0).topk(5).values.tolist()
    assert list(likely.values()) == pytest.approx(expected, abs=1e-5)
    assert at.at(picture, (3, 3)) == ""  # it scores whole pictures
    assert list(likely.values()) == sorted(likely.values(), reverse=True)
    assert at.layers[:2] == [AUTO, "conv1"]
    found = at.explain(picture, Wish(("grad_cam", "occlusion"), "mark 2", "layer3"))
    assert list(found) == ["grad_cam", "occlusion"]
    alone = seewhy.explain(at.loaded, picture, 2, method="grad_cam", layers="layer3")
    torch.testing.assert_close(found["grad_cam"].maps, alone.maps)
    assert found["occlusion"].layers == ("input",)
    shown = desks.pictures(found, signed=False, colormap=None, alpha=0.5)
    assert [caption.split(":")[0] for _, caption in shown] == ["grad_cam at layer3", "occlusion"]
    assert all(picture.size == (64, 64) for picture, _ in shown)


def test_covering_all_of_a_picture_moves_the_score_and_covering_nothing_does_not() -> None:
    at, picture = desk(), photo()
    explanation = at.explain(picture, Wish(("grad_cam",)))["grad_cam"]
    before, same = at.without(picture, Image.new("L", picture.size, 0), explanation)
    assert before == pytest.approx(float(explanation.scores), abs=1e-4)
    assert same == pytest.approx(before, abs=1e-4)
    _, after = at.without(picture, Image.new("L", picture.size, 255), explanation)
    blurred = at.explain(picture.filter(desks.blur(picture)), Wish(("grad_cam",), str(int(explanation.index))))
    assert after == pytest.approx(float(blurred["grad_cam"].scores), abs=1e-4)


@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_files_and_checks_of_every_method(tmp_path: Path) -> None:
    at = desk()  # an explanation does not keep its model alive
    found = at.explain(photo(), Wish(("grad_cam", "layer_cam")))
    written = desks.files(found, tmp_path, colormap="gray")
    assert [path.name for path in written] == [
        *("grad_cam.png", "grad_cam.svg", "grad_cam.npz"), *("layer_cam.png", "layer_cam.svg", "layer_cam.npz"),
        "why.html",
    ]  # fmt: skip
    assert seewhy.Explanation.load(tmp_path / "layer_cam.npz").method == "layer_cam"
    rows = desks.checked(at.loaded, found)
    assert [row[0] for row in rows] == ["grad_cam", "layer_cam"]
    assert all(": p = " in row[1] for row in rows)
    one = found["grad_cam"]
    measured = seewhy.evaluate(at.loaded, list(one.photos), one.targets, methods=["grad_cam"], metrics=["insertion"])
    assert float(rows[0][2]) == pytest.approx(measured.row("grad_cam", "insertion").mean, abs=0.006)


def test_a_segmenter_says_what_it_sees_at_a_place() -> None:
    """Left of the middle class 0, right of it class 1: what a click chooses, and what is then explained."""

    at = Desk(segmenter())
    picture = photo().resize((128, 128))
    assert at.seen(picture) == ({}, [])
    assert [at.at(picture, (x, 60)) for x in (5, 50, 80, 120)] == ["left", "left", "right", "right"]
    found = at.explain(picture, Wish(("hires_cam",), "right", pixel=(120, 60)))["hires_cam"]
    heat = found.heatmap[0]
    assert float(heat[:, 48:].sum() / heat.sum()) > 0.9


def test_a_detector_lists_its_boxes() -> None:
    at = Desk(detector())
    likely, boxes = at.seen(photo())
    assert likely == {}
    assert [text.partition(",")[0] for text in boxes] == ["0: dog", "1: cat"]
    first, second = (float(text.rpartition(" ")[2]) for text in boxes)
    assert second == pytest.approx(first / 2, abs=0.01)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish(()), "no method"),
        (Wish(("grad_cam",), "zebra"), "zebra"),
        (Wish(("grad_cam",), layer="layer9"), "layer9"),
        (Wish(("attention_rollout",)), "attention"),
    ],
)
def test_a_wish_that_does_not_fit_is_told_in_words(wish: Wish, message: str) -> None:
    with pytest.raises(SeewhyError, match=message):
        desk().explain(photo(), wish)


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="cannot be listened on"):
            serve([desk().loaded], port=taken.getsockname()[1])


def test_a_photograph_of_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo().save(tmp_path / "photo.png")
    monkeypatch.setattr(_page, "MAX_PIXELS", 64 * 64)
    assert _page._opened(str(tmp_path / "photo.png")).size == (64, 64)
    monkeypatch.setattr(_page, "MAX_PIXELS", 64 * 64 - 1)
    with pytest.raises(InputError, match=r"too large(.|\n)*64 x 64"):
        _page._opened(str(tmp_path / "photo.png"))


@pytest.mark.filterwarnings("ignore")
def test_limits_of_a_server_and_what_one_person_sees_and_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is too large is refused; nobody sees another's maps; whatever they left can be removed, and is."""
    from gradio.route_utils import delete_files_created_by_app
    from gradio_client import Client, handle_file

    cache = tmp_path / "cache"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(cache))
    picture = tmp_path / "photo.png"
    photo().save(picture)
    application = serve([desk().loaded], port=(port := free_port()), wait=False)
    try:
        place = f"http://127.0.0.1:{port}"
        one, other = (Client(place, verbose=False, download_files=False) for _ in range(2))
        before = {path for path in cache.rglob("*") if path.is_file()}
        uploaded = handle_file(str(picture))
        (tmp_path / "words.png").write_text("no picture at all")
        wrong = handle_file(str(tmp_path / "words.png"))
        with pytest.raises(Exception, match=r"^words\.png: is not a picture in any of the formats"):
            one.predict("marks", wrong, None, ["grad_cam"], AUTO, None, False, "", 0.5, api_name="/explain")
        one.predict("marks", uploaded, None, ["grad_cam"], AUTO, None, False, "", 0.5, api_name="/explain")
        assert "grad_cam" in one.predict("marks", api_name="/judge")
        with pytest.raises(Exception, match="there is no map yet"):
            other.predict("marks", api_name="/judge")
        one.predict(False, "", 0.5, api_name="/write")
        left = {path for path in cache.rglob("*") if path.is_file()} - before
        assert {"photo.png", "grad_cam.npz", "why.html"} <= {path.name for path in left}
        delete_files_created_by_app(application, None)  # what the server does with those older than ten minutes
        assert [path for path in left if path.exists()] == []
        assert application.delete_cache == (600, 600)
        large = tmp_path / "large.png"
        large.write_bytes(bytes(21 * 1024 * 1024))
        with large.open("rb") as file:
            answer = httpx.post(f"{place}/gradio_api/upload", files={"files": file}, timeout=60)
        assert answer.status_code == 413
    finally:
        application.close()


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def in_a_browser(test: Any) -> Any:
    """The marks of a test that drives Chromium."""
    there = shutil.which("chromium") is not None
    needed = pytest.mark.skipif(not there, reason="needs Debian's chromium: apt-get install chromium")
    return pytest.mark.slow(needed(pytest.mark.filterwarnings("ignore")(test)))


@contextmanager
def browsed(models: Sequence[Loaded]) -> Iterator[Any]:
    """A page of Chromium on a studio of these models; the server ends by itself, too."""
    from playwright.sync_api import sync_playwright

    port = free_port()
    application = serve(models, port=port, wait=False)
    stop = threading.Timer(1200, application.close)
    stop.start()
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            page.set_default_timeout(300_000)  # other work may share the machine
            page.goto(f"http://127.0.0.1:{port}/")
            yield page
            browser.close()
    finally:
        stop.cancel()
        application.close()


def choose(page: Any, control: str, option: str) -> None:
    """An entry of a list that opens when it is clicked."""
    page.locator(f"#{control} input").click()
    page.get_by_role("option", name=option, exact=True).click()


@in_a_browser
def test_in_a_browser(tmp_path: Path) -> None:
    """Load, upload, change the target, compare, change the drawing, check, download; a second person sees nothing."""
    with browsed([seewhy.load()]) as page:
        page.locator("#photo input[type=file]").set_input_files(str(samples.path("chelsea.png")))
        page.locator("#likely").get_by_text("tiger cat").first.wait_for()
        page.locator("#run").click()
        page.locator("#gallery").get_by_text("grad_cam at bn2: tiger cat").first.wait_for()
        page.locator("#gallery").get_by_text("layer_cam at bn2: tiger cat").first.wait_for()
        first = page.locator("#gallery img").first.get_attribute("src")
        page.locator("#signed input").check()
        page.wait_for_function(
            "before => document.querySelector('#gallery img').getAttribute('src') !== before", arg=first
        )
        page.locator("#likely").get_by_text("tabby").first.click()
        page.locator("#run").click()
        page.locator("#gallery").get_by_text("grad_cam at bn2: tabby").first.wait_for()
        page.locator("#check").click()
        page.locator("#verdicts").get_by_text("p = ").first.wait_for()
        page.locator("#verdicts").get_by_text("insertion").first.wait_for()
        page.screenshot(path=str(tmp_path / "studio.png"), full_page=True)
        page.locator("#photo img").click()
        page.get_by_text("This model gives no class to a place").wait_for()
        page.locator("#make").click()
        link = page.locator("#downloads a[download]").filter(has_text="").last
        link.wait_for()
        with page.expect_download() as downloaded:
            page.locator("#downloads a[download]").last.click()
        downloaded.value.save_as(tmp_path / "why.html")
        assert "tabby" in (tmp_path / "why.html").read_text()
        other = page.context.browser.new_page()
        other.goto(page.url)
        other.locator("#run").wait_for()
        assert other.locator("#gallery img").count() == 0
        other.close()
        # last of all: without a graphics card a browser draws the canvas at some frames a minute
        page.get_by_text("Cover a part and see the score move").click()
        canvas = page.locator("#brush canvas").first
        canvas.wait_for()
        canvas.scroll_into_view_if_needed()
        page.wait_for_timeout(1000)
        place = canvas.bounding_box()
        assert place is not None
        middle = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
        page.mouse.move(*middle)
        page.mouse.down()
        for step in (1, 2, 3):
            page.mouse.move(middle[0] + 30 * step, middle[1] + 8 * step)
        page.mouse.up()
        page.locator("#cover").click()
        page.locator("#moved").get_by_text("without it").wait_for()
        page.screenshot(path=str(tmp_path / "brushed.png"), full_page=True)
    assert np.asarray(Image.open(tmp_path / "studio.png")).std() > 10


@in_a_browser
def test_other_models_and_all_files_in_a_browser(tmp_path: Path) -> None:
    """A label that is searched, files of each kind; a place of a segmenter, a box of a detector, a prompt."""
    shown = scenes.pictures(CASES["resnet"].scenes(1).images)[0]
    photo = Image.fromarray((shown * 255).round().to(torch.uint8).movedim(0, -1).numpy())
    photo.resize((128, 128), Image.Resampling.NEAREST).save(tmp_path / "photo.png")
    (tmp_path / "words.png").write_text("no picture at all")
    marks = desk().loaded
    name = next(iter(Desk(marks).seen(photo).likely))
    runs: list[int] = []
    marks.module.register_forward_hook(lambda *_: runs.append(1))
    with browsed([marks, segmenter(), detector(), words()]) as page:
        gallery = page.locator("#gallery")
        page.locator("#photo input[type=file]").set_input_files(str(tmp_path / "words.png"))
        page.get_by_text("words.png: is not a picture in any of the formats").first.wait_for()
        page.screenshot(path=str(tmp_path / "no-picture.png"))
        page.reload()
        page.locator("#photo input[type=file]").set_input_files(str(tmp_path / "photo.png"))
        page.locator("#likely").get_by_text("mark").first.wait_for()
        page.locator("#target input").click()
        page.locator("#target input").fill(name[1:])  # a part of it
        page.get_by_role("option", name=name).first.click()
        choose(page, "layer", "layer3")
        page.locator("#run").click()
        gallery.get_by_text(f"layer_cam at layer3: {name}").first.wait_for()
        before, ran = gallery.locator("img").first.get_attribute("src"), len(runs)
        page.locator("#alpha input[type=number]").fill("0.9")
        page.locator("#alpha input[type=number]").press("Enter")
        page.wait_for_function(
            "before => document.querySelector('#gallery img').getAttribute('src') !== before", arg=before
        )
        assert len(runs) == ran  # what is drawn anew is not run anew
        page.locator("#make").click()
        links = page.locator("#downloads a[download]")
        page.wait_for_function("document.querySelectorAll('#downloads a[download]').length >= 7")
        for number in range(links.count()):
            with page.expect_download() as downloaded:
                links.nth(number).click()
            downloaded.value.save_as(tmp_path / "files" / downloaded.value.suggested_filename)
        page.screenshot(path=str(tmp_path / "marks.png"), full_page=True)

        choose(page, "model", "halves")
        page.locator("#target input").wait_for()
        page.locator("#photo img").click(position={"x": 20, "y": 60})
        page.locator("#clicked").get_by_text("the model sees: left").wait_for()
        page.locator("#run").click()
        gallery.get_by_text("grad_cam at conv: left").first.wait_for()
        page.screenshot(path=str(tmp_path / "place.png"), full_page=True)

        choose(page, "model", "finds")
        page.locator("#box input").wait_for()
        page.locator("#box input").click()
        page.get_by_role("option", name="1: cat").click()
        page.locator("#run").click()
        gallery.get_by_text("grad_cam at conv: cat").first.wait_for()
        page.screenshot(path=str(tmp_path / "box.png"), full_page=True)

        choose(page, "model", "words")
        page.locator("#box").wait_for(state="hidden")
        page.locator("#run").click()
        page.get_by_text("type what the picture may show").first.wait_for()
        page.locator("#target input").click()
        page.locator("#target input").fill("a red wall")
        page.locator("#target input").press("Enter")
        page.locator("#run").click()
        gallery.get_by_text("a red wall").first.wait_for()
        page.screenshot(path=str(tmp_path / "prompt.png"), full_page=True)
    files = {path.name: path for path in (tmp_path / "files").iterdir()}
    assert sorted(files) == sorted(
        [f"{name}.{kind}" for name in ("grad_cam", "layer_cam") for kind in ("png", "svg", "npz")] + ["why.html"]
    )
    assert Image.open(files["grad_cam.png"]).size[0] > 300
    assert "<svg" in files["grad_cam.svg"].read_text()
    assert seewhy.Explanation.load(files["layer_cam.npz"]).name() == name
    assert files["why.html"].read_text().count("<article") == 1
