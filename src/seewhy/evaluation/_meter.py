"""A quick measure of maps, for choosing between many of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seewhy.images import arrays


class Meter:
    """Measures maps by insertion minus deletion at a few shares, and counts the forwards."""

    def __init__(self, score: Callable[[Tensor], Tensor], images: Tensor, rows: slice, batch_size: int) -> None:
        self.score, self.all, self.rows = score, images, rows
        self.images = len(images[rows])
        self.batch_size = max(batch_size, len(images))
        self.forwards = 0
        blurred = images
        for dim in range(2, images.ndim):
            blurred = arrays.blur(blurred, images.shape[dim] / 8, (dim,))
        self.blank = blurred

    def measure(self, maps: Sequence[Tensor], shares: Sequence[float], images: int) -> Float[Tensor, "maps images"]:
        """For each map and each of the first `images` images, the mean over shares of inserted minus deleted."""
        start = self.rows.start
        versions = [
            (_hottest(entry[start : start + images], share), keep)
            for entry in maps
            for share in shares
            for keep in (True, False)
        ]
        own, blank = self.all[start : start + images], self.blank[start : start + images]
        rounds = max(1, self.batch_size // len(self.all))
        found = []
        for first in range(0, len(versions), rounds):
            part = versions[first : first + rounds]
            changed = [torch.where(hot[:, None] == keep, own, blank) for hot, keep in part]
            found.append(self._scored(changed, images))
        self.forwards += images * len(versions)
        scores = torch.cat(found).reshape(len(maps), len(shares), 2, images)
        return (scores[:, :, 0] - scores[:, :, 1]).mean(1)

    def left(self, maps: Sequence[Tensor], share: float) -> Float[Tensor, "maps B"]:
        """For each map and image, the score that is left when the hottest share of pixels is deleted."""
        rounds = max(1, self.batch_size // len(self.all))
        found = []
        for first in range(0, len(maps), rounds):
            part = maps[first : first + rounds]
            changed = [torch.where(_hottest(entry, share)[:, None], self.blank, self.all) for entry in part]
            found.append(self.score(torch.cat(changed)).reshape(len(part), len(self.all)))
        self.forwards += len(maps) * len(self.all)
        return torch.cat(found)

    def _scored(self, changed: Sequence[Tensor], images: int) -> Float[Tensor, "versions images"]:
        """Scores of changed images; a score is asked for whole rounds, so that absent images are filled in."""
        start, batch = self.rows.start, len(self.all)
        if images == batch:
            return self.score(torch.cat(list(changed))).reshape(len(changed), images)
        rows = torch.arange(batch, device=self.all.device)
        inside = (rows >= start) & (rows < start + images)
        whole = []
        for version in changed:
            full = self.all.clone()
            full[inside] = version
            whole.append(full)
        return self.score(torch.cat(whole)).reshape(len(changed), batch)[:, inside]


def _hottest(maps: Float[Tensor, "B *size"], share: float) -> Bool[Tensor, "B *size"]:
    """Where each map is among its hottest share of pixels."""
    flat = maps.flatten(1)
    count = max(1, round(share * flat.shape[1]))
    chosen = flat.topk(count, dim=1).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter(1, chosen, True).reshape(maps.shape)
