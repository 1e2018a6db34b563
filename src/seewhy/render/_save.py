"""An explanation as a file, whole or not at all, and read back."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from seewhy.errors import InputError
from seewhy.geometry.placement import placed
from seewhy.images.files import written_whole
from seewhy.images.photo import Photo
from seewhy.render._figure import figure
from seewhy.render._overlay import overlays
from seewhy.render._report import report
from seewhy.targets import Category

if TYPE_CHECKING:
    from seewhy.results.explanation import Explanation

_PICTURES = (".png", ".jpg", ".jpeg", ".pdf", ".svg")
_NUMBERS = (".npz", ".npy")
_PNG = {"compress_level": 1}  # a third of the time of Pillow's default, for files a tenth larger


def save(
    explanation: Explanation,
    path: str | Path,
    photos: Photo | Sequence[Photo] | None = None,
    *,
    what: Literal["figure", "overlay"] = "figure",
    metadata: Mapping[str, str] | None = None,
    **options: Any,
) -> Path:
    """Write a picture, the numbers or the heatmap of an explanation. Folders on the way are made.

    Args:
        explanation: what to save.
        path: its ending says what. .png, .jpg, .pdf and .svg: the figure, or the overlay of an explanation of one map.
            .html: a page of all images, see `seewhy.render.report`, whose options it takes.
            .npy: the heatmap, float32. .npz: everything that `Explanation.load` reads; `np.load` reads it too, without
            pickles.
        photos: as for `overlays`.
        what: "figure" or "overlay", for pictures.
        metadata: texts to keep in a .png or .npz file, by keyword.
        options: those of `figure` or `overlays`, for pictures.

    Returns:
        The path.

    Raises:
        InputError: for any other ending, for drawing options where nothing is drawn, for metadata where there is no
            place for them, and for several overlays in one file.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending == ".html":
        return report(explanation, path, photos=photos, **options)
    if ending not in (*_PICTURES, *_NUMBERS):
        expected = ", ".join((*_PICTURES, *_NUMBERS, ".html"))
        raise InputError("unknown file ending.", got=repr(path.name), expected=expected)
    if what not in ("figure", "overlay"):
        raise InputError("there is no such picture.", got=f"what={what!r}", expected='"figure" or "overlay"')
    if ending in _NUMBERS and (options or what != "figure"):
        given = [*options, *(["what"] if what != "figure" else [])]
        raise InputError(
            f"a {ending} file holds numbers.", got=f"options {', '.join(given)}", do="leave them out, or save a .png"
        )
    if metadata and ending not in (".png", ".npz"):
        raise InputError(f"a {ending} file takes no metadata.", got=", ".join(metadata), do="save a .png or .npz")
    if ending == ".npy":
        heatmap = _numpy(explanation.heatmap)
        with written_whole(path) as temporary, temporary.open("wb") as file:  # numpy adds endings to names
            np.save(file, heatmap, allow_pickle=False)
    elif ending == ".npz":
        content = _content(explanation) | {f"metadata/{key}": np.array(text) for key, text in (metadata or {}).items()}
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
            _write(pictures[0], temporary, metadata or {})
    else:
        drawn = figure(explanation, photos, **options)
        with written_whole(path) as temporary:
            drawn.savefig(temporary, format=ending[1:], dpi=150, metadata=dict(metadata) if metadata else None)
    return path


