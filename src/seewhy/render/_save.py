"""An explanation as a file, whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seewhy.errors import InputError
from seewhy.images.files import written_whole
from seewhy.images.photo import Photo
from seewhy.render._figure import figure
from seewhy.render._overlay import overlays

if TYPE_CHECKING:
    from seewhy.results.explanation import Explanation


def save(
    explanation: Explanation,
    path: str | Path,
    photos: Photo | Sequence[Photo] | None = None,
    *,
    what: Literal["figure", "overlay"] = "figure",
    **options: Any,
) -> Path:
    """Write to `path`, whose ending says what; folders on the way are made, and the path is returned.

    .png: the figure, or with what="overlay" the overlay of an explanation of one map, drawn with `options`.
    .npy: the heatmap, float32. .npz: heatmap, "maps/<layer>" for each layer, scores, method, layers, size, and outputs
    where those are a tensor; `np.load(path)` reads it, without pickles. Raises InputError for any other ending, for
    drawing options where nothing is drawn, and for several overlays in one file.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in (".png", ".npz", ".npy"):
        raise InputError("unknown file ending.", got=repr(path.name), expected=".png, .npz or .npy")
    if what not in ("figure", "overlay"):
        raise InputError("there is no such picture.", got=f"what={what!r}", expected='"figure" or "overlay"')
    if ending != ".png" and (options or what != "figure"):
        given = [*options, *(["what"] if what != "figure" else [])]
        raise InputError(
            f"a {ending} file holds numbers.", got=f"options {', '.join(given)}", do="leave them out, or save a .png"
        )
    if ending == ".npy":
        heatmap = _numpy(explanation.heatmap)
        with written_whole(path) as temporary, temporary.open("wb") as file:  # numpy adds endings to names
            np.save(file, heatmap, allow_pickle=False)
    elif ending == ".npz":
        content = _content(explanation)
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **content)
    elif what == "overlay":
        pictures = overlays(explanation, photos, **options)
        if len(pictures) != 1:
            raise InputError(
                "a file holds one overlay.",
                got=f"an explanation with {len(pictures)} maps",
                expected="one map",
                do="save explanation[i] for each image, with target=t for one of several targets; or save the figure",
            )
        with written_whole(path) as temporary:
            pictures[0].save(temporary, format="PNG")
    else:
        drawn = figure(explanation, photos, **options)
        with written_whole(path) as temporary:
            drawn.savefig(temporary, format="png", dpi=150)
    return path


def _content(explanation: Explanation) -> dict[str, NDArray[Any]]:
    content = {
        "heatmap": _numpy(explanation.heatmap),
        "scores": _numpy(explanation.scores),
        "method": np.array(explanation.method),
        "layers": np.array(explanation.layers),
        "size": np.array(explanation.size),
    }
    content |= {f"maps/{layer}": _numpy(grid) for layer, grid in explanation.maps.items()}
    if isinstance(explanation.outputs, Tensor):
        content["outputs"] = _numpy(explanation.outputs)
    return content


def _numpy(tensor: Tensor) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
