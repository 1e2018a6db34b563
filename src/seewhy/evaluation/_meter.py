"""A quick measure of maps, for choosing between many of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seewhy.images import arrays


class Meter:
    """Scores of images with the hottest pixels of maps inserted or deleted, and a count of the forwards.

    Args:
        score: (N, C, *size), the image (N,) that each row was made of -> (N,).
        images: (B, C, *size).
        batch_size: the most rows of a call.
    """

    def __init__(
        self, score: Callable[[Tensor, Tensor], Tensor], images: Float[Tensor, "B C *size"], batch_size: int
    ) -> None:
        self.score, self.images, self.batch_size = score, images, batch_size
        self.forwards = 0
        blurred = images
        for dim in range(2, images.ndim):
            blurred = arrays.blur(blurred, images.shape[dim] / 8, (dim,))
        self.blank = blurred
        everyone = range(len(images))
        self.low = self._scores([row[None] for row in blurred], everyone)
        self.reach = self._scores([row[None] for row in images], everyone) - self.low
        some = self.reach.clamp(min=0)
        self.weights = some / some.mean().clamp(min=torch.finfo(some.dtype).tiny)

    def measure(
        self, maps: Sequence[Float[Tensor, "B *size"]], trials: Sequence[tuple[int, float]]
    ) -> Float[Tensor, "maps trials"]:
        """For each map and trial, how far the hottest share of pixels goes, less how far all others go.

        How far is the share of the way from the score of the blurred image to that of the image; at most as far beyond
        either as it is from one to the other, so that no single answer decides. It counts as much as that reach: where
        blurring hardly changes the score, shares of the way are noise. 0 for images whose blurred version has the
        higher score.

        Args:
            maps: of all images.
            trials: (image, share of the pixels).
        """
        rows, numbers = [], []
        for entry in maps:
            for image, share in trials:
                hot = hottest(entry[image : image + 1], share)[:, None]
                own, blank = self.images[image : image + 1], self.blank[image : image + 1]
                rows += [torch.where(hot, own, blank), torch.where(hot, blank, own)]
                numbers += [image, image]
        found = self._scores(rows, numbers).reshape(len(maps), len(trials), 2)
        shown = [image for image, _ in trials]
        low, reach = self.low[shown][:, None], self.reach[shown][:, None]
        way = torch.where(reach > 0, (found - low) / reach, 0).clamp(-1, 2)
        return (way[..., 0] - way[..., 1]) * self.weights[shown]

    def left(self, maps: Sequence[Float[Tensor, "B *size"]], share: float) -> Float[Tensor, "maps B"]:
        """For each map and image, the score that is left when the hottest share of pixels is deleted."""
        rows, numbers = [], []
        for entry in maps:
            changed = torch.where(hottest(entry, share)[:, None], self.blank, self.images)
            rows += [row[None] for row in changed]
            numbers += list(range(len(changed)))
        return self._scores(rows, numbers).reshape(len(maps), len(self.images))

    def _scores(self, rows: Sequence[Tensor], numbers: Sequence[int]) -> Float[Tensor, " N"]:
        """The score of each row, which was made of the image of its number."""
        found = []
        for start in range(0, len(rows), self.batch_size):
            part = slice(start, start + self.batch_size)
            images = torch.tensor(numbers[part], device=self.images.device)
            found.append(self.score(torch.cat(list(rows[part])), images))
        self.forwards += len(rows)
        return torch.cat(found)


def hottest(maps: Float[Tensor, "B *size"], share: float) -> Bool[Tensor, "B *size"]:
    """Where each map is among its hottest share of pixels."""
    flat = maps.flatten(1)
    count = max(1, round(share * flat.shape[1]))
    chosen = flat.topk(count, dim=1).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter(1, chosen, True).reshape(maps.shape)
