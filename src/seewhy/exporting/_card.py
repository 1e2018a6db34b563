"""What an exported file says of itself: everything but the computation."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from seewhy.errors import InputError
from seewhy.geometry.placement import Placement, placed
from seewhy.images.preprocess import Preprocess
from seewhy.methods.fuse import Fuse

PREDICTED, INPUT = "predicted", "input"  # targets that are chosen when a program runs
KEY = "seewhy"  # under which a file has its card, in JSON


@dataclass(frozen=True)
class Card:
    """What an exported file says of itself.

    Attributes:
        model: what the model is called.
        weights: SHA-256 of its state, names, shapes and values: see `seewhy.models.fingerprint`.
        method: the method's name.
        layers: where it looks.
        note: why there, if that was chosen.
        target: what is explained: "predicted", "input", or the target in words.
        index: the class that is explained, where it is always the same.
        kind: what kind the class scores are, where classes are explained.
        size: (H, W) or (D, H, W) of the images.
        batch: how many images it takes; None for any number.
        names: of what it returns, in order.
        layout: the model's outputs, with a name in place of each tensor.
        fuse: how several layers become one heatmap.
        placements: for layers whose grid does not cover the whole input as it is, where it lies.
        labels: a name per class.
        preprocess: how a photograph becomes an input.
        versions: of what made the file.
    """

    model: str
    weights: str
    method: str
    layers: tuple[str, ...]
    note: str
    target: str
    index: int | None
    kind: str | None
    size: tuple[int, ...]
    batch: int | None
    names: tuple[str, ...]
    layout: Any
    fuse: Fuse
    placements: dict[str, Placement]
    labels: tuple[str, ...] | None
    preprocess: Preprocess | None
    versions: dict[str, str]

    def json(self) -> str:
        """The card as a text.

        Returns:
            JSON, which `read` takes.
        """
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def read(cls, text: str | None, path: object) -> Card:
        """The card in a file.

        Args:
            text: what the file has under "seewhy"; None where there is nothing.
            path: the file, for the error.

        Returns:
            The card.

        Raises:
            InputError: where there is none, or one of another make.
        """
        try:
            told = json.loads(text or "null")
            told["preprocess"] = told["preprocess"] and Preprocess(**_tuples(told["preprocess"]))
            told["placements"] = {
                layer: placed([tuple(side.values()) for side in place["sides"]], tuple(place["space"]))
                for layer, place in told["placements"].items()
            }
            return cls(**_tuples(told, but="layout"))
        except (TypeError, KeyError, ValueError) as error:
            raise InputError(
                f"{path}: seewhy did not write this file.",
                got="a program without a card" if text is None else "a card of another version",
                do="seewhy.export(model, example, path)",
            ) from error


def _tuples(told: dict[str, Any], but: str = "") -> dict[str, Any]:
    """JSON has lists where we have tuples."""
    return {key: tuple(value) if isinstance(value, list) and key != but else value for key, value in told.items()}
