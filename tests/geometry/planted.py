"""Models whose layers lie where it is known, or nowhere: each is small, with random weights of a fixed seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Fold = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Planted:
    """A model, an image for it (1, C, *space), and what a layer of it is.

    fold: takes the output of `layer` to (N, C, *grid). sides: per axis of the grid (axis of the image, start, extent,
    flipped), None where the layer has no places.
    """

    name: str
    model: nn.Module
    image: Tensor
    layer: str
    fold: Fold
    sides: list[tuple[int, float, float, bool]] | None
    witness: str = ""  # an early layer (N, C, *grid) that is proven with it


def rows_of(*grid: int, after: int = 0) -> Fold:
    """The fold of a sequence (N, tokens, C), read in rows."""
    count = int(torch.tensor(grid).prod())
    return lambda tokens: tokens[:, after : after + count].mT.unflatten(2, grid)


def as_is(tensor: Tensor) -> Tensor:
    return tensor


def as_column(tensor: Tensor) -> Tensor:
    """The pooled channels of a map, read as places of one channel."""
    return tensor.mean((2, 3))[:, None, :, None]


def picture(*space: int, channels: int = 3, seed: int = 1) -> Tensor:
    """A smooth picture with some noise on it, (1, C, *space)."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, channels, *(max(2, size // 8) for size in space), generator=draw)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(space)]
    fine = torch.randn(1, channels, *space, generator=draw)
    return F.interpolate(coarse, size=space, mode=mode) + 0.3 * fine


