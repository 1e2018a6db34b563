"""The report: what is in the page, and that it asks for nothing outside."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import seewhy
from seewhy.errors import InputError
from seewhy.render import report


class Page(HTMLParser):
    """The start tags of a page, with their attributes, and its texts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, kind: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == kind]


def explanation(method: str = "grad_cam", **changes: object) -> seewhy.Explanation:
    """Three images of two classes; the heat of each lies in a place of its own."""
    maps = torch.zeros(3, 4, 4)
    for image in range(3):
        maps[image, image, 3 - image] = 1.0
    values = {
        "maps": {"layer4": maps}, "scores": torch.tensor([2.0, -1.0, 5.0]), "outputs": None,
        "targets": seewhy.targets.Category(torch.tensor([0, 1, 0])), "method": method, "size": (32, 32),
        "probabilities": torch.tensor([0.9, 0.6, 1.0]), "labels": ("<cat>", "dog"),
        "note": "layer4 (4 x 4)", "files": ("a/x.png", "a/y.png", "b/x.png"),
    }  # fmt: skip
    return seewhy.Explanation(**{**values, **changes})


def test_a_card_for_each_image_with_what_is_known(tmp_path: Path) -> None:
    photos = torch.rand(3, 3, 64, 64)
    methods = {name: explanation(name) for name in ("grad_cam", "layer_cam")}
    path = report(
        methods, tmp_path / "why.html", photos=photos, truths=["<cat>", "<cat>", "dog"], chances=[0.01, 0.4, 0.03]
    )
    page = Page(path)
    cards = page.all("article")[:3]
    assert [card["data-name"] for card in cards] == ["x.png", "y.png", "x.png"]
    assert [card["data-about"] for card in cards] == ["<cat>", "dog", "<cat>"]
    assert [card["data-wrong"] for card in cards] == ["0", "1", "1"]
    assert [card["data-chance"] for card in cards] == ["0.01", "0.4", "0.03"]
    assert "3 images, 2 wrong, 1 not better than chance" in page.texts
    captions = [text for text in page.texts if text.startswith(("photograph", "grad_cam", "layer_cam"))]
    worth = ("0.01", "0.40", "0.03")
    assert captions == [text for p in worth for text in ("photograph", f"grad_cam, p = {p}", "layer_cam")]
    assert {"90.0%", "60.0%", "100.0%"} <= {*page.texts}
    assert "<cat>, 2 images" in page.texts  # the mean map of the one class that has two


def test_nothing_is_asked_for_outside_and_no_name_is_code(tmp_path: Path) -> None:
    name = '"><script>alert(1)</script>.png'
    path = explanation(files=(name,) * 3).save(tmp_path / "why.html", title="</title><script>alert(2)</script>")
    page = Page(path)
    links = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert links
    assert all(str(link).startswith("data:image/jpeg;base64,") for link in links)
    assert len(page.all("script")) == 1
    assert not re.search(r"https?://|url\(|@import", path.read_text())


def test_an_audit_is_a_table_and_a_file(tmp_path: Path) -> None:
    facts = {"model": "resnet18", "weights": "sha256:12", "seed": 0}
    page = Page(report(explanation(), tmp_path / "why.html", audit=facts))
    assert json.loads((tmp_path / "why.json").read_text()) == facts
    assert {*facts, "sha256:12"} <= {*page.texts}
    assert not (tmp_path / "why.json.part").exists()


def test_a_digest_in_an_audit_may_go_on_in_the_next_line_and_no_fact_is_code(tmp_path: Path) -> None:
    facts = {"weights": "0123456789abcdef" * 4, "file": "<b>&.png"}
    text = report(explanation(), tmp_path / "why.html", audit=facts).read_text()
    assert "<td>0123456789abcdef01234567<wbr>89abcdef0123456789abcdef<wbr>0123456789abcdef</td>" in text
    assert "<td>&lt;b&gt;&amp;.png</td>" in text


@pytest.mark.parametrize(
    ("given", "name", "options", "message"),
    [
        ([], "why.html", {}, "nothing to report"),
        (None, "why.txt", {}, r"ends in \.html"),
        (None, "why.html", {"truths": ["cat"]}, "one for each image"),
        (None, "why.html", {"chances": [0.1] * 4}, "one for each image"),
    ],
)
def test_what_cannot_be_reported_writes_nothing(given, name, options, message, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        report(explanation() if given is None else given, tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []
