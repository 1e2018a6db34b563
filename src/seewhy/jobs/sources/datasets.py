"""Datasets and loaders of torch, and those of Hugging Face: whatever gives items."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from torch.utils.data import DataLoader, SequentialSampler, default_collate

from seewhy.errors import InputError, InputTypeError
from seewhy.jobs.sources.base import Sample
from seewhy.jobs.sources.files import opened_path

_IMAGES = ("image", "img", "images", "pixel_values", "input", "inputs")
_LABELS = ("label", "labels", "target", "class")


class Items:
    """A map-style dataset: samples by their number.

    Args:
        dataset: its items are an image; (image, label, ...); or a dict with an image, a label and a key.
        classes: the names of its classes.
    """

    columns = pa.schema([])

    def __init__(self, dataset: Any, classes: Sequence[str] | None = None) -> None:
        self.dataset, self.classes = dataset, classes
        self.count: int | None = len(dataset)

    def described(self) -> Mapping[str, Any]:
        """See `Source`."""
        return {"place": type(self.dataset).__name__, "kind": "dataset", "samples": self.count}

    def samples(self, positions: Sequence[int]) -> list[Sample]:
        """See `Source`. What the dataset raises is the sample's error."""
        found = []
        for position in positions:
            try:
                found.append(_sample(self.dataset[position], position))
            except Exception as error:  # whatever is wrong with this sample, the others are there
                found.append(Sample(f"{position:08d}", error=f"{type(error).__name__}: {' '.join(str(error).split())}"))
        return found


class Stream:
    """What can only be read from its beginning: an iterable dataset, or a loader.

    Args:
        items: an iterable of items as in `Items`, or of batches of them.
        batched: whether it gives batches.
    """

    columns = pa.schema([])
    classes: Sequence[str] | None = None
    count: int | None = None

    def __init__(self, items: Iterable[Any], *, batched: bool = False) -> None:
        self._items, self._batched = items, batched

    def described(self) -> Mapping[str, Any]:
        """See `Source`."""
        return {"place": type(self._items).__name__, "kind": "stream", "samples": None}

    def samples(self, positions: Sequence[int]) -> list[Sample]:
        """See `Source`. Reads from the beginning."""
        last = max(positions, default=-1)
        found = dict(enumerate(itertools.islice(self.stream(), last + 1)))
        return [found[position] for position in positions if position in found]

    def stream(self) -> Iterator[Sample]:
        """See `Source`."""
        items = itertools.chain.from_iterable(map(_rows, self._items)) if self._batched else iter(self._items)
        for position, item in enumerate(items):
            yield _sample(item, position)


def of_loader(loader: DataLoader[Any]) -> Items | Stream:
    """The dataset of a loader, where that is read in order one by one; else its batches.

    Raises:
        InputError: for a loader that shuffles: a run could not go on where it stopped.
    """
    plain = loader.collate_fn is default_collate and isinstance(loader.sampler, SequentialSampler)
    if plain and hasattr(loader.dataset, "__len__"):
        return Items(loader.dataset, getattr(loader.dataset, "classes", None))
    if type(loader.sampler).__name__ in ("RandomSampler", "WeightedRandomSampler", "SubsetRandomSampler"):
        raise InputError(
            "this loader shuffles, and a run could not go on where it stopped.",
            got=type(loader.sampler).__name__,
            do="DataLoader(..., shuffle=False)",
        )
    return Stream(loader, batched=True)


def of_hugging_face(dataset: Any) -> Items | Stream:
    """A dataset of Hugging Face, with the bytes of its images instead of decoded pictures."""
    from datasets import Image

    features = dataset.features or {}
    for name, feature in features.items():
        if isinstance(feature, Image):
            dataset = dataset.cast_column(name, Image(decode=False))
    classes = next((getattr(features[name], "names", None) for name in _LABELS if name in features), None)
    return Items(dataset, classes) if hasattr(dataset, "__len__") else Stream(dataset)


def _rows(batch: Any) -> list[Any]:
    """The items of a collated batch."""
    if isinstance(batch, Mapping):
        names = list(batch)
        return [dict(zip(names, row, strict=True)) for row in zip(*batch.values(), strict=True)]
    if isinstance(batch, list | tuple):
        return list(zip(*batch, strict=True))
    return list(batch)


def _sample(item: Any, position: int) -> Sample:
    label: Any = None
    key, path = f"{position:08d}", ""
    if isinstance(item, Mapping):
        name = next((name for name in _IMAGES if name in item), None)
        if name is None:
            raise InputTypeError(
                "an item of the dataset has no image.", got=", ".join(map(str, item)), expected=", ".join(_IMAGES)
            )
        key = str(item.get("key", item.get("__key__", key)))
        label = next((item[name] for name in _LABELS if name in item), None)
        image = item[name]
    elif isinstance(item, list | tuple):
        image, *rest = item
        label = rest[0] if rest else None
    else:
        image = item
    if isinstance(image, Mapping):  # as Hugging Face gives images that are not decoded
        path, image = image.get("path") or "", image.get("bytes")
        image = opened_path(path) if image is None else image
    plain = label.item() if hasattr(label, "item") else label  # of torch or numpy
    return Sample(key, path, plain, content=image)
