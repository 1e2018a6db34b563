"""What metrics are asked about: the checks that all of them share, and the calls of a score in whole rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor

from seewhy.errors import InputError

# Maps have dimensions of their own and are of any type, so that ours is the error about a difference or a wrong type.
Images: TypeAlias = Float[Tensor, "B C *space"]
Maps: TypeAlias = Shaped[Tensor, "maps *size"]
Score: TypeAlias = Callable[[Tensor], Tensor]
Explain: TypeAlias = Callable[[Tensor], Tensor]


def check(images: Images, maps: Maps) -> Maps:
    """The maps, in float32 at least, if there is one of the images' size for each image, and every value is finite."""
    expected = (len(images), *images.shape[2:])
    if images.ndim < 3 or not len(images):
        raise InputError("these are no images.", got=tuple(images.shape), expected="(B, C, H, W) or (B, C, D, H, W)")
    if tuple(maps.shape) != expected:
        raise InputError(
            "maps and images differ in number or size.",
            got=f"maps {tuple(maps.shape)} for images {tuple(images.shape)}",
            expected=f"maps {expected}",
            do="resize the maps to the images, and sum or average over channels",
        )
    return finite(maps)


def finite(maps: Maps) -> Maps:
    """The maps, in float32 at least, if every value is finite."""
    if maps.ndim < 2 or not maps.numel():
        raise InputError("these are no maps.", got=tuple(maps.shape), expected="(B, H, W) or (B, D, H, W)")
    if not maps.is_floating_point():
        raise InputError("maps are real numbers.", got=maps.dtype, do="maps.float()")
    bad = (~maps.isfinite()).flatten(1).any(1)
    if bool(bad.any()):
        raise InputError(
            "a map has values that are NaN or infinite.",
            got=f"such values in the maps of images {bad.nonzero().flatten().tolist()}",
            do="find out why they were made; they have no rank and no size",
        )
    return maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps


def constant(maps: Maps) -> Bool[Tensor, " maps"]:
    """Which maps have one value everywhere, and so rank nothing."""
    flat = maps.flatten(1)
    return flat.amax(1) == flat.amin(1)


def undefined(values: Float[Tensor, "maps *S"], where: Bool[Tensor, "maps *one"]) -> Float[Tensor, "maps *S"]:
    """The values, NaN at `where`."""
    return values.masked_fill(where, math.nan)


def drawing(generator: Generator | None) -> Generator:
    """The caller's generator, or one that draws the same in every call; never the global one."""
    return generator if generator is not None else Generator().manual_seed(0)


def at_least_one(**numbers: int) -> None:
    """Refuse an option that counts something and is below 1."""
    for name, number in numbers.items():
        if number < 1:
            raise InputError(f"`{name}` is too small.", got=number, expected="at least 1")


def in_rounds(
    score: Score,
    changed: Callable[[Tensor], Tensor],
    count: int,
    images: Images,
    batch_size: int | None,
) -> Float[Tensor, "count B"]:
    """Scores of `count` changed versions of every image.

    Args:
        score: (N, C, H, W) -> (N,). N is a multiple of B, and row n was made of image n % B.
        changed: numbers (k,) of versions -> (k, B, C, H, W).
        count: how many versions there are of each image.
        images: (B, C, H, W), what they are made of.
        batch_size: the most rows of a call; None for B.
    """
    with torch.no_grad():
        return torch.cat([_called(score, changed(numbers)) for numbers in parts(count, images, batch_size)])


def parts(count: int, images: Images, batch_size: int | None) -> Sequence[Int[Tensor, " k"]]:
    """The numbers of `count` versions of every image, parted so that the rows of a part fit in a call."""
    if batch_size is not None and batch_size < len(images):
        raise InputError(
            "a call takes whole rounds: every image once, or twice, ...",
            got=f"batch_size={batch_size} for {len(images)} images",
            expected=f"batch_size of at least {len(images)}",
            do="pass fewer images at a time",
        )
    return torch.split(torch.arange(count, device=images.device), (batch_size or len(images)) // len(images))


def explained(explain: Explain, changed: Float[Tensor, "k B C *space"]) -> Float[Tensor, "k B *space"]:
    """Maps of the changed images, from a call with whole rounds of them."""
    rows = changed.flatten(0, 1)
    maps = explain(rows)
    if not isinstance(maps, Tensor):
        raise InputError("`explain` did not return a tensor.", got=type(maps).__name__, do="torch.as_tensor(maps)")
    maps = check(rows, maps.detach()).to(changed.device)
    return maps.reshape(*changed.shape[:2], *maps.shape[1:])


def _called(score: Score, changed: Float[Tensor, "k B C *space"]) -> Float[Tensor, "k B"]:
    rows = changed.flatten(0, 1)
    scores = score(rows)
    if not isinstance(scores, Tensor) or tuple(scores.shape) != (len(rows),):
        raise InputError(
            "`score` did not return one number for each row.",
            got=tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__,
            expected=f"a tensor ({len(rows)},) for images {tuple(rows.shape)}",
            do="row n was made of image n % B: repeat the targets, or use seewhy.metrics.logit or probability",
        )
    wide = scores.double() if scores.dtype == torch.float64 else scores.float()
    return wide.to(changed.device).reshape(changed.shape[:2])
