"""The cards are the registry's, and each method says against what it was checked."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from seewhy import methods

FOLDER = Path(__file__).parents[2] / "docs" / "methods"
SCRIPT = runpy.run_path(str(FOLDER / "make_cards.py"))


def test_the_page_is_what_the_script_writes():
    assert (FOLDER / "cards.md").read_text() == SCRIPT["cards"](), "run python docs/methods/make_cards.py"


@pytest.mark.parametrize("found", methods.available().values(), ids=lambda found: found.name)
def test_a_method_says_against_what_it_was_checked_and_with_what_difference(found):
    compared = ("paper", "authors", "grad-cam", "captum", "torchcam", "float64", "by hand", "No paper")
    assert any(word in found.checked for word in compared)
    assert found.checked.endswith(".")
    assert re.search(r"\d", found.checked), "no figure"


def test_a_card_lists_the_options_and_their_meaning():
    card = SCRIPT["card"](methods.get("is_cam"))
    assert "| Options | `steps=10`, `accumulated=True`, `reduce=channel_sum` |" in card
    assert (
        "\n- `accumulated`: whether masks accumulate, as in the paper, or go straight to the channel's own.\n" in card
    )
    assert "Args:" not in card
    assert "none: the map does not depend on the score" in SCRIPT["card"](methods.get("lafam"))
