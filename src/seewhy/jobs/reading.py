"""A batch of samples, read and decoded: what the data workers do."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seewhy._types import Frame
from seewhy.errors import SeewhyError
from seewhy.images.photo import opened, read_photo
from seewhy.images.preprocess import Preprocess
from seewhy.jobs.sources.base import Sample


@dataclass(frozen=True)
class Batch:
    """Samples without their content, and the model's inputs for those that could be read.

    Attributes:
        number: of the batch in the run.
        samples: all of them, in order.
        hashes: the SHA-256 of the content of each; "" where there is none.
        frames: the part of each photograph that its input shows, in pixels; None for what is no photograph.
        inputs: for each shape the numbers of the samples, and their inputs (N, C, *space).
    """

    number: int
    samples: tuple[Sample, ...]
    hashes: tuple[str, ...]
    frames: tuple[Frame | None, ...]
    inputs: tuple[tuple[tuple[int, ...], Tensor], ...]


def read(number: int, samples: Sequence[Sample], preprocess: Preprocess) -> Batch:
    """Decode samples. One that is no picture becomes one with an error."""
    kept, hashes, frames = [], [], []
    inputs: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
    for place, sample in enumerate(samples):
        seen, frame = None, None
        try:
            if not sample.error:
                seen, frame = _seen(sample, preprocess)
        except (SeewhyError, MemoryError) as error:
            sample = replace(sample, error=" ".join(str(error).split()) or "not enough memory to decode the picture")
        if seen is not None:
            inputs.setdefault(tuple(seen.shape), []).append((place, seen))
        hashes.append(_hash(sample.content))
        frames.append(frame)
        kept.append(replace(sample, content=None))
    stacked = [
        (tuple(place for place, _ in group), torch.stack([seen for _, seen in group])) for group in inputs.values()
    ]
    return Batch(number, tuple(kept), tuple(hashes), tuple(frames), tuple(stacked))


def photo_of(sample: Sample) -> Image.Image:
    """The photograph of a sample.

    Raises:
        InputError: where it is none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of files that hold several pictures
        if isinstance(sample.content, bytes):
            return read_photo(io.BytesIO(sample.content), sample.path or sample.key)
        return opened(sample.content)


def _seen(sample: Sample, preprocess: Preprocess) -> tuple[Tensor, Frame | None]:
    content = sample.content
    if isinstance(content, Tensor) and content.is_floating_point():
        return content, None
    photo = photo_of(sample)
    return preprocess(photo), preprocess.frame(photo.size)


def _hash(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, Image.Image | Tensor):
        content = np.asarray(content)
    if isinstance(content, np.ndarray):
        content = np.ascontiguousarray(content).data
    return hashlib.sha256(content).hexdigest()
