"""Overlays of some rows of a table, as files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seewhy.errors import InputError
from seewhy.images.files import written_whole

if TYPE_CHECKING:
    from seewhy.jobs.table import Table


def save(table: Table, which: str, source: Any = None) -> list[Path]:
    """Write the overlays of some rows into the folder `overlays`. What is there already stays.

    Args:
        table: of a run.
        which: "all"; "wrong:200", the 200 wrong predictions that the model is surest of; or "worst:200", the 200 rows
            with the least share of heat in the object's box, or, where the source has no boxes, the least probability.
        source: the source of the run, where its rows have no paths.

    Returns:
        The files: the key, "-" and the target, ".jpg".

    Raises:
        InputError: for another word.
    """
    chosen = select(table, which)
    read = chosen.to_arrow(["key", "target"])
    files = []
    for number, row in enumerate(read.to_pylist()):
        key = re.sub(r"[^\w./-]+", "_", row["key"]).strip("/").replace("..", "_")
        target = re.sub(r"[^\w.]+", "_", row["target"] or "").strip("_.")[:60]
        path = table.out / "overlays" / f"{key}-{target}.jpg"
        if not path.exists():
            picture = chosen.overlay(number, source=source)
            with written_whole(path) as temporary:
                picture.save(temporary, format="JPEG", quality=92)
        files.append(path)
    return files


def select(table: Table, which: str) -> Table:
    """The rows that `which` means: see `save`."""
    kind, count = parse(which)
    table = table.filter(status="ok")
    if kind == "all":
        return table
    if kind == "wrong":
        known = np.array([label is not None for label in table["label"]], bool)
        return table.filter(known & (table["predicted"] != table["label"])).sort("probability", descending=True)[:count]
    by = "in_box" if np.isfinite(table["in_box"].astype(float)).any() else "probability"
    return table.sort(by)[:count]


def parse(which: str) -> tuple[str, int]:
    """The word and the number in "worst:200"; 0 for "all".

    Raises:
        InputError: for anything else.
    """
    kind, _, number = which.partition(":")
    if which != "all" and not (kind in ("wrong", "worst") and number.isdecimal()):
        raise InputError("these are no rows.", got=repr(which), expected='"all", "worst:200" or "wrong:200"')
    return kind, int(number or 0)