class Attention(nn.Module):
    """Attention of `asking` tokens over `told` ones, pre-norm, with a residual connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.norm_told = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        for parameter in (self.attention.in_proj_weight, self.attention.out_proj.weight):
            nn.init.normal_(parameter, std=1.5 * width**-0.5)

    def forward(self, asking: Tensor, told: Tensor | None = None) -> Tensor:
        normed = self.norm(asking)
        read = normed if told is None else self.norm_told(told)
        asking = asking + self.attention(normed, read, read, need_weights=False)[0]
        return asking + self.mlp(self.norm_mlp(asking))


class Tower(nn.Module):
    """A small vision transformer: (N, 3, H, W) -> tokens (N, [1 +] h * w, width)."""

    def __init__(
        self, size: tuple[int, int], patch: int = 8, width: int = 32, depth: int = 3, cls: bool = False
    ) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, patch, patch)
        count = (size[0] // patch) * (size[1] // patch)
        self.positions = nn.Parameter(0.5 * torch.randn(1, count + cls, width))
        self.cls = nn.Parameter(torch.randn(1, 1, width)) if cls else None
        self.blocks = nn.ModuleList(Attention(width) for _ in range(depth))

    def tokens(self, images: Tensor) -> Tensor:
        tokens = self.embed(images).flatten(2).mT
        if self.cls is not None:
            tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], 1)
        return tokens + self.positions

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.tokens(images)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class Queries(nn.Module):
    """Learned queries ask the patches of an image: BLIP-2's, a Perceiver's latents, the parts of a part model."""

    def __init__(self, size: tuple[int, int], count: int, depth: int = 2, width: int = 32) -> None:
        super().__init__()
        self.tower = Tower(size, width=width)
        self.queries = nn.Parameter(torch.randn(1, count, width))
        self.blocks = nn.ModuleList(Attention(width) for _ in range(2 * depth))
        self.out = nn.Linear(width, width)

    def forward(self, images: Tensor) -> Tensor:
        patches, queries = self.tower(images), self.queries.expand(len(images), -1, -1)
        for own, across in zip(self.blocks[::2], self.blocks[1::2], strict=True):
            queries = across(own(queries), patches)
        return self.out(queries)


class Clusters(nn.Module):
    """Soft clusters pool the patches: slots, NetVLAD, token learners."""

    def __init__(self, size: tuple[int, int], count: int, width: int = 32) -> None:
        super().__init__()
        self.tower = Tower(size, width=width)
        self.scores = nn.Linear(width, count)
        nn.init.normal_(self.scores.weight, std=1.0)
        self.pooled = nn.Linear(width, width)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.tower(images)
        return self.pooled(self.scores(patches).softmax(1).mT @ patches)


class Caption(nn.Module):
    """A decoder of `length` words under a causal mask, that asks the patches."""

    def __init__(self, size: tuple[int, int], length: int = 4, width: int = 32) -> None:
        super().__init__()
        self.tower = Tower(size, width=width)
        self.words = nn.Parameter(torch.randn(1, length, width))
        self.steps = nn.MultiheadAttention(width, 4, batch_first=True)
        self.across = Attention(width)
        self.fc = nn.Linear(width, 50)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.tower(images)
        words = self.words.expand(len(images), -1, -1)
        hidden = torch.triu(torch.ones(words.shape[1], words.shape[1], dtype=torch.bool), 1)
        words = words + self.steps(words, words, words, attn_mask=hidden)[0]
        return self.fc(self.across(words, patches))


class Recurrent(nn.Module):
    """A caption by an LSTM that asks a pooled convolution: every step sees the whole image, each the step before."""

    def __init__(self, length: int = 4) -> None:
        super().__init__()
        self.trunk = convolutions(3, 16, 32)
        self.lstm = nn.LSTM(32, 32, batch_first=True)
        self.words = nn.Parameter(torch.randn(1, length, 32))
        self.fc = nn.Linear(32, 50)

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.trunk(images).mean((2, 3))
        return self.fc(self.lstm(self.words + pooled[:, None])[0])


def convolutions(*channels: int, padding: int = 1, kernel: int = 3, stride: int = 2) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, kernel, stride, padding), nn.ReLU()]
    return nn.Sequential(*layers)


class Changed(nn.Module):
    """A trunk that is handed the image as `view` changes it."""

    def __init__(self, view: Callable[[Tensor], Tensor], trunk: nn.Module) -> None:
        super().__init__()
        self.view, self.trunk = view, trunk

    def forward(self, images: Tensor) -> Tensor:
        return self.trunk(self.view(images))


def letterboxed(images: Tensor) -> Tensor:
    """Padded to a square with zeros."""
    rows, columns = images.shape[2:]
    side = max(rows, columns)
    above, left = (side - rows) // 2, (side - columns) // 2
    return F.pad(images, (left, side - columns - left, above, side - rows - above))


def cropped(images: Tensor, share: float = 0.5) -> Tensor:
    """The middle `share` of each side, zoomed to the whole size."""
    rows, columns = images.shape[2:]
    high, wide = int(rows * share), int(columns * share)
    top, left = (rows - high) // 2, (columns - wide) // 2
    middle = images[:, :, top : top + high, left : left + wide]
    return F.interpolate(middle, size=(rows, columns), mode="bilinear")


def transformed(images: Tensor) -> Tensor:
    """As by a spatial transformer that looks at the upper left 3 / 4 x 1 / 2, mirrored in columns."""
    theta = torch.tensor([[[-0.5, 0.0, -0.5], [0.0, 0.75, -0.25]]]).expand(len(images), -1, -1)
    return F.grid_sample(images, F.affine_grid(theta, list(images.shape), align_corners=False), align_corners=False)


class Survivors(Tower):
    """A tower some of whose tokens survive the first block, in the order that `kept` says."""

    def __init__(self, size: tuple[int, int], kept: Callable[[Tensor], Tensor], **options: int) -> None:
        super().__init__(size, **options)
        self.kept = kept

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.kept(self.blocks[0](self.tokens(images)))
        for block in self.blocks[1:]:
            tokens = block(tokens)
        return tokens


def masked(share: float, ordered: bool, seed: int = 3) -> Callable[[Tensor], Tensor]:
    """A masked autoencoder's random choice of tokens, the same for all images; in order of places, or not."""

    def keep(tokens: Tensor) -> Tensor:
        count = int(tokens.shape[1] * share)
        order = torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(seed))[:count]
        return tokens[:, order.sort().values if ordered else order]

    return keep


def strongest(share: float, ordered: bool = False) -> Callable[[Tensor], Tensor]:
    """The tokens of the highest score, by score or in the order of their places."""

    def keep(tokens: Tensor) -> Tensor:
        count = int(tokens.shape[1] * share)
        order = tokens[..., 0].topk(count, dim=1).indices
        order = order.sort(1).values if ordered else order
        return tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[2]))

    return keep


def merged(fewer: int) -> Callable[[Tensor], Tensor]:
    """Of the tokens at even places the `fewer` most like one at an odd place are added to that; even ones first."""

    def merge(tokens: Tensor) -> Tensor:
        even, odd = tokens[:, ::2], tokens[:, 1::2]
        likeness, partner = (F.normalize(even, dim=-1) @ F.normalize(odd, dim=-1).mT).max(-1)
        order = likeness.argsort(1, descending=True)
        gone, stay = order[:, :fewer], order[:, fewer:].sort(1).values
        wide = tokens.shape[2]
        moved = even.gather(1, gone[..., None].expand(-1, -1, wide))
        where = partner.gather(1, gone)[..., None].expand(-1, -1, wide)
        odd = odd.scatter_reduce(1, where, moved, "mean")
        return torch.cat([even.gather(1, stay[..., None].expand(-1, -1, wide)), odd], 1)

    return merge


