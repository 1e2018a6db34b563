"""`seewhy report` and `seewhy studio`: what is on the page, and what stays unwritten."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import seewhy
from seewhy.apps.cli import app
from tests.jobs import small
from tests.render.test_report import Page

FILE = small.FILE
MODEL = ("--model", "small.py:build", "--weights", "none")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Six photographs in folders by class, one that is none, and the small model as a file."""
    monkeypatch.chdir(tmp_path)
    Path("small.py").write_text(FILE)
    small.photos(Path("photos"), 6)
    Path("photos/words.png").write_text("no picture at all")
    return sorted(Path("photos").rglob("0*.png"))


def cards(path):
    return [card for card in Page(Path(path)).all("article") if "data-name" in card]


def test_photographs_with_several_methods_and_their_audit(photos):
    result = run("report", "photos", *MODEL, "--methods", "grad_cam,layer_cam", "--by-folder", "--audit")
    assert result.exit_code == 1  # one of the files is no picture
    assert "words.png" in result.stderr
    found = cards("why.html")
    assert [card["data-name"] for card in found] == [path.name for path in photos]
    expected = seewhy.explain(small.loaded(), photos, method="grad_cam")
    assert [card["data-about"] for card in found] == [expected.name(image) for image in range(6)]
    assert [card["data-wrong"] for card in found] == [
        str(int(path.parent.name != expected.name(image))) for image, path in enumerate(photos)
    ]
    assert [float(card["data-score"]) for card in found] == pytest.approx(expected.scores.tolist(), abs=1e-4)
    audit = json.loads(Path("why.json").read_text())
    assert audit["weights sha256"] == seewhy.models.fingerprint.weights_hash(small.net())
    assert (audit["target"], audit["seed"]) == ("the predicted class", 0)
    assert [row["method"] for row in audit["maps"]] == ["grad_cam", "layer_cam"]
    assert {row["method"] for row in audit["evaluation"]} == {"grad_cam", "layer_cam", "random", "centre"}
    assert [row["p, grad_cam"] for row in audit["photographs"]] == [
        pytest.approx(p, abs=0.005) for p in shown_chances()
    ]
    assert run("report", "photos", *MODEL).exit_code == 1  # its own page may be written again


def shown_chances():
    """The p-values under the maps of grad_cam."""
    texts = Page(Path("why.html")).texts
    return [float(text.removeprefix("grad_cam, p = ")) for text in texts if text.startswith("grad_cam, p = ")]


def test_npz_files_of_the_same_images_stand_side_by_side(photos):
    explanation = seewhy.explain(small.loaded(), photos[:2], method=["grad_cam", "layer_cam"])
    for name, one in explanation.items():
        files = tuple(map(str, photos[:2]))
        seewhy.Explanation(**{**vars_of(one), "files": files}).save(f"out/{name}.npz")
    result = run("report", "out", "--by-folder")
    assert result.exit_code == 0, result.output
    page = Page(Path("why.html"))
    assert [text for text in page.texts if text in ("photograph", "grad_cam", "layer_cam")] == [
        *("photograph", "grad_cam", "layer_cam")
    ] * 2
    assert len(cards("why.html")) == 2


def vars_of(explanation):
    return {name: getattr(explanation, name) for name in explanation.__dataclass_fields__}


