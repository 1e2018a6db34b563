"""The rows of a table as a dataset of FiftyOne: a sample for each picture, with its heatmaps, classes and boxes."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from seewhy.errors import InputError, MissingExtra
from seewhy.render._overlay import placed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from seewhy.jobs.table import Table

_AT_ONCE = 256  # rows that are read, and samples that are handed over, together
_SIDE = 224  # pixels of a heatmap's longer side, at most
_DRAWN = ("path", "label", "predicted", "probability", "map", "map_shape", "boxes", "status", "layers")
_OF_TARGET = ("target", "score", "entropy", "in_box", "check")
_RESERVED = ("id", "filepath", "tags", "metadata", "media_type", "created_at", "last_modified_at")
_ORIENTATION = 0x0112  # in EXIF; from 5 on the picture lies on its side

Size = tuple[int, int]  # (width, height)
Row = dict[str, Any]


def dataset(table: Table, name: str | None = None, *, persistent: bool = False) -> Any:
    """A dataset of FiftyOne: see `Table.to_fiftyone`."""
    try:
        import fiftyone
    except ImportError as error:
        raise MissingExtra("fiftyone is not installed.", do="pip install fiftyone") from error
    made = fiftyone.Dataset(name=name, persistent=persistent)
    starts = range(0, len(table), _AT_ONCE)
    rows = (row for start in starts for row in table[start : start + _AT_ONCE].to_arrow().to_pylist())
    pictures = itertools.groupby(rows, key=lambda row: row["key"])
    while batch := [_sample(fiftyone, table, list(group)) for _, group in itertools.islice(pictures, _AT_ONCE)]:
        made.add_samples(batch)
    return made


def _sample(fiftyone: Any, table: Table, rows: list[Row]) -> Any:
    """A picture with what is known of it; and for each of its targets a heatmap, and the boxes around what is hot."""
    first = rows[0]
    if not first["path"] or not Path(first["path"]).is_file():
        raise InputError(
            "FiftyOne shows pictures that are files on this machine.",
            got=f"{first['key']} with the path {first['path']!r}",
            do="explain a folder or a manifest of files, or filter the table for rows with a path",
        )
    more = {_field(name): value for name, value in first.items() if name not in (*_DRAWN, *_OF_TARGET)}
    sample = fiftyone.Sample(filepath=str(Path(first["path"]).absolute()), tags=[first["status"]], **more)
    if first["label"] is not None:
        sample["ground_truth"] = fiftyone.Classification(label=first["label"])
    if first["status"] != "ok":
        return sample
    sample["prediction"] = fiftyone.Classification(label=first["predicted"], confidence=first["probability"])
    size = _size(Path(first["path"]))
    for number, row in enumerate(rows, 1):
        suffix = "" if number == 1 else f"_{number}"
        told = {name: row[name] for name in _OF_TARGET if row[name] is not None}
        sample[f"heatmap{suffix}"] = fiftyone.Heatmap(map=_map(table, row, size), range=[0, 255], **told)
        sample[f"hot{suffix}"] = fiftyone.Detections(
            detections=[
                fiftyone.Detection(label=row["target"], bounding_box=_shares(box, size)) for box in row["boxes"] or []
            ]
        )
    return sample


def _field(name: str) -> str:
    """A column's name as that of a field: letters, digits and underscores, and none that FiftyOne has for itself."""
    plain = re.sub(r"\W", "_", name).lstrip("_")
    return f"manifest_{plain}" if plain in _RESERVED or not plain.isidentifier() else plain


def _size(path: Path) -> Size:
    """That of the upright picture, from its header."""
    with Image.open(path) as picture:
        lies = picture.getexif().get(_ORIENTATION, 1) >= 5
        return picture.size[::-1] if lies else picture.size


def _map(table: Table, row: Row, size: Size) -> NDArray[np.uint8]:
    """The heatmap over the whole picture: 0 where the model saw nothing of it."""
    if len(row["map_shape"]) != 2:
        raise InputError("FiftyOne draws heatmaps of pictures.", got=f"a map {row['map_shape']}", do="table.to_arrow()")
    heat = torch.tensor(row["map"], dtype=torch.float32).reshape(row["map_shape"]).clamp(min=0)
    heat = heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)
    scale = min(_SIDE / max(size), 1)
    width, height = (max(round(side * scale), 1) for side in size)
    x0, y0, x1, y1 = table.plan.seen_through.frame(size)
    across, down = width / size[0], height / size[1]
    over, _ = placed(heat, (height, width), (x0 * across, y0 * down, x1 * across, y1 * down), "bilinear")
    drawn: NDArray[np.uint8] = (over * 255).round().to(torch.uint8).numpy()
    return drawn


def _shares(box: list[int], size: Size) -> list[float]:
    """A box (x0, y0, x1, y1) in pixels as FiftyOne has it: left, top, width and height in shares of the picture."""
    x0, y0, x1, y1 = box
    return [x0 / size[0], y0 / size[1], (x1 - x0) / size[0], (y1 - y0) / size[1]]