def snake(tokens: Tensor) -> Tensor:
    """Tokens of 8 rows, every other row backwards: an order of scans."""
    rows = tokens.unflatten(1, (8, -1)).clone()
    rows[:, 1::2] = rows[:, 1::2].flip(2)
    return rows.flatten(1, 2)


class Head(nn.Module):
    """Two pooled channels on an input twice as high as wide, which a count takes for 2 x 1 places."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = convolutions(3, 16, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.trunk(images).mean((2, 3), keepdim=True)


def planted(seed: int = 0) -> list[Planted]:
    """All of them."""
    torch.manual_seed(seed)
    square, wide, long = picture(64, 64), picture(64, 96), picture(64, 1000, channels=1)
    upright = [(0, 0.0, 64.0, False), (1, 0.0, 96.0, False)]

    def conv(*channels: int, **options: int) -> nn.Sequential:
        return convolutions(*channels, **options)

    half = strongest(0.5625, ordered=True)
    trunk = conv(3, 16, 24, 32)
    last = "trunk.5"
    cases = [
        Planted("queries", Queries((64, 64), 16), square, "out", rows_of(4, 4), None),
        Planted("queries before the last", Queries((64, 64), 64), square, "blocks.2", rows_of(8, 8), None),
        Planted("latents", Queries((64, 64), 64, depth=3), square, "out", rows_of(8, 8), None),
        Planted("latents, four", Queries((64, 64), 4, depth=3), square, "out", rows_of(2, 2), None),
        Planted("clusters", Clusters((64, 64), 16), square, "pooled", rows_of(4, 4), None),
        Planted("clusters, four", Clusters((64, 64), 4), square, "pooled", rows_of(2, 2), None),
        Planted("parts", Queries((64, 64), 4, depth=1), square, "out", rows_of(2, 2), None),
        Planted("caption", Caption((64, 64)), square, "fc", rows_of(2, 2), None),
        Planted("caption, recurrent", Recurrent(), square, "fc", rows_of(2, 2), None),
        Planted("pooled channels", Head(), picture(64, 32), "trunk.2", as_column, None),
        Planted("masked", Survivors((64, 96), masked(0.25, False)), wide, "blocks.2", rows_of(4, 6), None),
        Planted("masked, in order", Survivors((64, 96), masked(0.25, True)), wide, "blocks.2", rows_of(4, 6), None),
        Planted("shuffled", Survivors((64, 96), masked(1.0, False)), wide, "blocks.2", rows_of(8, 12), None),
        Planted("sorted by score", Survivors((64, 96), strongest(1.0)), wide, "blocks.2", rows_of(8, 12), None),
        Planted("scanned to and fro", Survivors((64, 96), snake), wide, "blocks.2", rows_of(8, 12), None),
        Planted(
            "beside itself", Changed(lambda x: torch.cat([x, x], 3), conv(3, 16, 24, 32)), wide, last, as_is, None,
            "trunk.0",
        ),
        Planted("pruned", Survivors((64, 64), strongest(0.5625)), square, "blocks.2", rows_of(6, 6), None),
        Planted("pruned, in order", Survivors((64, 64), half), square, "blocks.2", rows_of(6, 6), None),
        Planted("merged", Survivors((64, 64), merged(15)), square, "blocks.2", rows_of(7, 7), None),
        Planted("tower", Tower((64, 96), cls=True, depth=6), wide, "blocks.5", rows_of(8, 12, after=1), upright),
        Planted("convolutions", trunk, wide, "5", as_is, upright),
        Planted(
            "mirrored", Changed(lambda x: x.flip(3), conv(3, 16, 24, 32)), wide, last, as_is,
            [(0, 0.0, 64.0, False), (1, 0.0, 96.0, True)], "trunk.0",
        ),
        Planted(
            "turned", Changed(lambda x: x.flip(2, 3), conv(3, 16, 24, 32)), wide, last, as_is,
            [(0, 0.0, 64.0, True), (1, 0.0, 96.0, True)], "trunk.0",
        ),
        Planted(
            "transposed", Changed(lambda x: x.mT, conv(3, 16, 24, 32)), wide, last, as_is,
            [(1, 0.0, 96.0, False), (0, 0.0, 64.0, False)], "trunk.0",
        ),
        Planted(
            "letterboxed", Changed(letterboxed, conv(3, 16, 24, 32)), wide, last, as_is,
            [(0, -16.0, 96.0, False), (1, 0.0, 96.0, False)], "trunk.0",
        ),
        Planted(
            "letterboxed tower", Changed(letterboxed, Tower((96, 96))), wide, "trunk.blocks.2", rows_of(12, 12),
            [(0, -16.0, 96.0, False), (1, 0.0, 96.0, False)], "trunk.embed",
        ),
        Planted(
            "zoomed", Changed(cropped, conv(3, 16, 24, 32)), wide, last, as_is,
            [(0, 16.0, 32.0, False), (1, 24.0, 48.0, False)], "trunk.0",
        ),
        Planted(
            "centre crop", Changed(lambda x: cropped(x, 0.875), conv(3, 16, 24, 32)), wide, last, as_is,
            [(0, 4.0, 56.0, False), (1, 6.0, 84.0, False)], "trunk.0",
        ),
        Planted(
            "lower right quarter", Changed(lambda x: x[..., 32:, 48:], conv(3, 16, 24, 32)), wide, last, as_is,
            [(0, 32.0, 32.0, False), (1, 48.0, 48.0, False)], "trunk.0",
        ),
        Planted(
            "spatial transformer", Changed(transformed, conv(3, 16, 24, 32)), wide, last, as_is,
            [(0, 0.0, 48.0, False), (1, 0.0, 48.0, True)], "trunk.0",
        ),
        Planted(
            "unpadded, long", conv(1, 8, 8, padding=0, kernel=7, stride=1), long, "2", as_is,
            [(0, 6.0, 52.0, False), (1, 6.0, 988.0, False)], "0",
        ),
        Planted(
            "unpadded, odd", conv(3, 8, 8, 8, padding=0, stride=2), picture(91, 150), "5", as_is,
            [(0, 3.5, 80.0, False), (1, 3.5, 136.0, False)], "0",
        ),
        Planted(
            "unpadded, large", conv(3, 8, 8, padding=0, kernel=11, stride=4), picture(480, 640), "3", as_is,
            [(0, 17.5, 432.0, False), (1, 17.5, 592.0, False)], "0",
        ),
        Planted(
            "unequal strides",
            nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d((4, 1)),
                nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
            ),
            picture(64, 100, channels=1), "4", as_is, [(0, 0.0, 64.0, False), (1, 0.0, 100.0, False)],
        ),
        Planted(
            "volume", nn.Sequential(nn.Conv3d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv3d(8, 16, 3, 2, 1)),
            picture(16, 32, 24, channels=1), "2", as_is,
            [(0, 0.0, 16.0, False), (1, 0.0, 32.0, False), (2, 0.0, 24.0, False)],
        ),
        Planted(
            "signal", nn.Sequential(nn.Conv1d(2, 8, 9, 4, 4), nn.ReLU(), nn.Conv1d(8, 16, 9, 4, 4)),
            picture(512, channels=2), "2", as_is, [(0, 0.0, 512.0, False)],
        ),
    ]  # fmt: skip
    return [case for case in cases if case.model.eval() is not None]


class Frames(nn.Module):
    """A video (B, 3, T, H, W) as images, one frame after the other; the last frame of all is not looked at."""

    def __init__(self, time_first: bool = False, every: int = 1) -> None:
        super().__init__()
        self.trunk = convolutions(3, 16, 24, 32)
        self.time_first, self.every = time_first, every

    def forward(self, videos: Tensor) -> Tensor:
        frames = videos.transpose(1, 2)[:, :: self.every]
        shape = frames.shape[:2]
        if self.time_first:
            made = self.trunk(frames.transpose(0, 1).flatten(0, 1)).unflatten(0, (shape[1], shape[0])).transpose(0, 1)
        else:
            made = self.trunk(frames.flatten(0, 1)).unflatten(0, shape)
        return made.mean((1, 3, 4))


class Two(nn.Module):
    """Two images through one trunk: concatenated into one batch, one after the other, or added up before it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.trunk = convolutions(3, 16, 24, 32)
        self.how = how

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        if self.how == "concatenated":
            first, second = self.trunk(torch.cat([one, other])).chunk(2)
        elif self.how == "interleaved":
            first, second = self.trunk(torch.stack([one, other], 1).flatten(0, 1)).unflatten(0, (-1, 2)).unbind(1)
        elif self.how == "added":
            first = second = self.trunk(one + other)
        else:
            first, second = self.trunk(one), self.trunk(other)
        return (first * second).mean((2, 3))


class Views(nn.Module):
    """An image and its mirror image in one batch."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = convolutions(3, 16, 24, 32)

    def forward(self, images: Tensor) -> Tensor:
        return self.trunk(torch.cat([images, images.flip(3)])).unflatten(0, (2, -1)).mean((0, 3, 4))


class Companions(nn.Module):
    """A trunk in which the images of a batch see each other, by a BatchNorm without running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1),
            nn.BatchNorm2d(16, track_running_stats=False),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.trunk(images).mean((2, 3))


class Single(nn.Module):
    """A trunk that takes one image at a time, of one size."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = convolutions(3, 16, 24, 32)
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        if images.shape != (1, 3, 64, 96):
            raise ValueError("one image at a time")
        self.calls += 1
        return self.trunk(images).mean((2, 3))