def load(kind: type[Explanation], path: Path) -> Explanation:
    """The explanation in a .npz file, made by the constructor `kind`: see `Explanation.load`."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    try:
        with np.load(path, allow_pickle=False) as file:
            read: dict[str, NDArray[Any]] = dict(file)
    except (BadZipFile, ValueError, OSError, EOFError, TypeError) as error:
        raise InputError(f"{path}: is no .npz file of an explanation.", got=str(error).splitlines()[0]) from error
    if missing := sorted({"scores", "method", "layers", "size", "fuse", "note"} - read.keys()):
        raise InputError(
            f"{path}: is no explanation that this version wrote.",
            got="a file without " + ", ".join(missing),
            do="save it again with explanation.save(path)",
        )

    def tensor(name: str) -> Tensor | None:
        return torch.from_numpy(read[name]) if name in read else None

    def rows(name: str) -> Any:
        return tuple(map(tuple, read[name].tolist())) if name in read else None

    def texts(name: str) -> tuple[str, ...] | None:
        return tuple(read[name].tolist()) if name in read else None

    size = tuple(read["size"].tolist())
    scores = tensor("scores")
    assert scores is not None
    targets: Any = tensor("index")
    if "kind" in read:
        targets = Category(targets, str(read["kind"]) or None)  # type: ignore[arg-type]
    elif "about" in read:
        targets = str(read["about"]) or None
    return kind(
        maps={layer: torch.from_numpy(read[f"maps/{layer}"]) for layer in read["layers"].tolist()},
        scores=scores,
        outputs=tensor("outputs"),
        targets=targets,
        method=str(read["method"]),
        size=size,
        fuse=str(read["fuse"]),  # type: ignore[arg-type]
        probabilities=tensor("probabilities"),
        labels=texts("labels"),
        frames=rows("frames"),
        extents=rows("extents"),
        placements={
            name.removeprefix("placements/"): placed(
                [(int(axis), start, extent, bool(turned)) for axis, start, extent, turned in sides.tolist()], size
            )
            for name, sides in read.items()
            if name.startswith("placements/")
        },
        files=texts("files"),
        axes=texts("axes") or (),
        note=str(read["note"]),
        gap=tensor("gap"),
    )


def _write(picture: Image.Image, path: Path, metadata: Mapping[str, str]) -> None:
    """A picture by the ending of `path`."""
    ending = path.suffix.lower()
    if ending == ".png":
        picture.save(path, format="PNG", pnginfo=_texts(metadata), **_PNG)
    elif ending == ".svg":
        file = io.BytesIO()
        picture.save(file, format="PNG", **_PNG)
        size = f'width="{picture.width}" height="{picture.height}"'
        data = base64.b64encode(file.getvalue()).decode()
        path.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}><image {size} href="data:image/png;base64,{data}"/></svg>'
        )
    elif ending == ".pdf":
        picture.save(path, format="PDF")
    else:
        picture.save(path, format="JPEG", quality=92)


def _texts(metadata: Mapping[str, str]) -> PngInfo:
    info = PngInfo()
    for key, text in metadata.items():
        info.add_text(key, text)
    return info


def _content(explanation: Explanation) -> dict[str, NDArray[Any]]:
    """What the file holds, by name. What is not known is left out."""
    targets, names = explanation.targets, _names(explanation)
    known: dict[str, Any] = {
        "heatmap": explanation.heatmap,
        "scores": explanation.scores,
        "method": explanation.method,
        "layers": explanation.layers,
        "size": explanation.size,
        "fuse": explanation.fuse,
        "note": explanation.note,
        "gap": explanation.gap,
        "outputs": explanation.outputs if isinstance(explanation.outputs, Tensor) else None,
        "probabilities": explanation.probabilities,
        "index": explanation.index,
        "label": names,
        "kind": targets.kind or "" if isinstance(targets, Category) else None,
        "about": names.flat[0] if explanation.index is None and len({*names.flat}) == 1 else None,
        "labels": explanation.labels,
        "frames": explanation.frames,
        "extents": explanation.extents,
        "files": explanation.files,
        "axes": explanation.axes or None,
    }
    known |= {f"maps/{layer}": grid for layer, grid in explanation.maps.items()}
    known |= {
        f"placements/{layer}": [(side.axis, side.start, side.extent, side.flipped) for side in placement.sides]
        for layer, placement in explanation.placements.items()
    }
    return {
        name: _numpy(value) if isinstance(value, Tensor) else np.array(value)
        for name, value in known.items()
        if value is not None
    }


def _names(explanation: Explanation) -> NDArray[np.str_]:
    """What each map is about, in words: (B, [T])."""
    several = range(explanation.scores.shape[1]) if explanation.scores.ndim == 2 else None
    names = [
        explanation.name(image) if several is None else [explanation.name(image, target) for target in several]
        for image in range(len(explanation))
    ]
    return np.array(names, np.str_)


def _numpy(tensor: Tensor) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