def test_runs_show_the_wrong_rows_first_and_the_means_of_all(photos):
    first = small.run("photos", "a").table
    small.run("photos", "b", method="layer_cam")
    result = run("report", "a", "b", "--limit", "3", "--audit")
    assert result.exit_code == 0, result.output
    found = cards("why.html")
    fine = first.filter(status="ok")
    wrong = fine.filter(fine["predicted"] != fine["label"]).sort("probability", descending=True)
    assert [card["data-name"] for card in found] == [Path(key).name for key in wrong["key"][:3]]
    page = Page(Path("why.html"))
    assert "3 images, 3 wrong, out of 6 rows, the wrong and odd ones first, 1 row is an error" in page.texts
    assert [text for text in page.texts if text.endswith(", 2 images")] == [
        f"{name}, 2 images" for name in small.LABELS
    ]
    assert page.texts.count("layer_cam") >= 3
    audit = json.loads(Path("why.json").read_text())
    assert audit["runs"]["a"]["weights"] == first.plan.weights
    assert [row["label"] for row in audit["runs"]["b"]["by label"]] == list(small.LABELS)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["photos/words.png"], "none of these could be explained"),
        (["nowhere.png"], "there is no such file"),
        (["photos", "other.npz"], "one kind is reported at a time"),
        (["other.npz"], "none of these could be read"),
        (["other.npz", "--method", "grad_cam"], "explained already"),
        (["photos", "--out", "why.txt"], "a report is a page"),
        (["photos", "--out", "kept.html"], "nothing is overwritten"),
        (["photos", *MODEL, "--target", "zebra"], "no class is called 'zebra'"),
        (["photos", "--model", "small.py:nothing"], "no function 'nothing'"),
    ],
)
def test_mistakes_end_with_2_and_write_nothing(photos, arguments, told):
    Path("other.npz").write_bytes(b"something")
    Path("kept.html").write_text("<p>mine</p>")
    before = sorted(Path().rglob("*"))
    result = run("report", *arguments)
    assert result.exit_code == 2, result.output
    assert told in result.stderr
    assert sorted(path for path in Path().rglob("*") if "__pycache__" not in path.parts) == before
    assert Path("kept.html").read_text() == "<p>mine</p>"


def test_the_studio_says_before_it_loads_a_model_that_a_port_is_taken():
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = run("studio", "--model", "no:such", "--port", taken.getsockname()[1])
    assert result.exit_code == 2
    assert "cannot be listened on" in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium: apt-get install chromium")
def test_the_page_is_sorted_and_filtered_in_a_browser(photos, tmp_path):
    from playwright.sync_api import sync_playwright

    run("report", *photos, *MODEL, "--by-folder", "--check")
    found = cards("why.html")
    asked = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{tmp_path}/why.html")

        def shown(key):
            script = "(all, key) => all.filter(card => !card.hidden).map(card => card.dataset[key])"
            return page.locator("#cards .card").evaluate_all(script, key)

        page.select_option("#order", "score")
        assert list(map(float, shown("score"))) == sorted(float(card["data-score"]) for card in found)
        page.select_option("#order", "wrong")
        assert shown("wrong") == sorted((card["data-wrong"] for card in found), reverse=True)
        page.select_option("#order", "chance")
        assert list(map(float, shown("chance"))) == sorted((float(card["data-chance"]) for card in found), reverse=True)
        page.select_option("#only", "wrong")
        assert len(shown("name")) == sum(card["data-wrong"] == "1" for card in found)
        page.select_option("#only", "")
        page.fill("#text", photos[0].name)
        assert shown("name") == [photos[0].name]

        def colour(place, kind):
            return page.locator(place).first.evaluate("(one, kind) => getComputedStyle(one)[kind]", kind)

        page.emulate_media(color_scheme="dark")
        assert (colour(".card", "backgroundColor"), colour("dd", "color")) == ("rgb(30, 30, 36)", "rgb(236, 236, 241)")
        page.emulate_media(color_scheme="dark", media="print")  # on paper all is as in the light
        assert (colour(".card", "backgroundColor"), colour("dd", "color")) == ("rgb(255, 255, 255)", "rgb(0, 0, 0)")
        assert page.locator("#controls").is_hidden()
        assert page.locator("img").evaluate_all("all => all.every(one => one.complete && one.naturalWidth > 0)")
        browser.close()
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []


def test_the_classes_at_the_top_are_the_softmax_of_the_outputs(photos):
    explanation = seewhy.explain(small.loaded(), photos[:2])
    likely = explanation.outputs.softmax(1)
    for image, row in enumerate(explanation.top(2)):
        expected = sorted(zip(small.LABELS, likely[image].tolist(), strict=True), key=lambda pair: -pair[1])[:2]
        assert [name for name, _ in row] == [name for name, _ in expected]
        assert [value for _, value in row] == pytest.approx([value for _, value in expected])
    assert len(explanation.top(9)[0]) == 3
    one = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
    images = torch.rand(2, 3, 8, 8)
    single = seewhy.explain(one, images)
    assert sum(dict(single.top(2)[0]).values()) == pytest.approx(1)
    assert single.top(1)[0][0][1] == pytest.approx(float(single.outputs[0].abs().sigmoid()))


def test_ctrl_c_ends_what_waits():
    from seewhy.apps.cli.terminal import CtrlC

    with CtrlC() as stop:
        timer = threading.Timer(0.1, lambda: setattr(stop, "_pressed", True))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            stop.wait()
