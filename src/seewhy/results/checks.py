"""Whether a map can mean anything."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from seewhy.errors import warn
from seewhy.evidence import Doubt
from seewhy.results.explanation import Explanation
from seewhy.targets import Unasked

_BLANKS = (
    ("is not finite", "weights or activations overflow: try float32, or look for inf and nan in the input"),
    ("is zero everywhere", "no gradient reaches this layer for this target: try an earlier layer, or another target"),
    (
        "has nothing positive",
        "nothing here spoke for this target: try Contrast, an earlier layer, or read the signed .maps",
    ),
)

_GAP = 0.05  # of what the score changed by


def few(images: Sequence[int], first: int = 0) -> str:
    """The numbers of images, for a message: the first five. The first of all images has the number `first`."""
    return ", ".join(str(image + first) for image in images[:5]) + (" and more" if len(images) > 5 else "")


def warn_of_blanks(explanation: Explanation, *, first: int = 0) -> None:
    """A warning for each layer with maps that cannot mean anything: which images, why, and what to try."""
    for what, images, advice in blanks(explanation):
        warn(f"{what} for image {few(images, first)}: {advice}.")


def without(explanation: Explanation, doubts: Mapping[str, Doubt]) -> Explanation:
    """The same with zeros for the maps that say nothing, and with what is wrong with them.

    Maps that are the same everywhere but for rounding are their mean. A map of scores that are no numbers is none
    either: whatever the method, it says nothing of that image.
    """
    maps = dict(explanation.maps)
    dimensions = len(explanation.size)
    unscored = explanation.scores.isnan() & (not isinstance(explanation.targets, Unasked))
    for label, grid in maps.items():
        one_for_each = unscored if unscored.ndim == grid.ndim - dimensions else unscored.any(-1)
        lost = one_for_each.reshape(*one_for_each.shape, *[1] * dimensions).to(grid.device)
        maps[label] = torch.where(lost, torch.nan, grid) if bool(unscored.any()) else grid
    for label, doubt in doubts.items():
        grid = maps[label]
        instead = grid.mean(tuple(range(-dimensions, 0)), keepdim=True) if doubt.level else torch.zeros_like(grid)
        maps[label] = torch.where(doubt.images.reshape(*doubt.images.shape, *[1] * dimensions), instead, grid)
    told = {label: tuple(_told(doubt, image) for image in range(len(explanation))) for label, doubt in doubts.items()}
    return replace(explanation, maps=maps, doubts=told)


def _told(doubt: Doubt, image: int) -> tuple[str, str]:
    return (doubt.problem, f"{doubt.advice}. It is blank") if bool(doubt.images[image].any()) else ("", "")


def warn_of_gaps(explanation: Explanation, *, first: int = 0) -> None:
    """A warning for maps that should add up to what the score changed by, and miss too much of it."""
    if explanation.gap is None:
        return
    gaps = explanation.gap.reshape(len(explanation), -1).amax(1)
    if wide := (gaps > _GAP).nonzero().flatten().tolist():
        warn(
            f"the {explanation.method} map of image {few(wide, first)} misses up to {float(gaps.max()):.0%} of what "
            "the score changed by between baseline and image: take more steps, steps=200 say, or another baseline."
        )


def blanks(explanation: Explanation) -> Iterator[tuple[str, list[int], str]]:
    """The maps that cannot mean anything, each once. Those that were blanked for a doubt are told of by that.

    A pyramid, of which a detector reads a box from one level, is judged whole. So are parallel layers, whose maps add
    up.

    Args:
        explanation: of any images.

    Yields:
        What is wrong with the map of a layer, with which images, and what to try.
    """
    for label, told in explanation.doubts.items():
        for problem, advice in dict.fromkeys(pair for pair in told if pair[0]):
            doubted = [image for image, pair in enumerate(told) if pair[0] == problem]
            yield f"the {explanation.method} map of {label} {problem}", doubted, advice
    layers: dict[str, list[Tensor]] = {}
    pyramid = len({grid.shape for grid in explanation.maps.values()}) == len(explanation.maps)
    for label, grid in explanation.maps.items():
        places = grid.reshape(len(explanation), -1, math.prod(grid.shape[-len(explanation.size) :]))
        if label in explanation.doubts:
            known = torch.tensor([bool(problem) for problem, _ in explanation.doubts[label]], device=places.device)
            places = torch.where(known[:, None, None], 1, places)  # what is left to tell of
        whole = re.split(r"[\[#]", label)[0] if pyramid else label
        layers.setdefault(" + ".join(explanation.maps) if explanation.fuse == "sum" else whole, []).append(places)
    verdicts = []
    for levels in layers.values():
        places = torch.cat(levels, -1)
        problems = (~places.isfinite().all(-1), ~places.any(-1), ~(places > 0).any(-1))
        verdict = torch.zeros(len(explanation), dtype=torch.long, device=places.device)
        for number, found in reversed(list(enumerate(problems, 1))):
            verdict = torch.where(found.any(-1), number, verdict)
        verdicts.append(verdict)
    for label, row in zip(layers, torch.stack(verdicts).tolist(), strict=True):
        for number, (problem, advice) in enumerate(_BLANKS, 1):
            if images := [image for image, told in enumerate(row) if told == number]:
                yield f"the {explanation.method} map of {label} {problem}", images, advice
