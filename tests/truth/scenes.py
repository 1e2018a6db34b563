"""Images and volumes whose evidence is known: marks of several kinds on textured ground, with clutter between them.

There are two families, so that nothing is tuned to one. In "patterns" a mark is a disc, and its kind is what is drawn
on it, in any two colours. In "shapes" a mark is one of five outlines in the colour of its kind. A mark's place, size
and the rest of the image tell nothing of its kind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

Family = Literal["patterns", "shapes"]

KINDS = {
    "patterns": ("rows", "columns", "checks", "rings", "quarters"),
    "shapes": ("disc", "square", "triangle", "cross", "ring"),
}
SIZE = 64
RADIUS = (5.0, 12.0)  # of a mark, in pixels
_HUES = torch.tensor([[0.9, 0.2, 0.2], [0.2, 0.75, 0.25], [0.25, 0.35, 0.95], [0.9, 0.8, 0.2], [0.8, 0.25, 0.8]])
_TRIES = 24  # places that are drawn for a mark, the first free one of which it takes


@dataclass(frozen=True)
class Scenes:
    """B images of which each shows several marks.

    images: (B, 3, H, W) or (B, 1, D, H, W), as the models take them: about -2 to 2, mid-grey is 0.
    labels: (B, K) bool, which kinds are in the image. masks: (B, K, *space) bool, the pixels of all marks of a kind.
    target: (B,) the kind that is to be explained, one that is there. kinds: (B, N) of each mark, K for a distractor.
    boxes: (B, N, 4) of (x0, y0, x1, y1) around each mark; none for volumes. radii: (B, N) in pixels.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor
    target: Tensor
    kinds: Tensor
    boxes: Tensor
    radii: Tensor

    @property
    def truth(self) -> Tensor:
        """(B, *space) bool: where the evidence for `target` is."""
        return self.masks[torch.arange(len(self.target)), self.target]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> Scenes:
        return Scenes(*(value[rows] for value in vars(self).values()))


def standardised(pictures: Tensor) -> Tensor:
    """What the models take, of pictures in [0, 1]."""
    return (pictures - 0.5) / 0.25


def pictures(images: Tensor) -> Tensor:
    """Pictures in [0, 1] of what the models take."""
    return (images * 0.25 + 0.5).clamp(0, 1)


def marks(
    count: int,
    *,
    family: Family = "patterns",
    seed: int = 0,
    size: int = SIZE,
    number: int = 4,
    radius: tuple[float, float] = RADIUS,
    absent: float = 0.0,
    disguised: tuple[int, ...] = (),
) -> Scenes:
    """`count` images with `number` marks each, of which the first two are of different kinds.

    The others are of any kind, or distractors: marks of no kind. absent: the share of images with distractors alone.
    disguised: kinds whose marks look like distractors.
    """
    generator = Generator().manual_seed(seed)
    kinds = _kinds(count, len(KINDS[family]), number, absent, generator)
    radii = _between(math.log(radius[0]), math.log(radius[1]), (count, number), generator).exp()
    centres = _places(radii, (size, size), generator)
    images = _ground(count, (size, size), generator) if family == "patterns" else _gratings(count, size, generator)
    paint = _pattern if family == "patterns" else _shape
    looks = torch.where(torch.isin(kinds, torch.tensor(disguised)), len(KINDS[family]), kinds)
    covers = []
    for slot in range(number):
        offsets = _pixels((size, size)) - centres[:, slot, :, None, None]
        inside, colours = paint(looks[:, slot], offsets, radii[:, slot, None, None], generator)
        images = torch.where(inside[:, None], colours, images)
        covers.append(inside)
    y, x = centres.unbind(-1)
    boxes = torch.stack([x - radii, y - radii, x + radii, y + radii], -1)
    return _scenes(images, kinds, torch.stack(covers, 1), boxes, radii, len(KINDS[family]))


def clever_hans(count: int, *, seed: int = 0, cue: bool | Tensor = True) -> tuple[Scenes, Tensor]:
    """Scenes of "patterns" in which the marks of kind 0 look like distractors, and a bright cross comes with them.

    Only the cross, which is somewhere else, tells that the kind is there. cue: False leaves the crosses out of the same
    images; (B,) bool says which images have one. Returns the scenes, of which mask 0 is the cross (or where it would
    be), and the pixels of the marks of kind 0, (B, H, W) bool. The target is kind 0 in all of them.
    """
    seen = marks(count, seed=seed, number=3, disguised=(0,))
    generator = Generator().manual_seed(seed + 1_000_003)
    shown = seen.labels[:, 0] if cue is True else torch.zeros(count, dtype=torch.bool) if cue is False else cue
    middles = (seen.boxes[..., :2] + seen.boxes[..., 2:]).flip(-1) / 2  # (x, y) -> (row, column)
    place = _next_place(middles, seen.radii, torch.full((count,), 4.0), (SIZE, SIZE), generator)
    offsets = (_pixels((SIZE, SIZE)) - place[..., None, None]).abs()
    cross = (offsets.amax(1) <= 4) & (offsets.amin(1) <= 1.3)
    colour = torch.tensor([1.0, 0.85, 0.0])[:, None, None] - 0.08 * torch.rand(count, 3, 1, 1, generator=generator)
    images = torch.where((cross & shown[:, None, None])[:, None], standardised(colour), seen.images)
    masks = torch.cat([cross[:, None], seen.masks[:, 1:]], 1)
    return replace(seen, images=images, masks=masks, target=torch.zeros_like(seen.target)), seen.masks[:, 0]


VOLUME = (16, 32, 32)
VOLUME_KINDS = ("bright", "dark", "layered")


def volumes(count: int, *, seed: int = 0, absent: float = 0.0) -> Scenes:
    """Volumes (B, 1, 16, 32, 32) with three balls each: bright, dark, or of bright and dark layers."""
    generator = Generator().manual_seed(seed)
    kinds = _kinds(count, len(VOLUME_KINDS), 3, absent, generator)
    radii = _between(3.0, 5.5, (count, 3), generator)
    centres = _places(radii, VOLUME, generator)
    images = _ground(count, VOLUME, generator, channels=1)
    covers = []
    for slot in range(3):
        offsets = _pixels(VOLUME) - centres[:, slot, :, None, None, None]
        inside = offsets.square().sum(1) <= radii[:, slot, None, None, None] ** 2
        wave = torch.sin(offsets[:, 0] * (2 * math.pi / 4) + _phase(count, 3, generator))
        values = torch.stack([0.9 + 0 * wave, 0.1 + 0 * wave, 0.5 + 0.45 * wave.sign(), 0.5 + 0 * wave], 1)
        values = values[torch.arange(count), kinds[:, slot]]
        values = values + _between(-0.06, 0.06, (count, *VOLUME), generator)
        images = torch.where(inside[:, None], values[:, None], images)
        covers.append(inside)
    return _scenes(images, kinds, torch.stack(covers, 1), torch.zeros(count, 3, 0), radii, len(VOLUME_KINDS))


# in scikit-image, unchanged, free of copyright: what is taken of each, and the class that the default model is sure of
PHOTOGRAPHS = {
    "chelsea.png": (40, 0, 300, 260),  # CC0, Stefan van der Walt: Egyptian cat
    "coffee.png": (100, 0, 500, 400),  # CC0, Rachel Michetti: espresso
    "camera.png": (0, 0, 512, 512),  # CC0, Lav Varshney: tripod
    "astronaut.png": (200, 200, 512, 512),  # public domain, NASA: the helmet she holds, a football helmet
}
PHOTOGRAPH_CATEGORIES = (285, 967, 872, 560)


@cache
def photographs() -> Tensor:
    """(4, 3, 224, 224): the photographs as the default model takes them."""
    taken = []
    for name, box in PHOTOGRAPHS.items():
        with Image.open(files("skimage") / "data" / name) as photo:
            taken.append(photo.convert("RGB").crop(box).resize((224, 224), Image.Resampling.BICUBIC))
    values = torch.stack([torch.from_numpy(np.array(photo)) for photo in taken]).movedim(-1, 1)
    return (values / 255 - 127 / 255) / (128 / 255)


def mosaics(count: int, *, seed: int = 0) -> Scenes:
    """2 x 2 of the photographs in any order, some mirrored: (B, 3, 448, 448); a mask is a photograph's quarter.

    For the grid pointing game (Boehle et al., arXiv:2104.00032): relevance mass is its score.
    """
    generator = Generator().manual_seed(seed)
    kinds = torch.stack([torch.randperm(4, generator=generator) for _ in range(count)])
    mirrored = torch.rand(count, 4, 1, 1, 1, generator=generator) < 0.5
    cells = photographs()[kinds]
    cells = torch.where(mirrored, cells.flip(-1), cells)
    rows = [torch.cat([cells[:, 2 * row], cells[:, 2 * row + 1]], -1) for row in range(2)]
    side = 2 * 224
    quarters = torch.zeros(4, side, side, dtype=torch.bool)
    for cell in range(4):
        top, left = 224 * (cell // 2), 224 * (cell % 2)
        quarters[cell, top : top + 224, left : left + 224] = True
    corners = 224.0 * torch.tensor([[0, 0, 1, 1], [1, 0, 2, 1], [0, 1, 1, 2], [1, 1, 2, 2]])
    return Scenes(
        images=torch.cat(rows, -2),
        labels=torch.ones(count, 4, dtype=torch.bool),
        masks=quarters[kinds.argsort(1)],
        target=torch.arange(count) % 4,
        kinds=kinds,
        boxes=corners.expand(count, 4, 4),
        radii=torch.full((count, 4), 112.0),
    )


def _scenes(images: Tensor, kinds: Tensor, covers: Tensor, boxes: Tensor, radii: Tensor, classes: int) -> Scenes:
    hidden = covers.flip(1).cumsum(1).flip(1) - covers.long() > 0  # by a later mark; marks seldom touch
    visible = covers & ~hidden
    is_kind = kinds[:, :, None] == torch.arange(classes)
    masks = torch.stack([(visible & is_kind[:, :, k].reshape(*kinds.shape, *[1] * (covers.ndim - 2))).any(1)
                         for k in range(classes)], 1)  # fmt: skip
    target = kinds[:, 0].clamp(max=classes - 1)
    return Scenes(standardised(images), masks.flatten(2).any(-1), masks, target, kinds, boxes, radii)


def _kinds(count: int, classes: int, number: int, absent: float, generator: Generator) -> Tensor:
    """(count, number) of 0 to `classes`, the last of which is a distractor; the first two differ and are none."""
    first = torch.randint(classes, (count, 1), generator=generator)
    second = (first + torch.randint(1, classes, (count, 1), generator=generator)) % classes
    others = torch.randint(classes + 1, (count, number - 2), generator=generator)
    kinds = torch.cat([first, second, others], 1)
    empty = torch.rand(count, 1, generator=generator) < absent
    return torch.where(empty, classes, kinds)


def _places(radii: Tensor, size: tuple[int, ...], generator: Generator) -> Tensor:
    """(B, N, dims): centres at which marks of these radii lie in the image and, if there is room, beside each other."""
    placed = torch.zeros(len(radii), 0, len(size))
    for slot in range(radii.shape[1]):
        place = _next_place(placed, radii[:, :slot], radii[:, slot], size, generator)
        placed = torch.cat([placed, place[:, None]], 1)
    return placed


def _next_place(placed: Tensor, taken: Tensor, radius: Tensor, size: tuple[int, ...], generator: Generator) -> Tensor:
    """(B, dims): of some places that are drawn for a mark of `radius`, the first that is free, or the freest."""
    room = torch.tensor(size, dtype=torch.float32) - 2 * radius[:, None]
    drawn = torch.rand(len(radius), _TRIES, len(size), generator=generator) * room[:, None] + radius[:, None, None]
    if not placed.shape[1]:
        return drawn[:, 0]
    gaps = torch.cdist(drawn, placed) - taken[:, None] - radius[:, None, None]
    return drawn[torch.arange(len(radius)), gaps.amin(2).clamp(max=1.5).argmax(1)]


def _ground(count: int, size: tuple[int, ...], generator: Generator, channels: int = 3) -> Tensor:
    """Noise of several scales, coarse and fine, around a colour of its own for each image."""
    images = _between(0.35, 0.65, (count, channels, *[1] * len(size)), generator)
    mode = "bilinear" if len(size) == 2 else "trilinear"
    for cells, strength in ((4, 0.1), (8, 0.08), (16, 0.06)):
        noise = torch.randn(count, channels, *[min(cells, side) for side in size], generator=generator)
        images = images + strength * F.interpolate(noise, size=size, mode=mode, align_corners=False)
    return (images + 0.06 * torch.randn(count, channels, *size, generator=generator)).clamp(0, 1)


def _gratings(count: int, size: int, generator: Generator) -> Tensor:
    """Waves across a slope of colour, and thin lines in the colours of the kinds."""
    rows, columns = _pixels((size, size)) / size - 0.5
    slope = _between(-0.3, 0.3, (count, 3, 2), generator)
    images = _between(0.4, 0.6, (count, 3, 1, 1), generator)
    images = images + slope[..., 0, None, None] * rows + slope[..., 1, None, None] * columns
    for _ in range(2):
        angle = _between(0, math.pi, (count, 1, 1, 1), generator)
        waves = _between(3, 12, (count, 1, 1, 1), generator)
        along = angle.cos() * rows + angle.sin() * columns
        strength = _between(-0.1, 0.1, (count, 3, 1, 1), generator)
        images = images + strength * torch.sin(2 * math.pi * waves * along + _phase(count, 3, generator))
    for _ in range(3):
        angle = _between(0, math.pi, (count, 1, 1), generator)
        distance = angle.cos() * rows + angle.sin() * columns - _between(-0.5, 0.5, (count, 1, 1), generator)
        hue = _HUES[torch.randint(len(_HUES), (count,), generator=generator), :, None, None]
        images = torch.where((distance.abs() * size <= 0.8)[:, None], hue, images)
    return (images + 0.04 * torch.randn(count, 3, size, size, generator=generator)).clamp(0, 1)


def _pattern(kind: Tensor, offsets: Tensor, radius: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """A disc with the pattern of its kind in two colours; a distractor's are slanted stripes, or one colour alone."""
    count, (down, across) = len(kind), offsets.unbind(1)
    far = offsets.square().sum(1).sqrt()
    turn = 2 * math.pi / _between(4.5, 6.0, (count, 1, 1), generator)
    rows = torch.sin(turn * down + _phase(count, 2, generator))
    columns = torch.sin(turn * across + _phase(count, 2, generator))
    rings = torch.sin(turn * far + _phase(count, 2, generator))
    slant = torch.where(torch.rand(count, 1, 1, generator=generator) < 0.5, across, -across)
    slanted = torch.sin(turn * (down + slant) / math.sqrt(2) + _phase(count, 2, generator))
    plain = torch.rand(count, 1, 1, generator=generator) < 0.5
    drawn = [rows, columns, rows * columns, rings, down * across, torch.where(plain, 1.0, slanted)]
    light = torch.stack(drawn, 1)[torch.arange(count), kind] > 0
    dark, bright = _between(0, 0.35, (count, 3, 1, 1), generator), _between(0.65, 1, (count, 3, 1, 1), generator)
    swapped = torch.rand(count, 1, 1, generator=generator) < 0.5
    return far <= radius, torch.where((light ^ swapped)[:, None], bright, dark)


def _shape(kind: Tensor, offsets: Tensor, radius: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """An outline in the colour of its kind; a distractor is any outline in grey."""
    count, (down, across) = len(kind), (offsets / radius[:, None]).unbind(1)
    far = (down**2 + across**2).sqrt()
    outlines = [
        far <= 1,
        torch.maximum(down.abs(), across.abs()) <= 0.9,
        (down.abs() <= 0.95) & (across.abs() <= (down + 0.95) / 1.9),
        (torch.maximum(down.abs(), across.abs()) <= 1) & (torch.minimum(down.abs(), across.abs()) <= 0.35),
        (far <= 1) & (far >= 0.5),
    ]
    grey = kind == len(outlines)
    outline = torch.where(grey, torch.randint(len(outlines), (count,), generator=generator), kind)
    level = _between(0.1, 0.9, (count, 1), generator).expand(-1, 3)
    colour = torch.where(grey[:, None], level, _HUES[kind.clamp(max=len(outlines) - 1)])
    colour = colour + _between(-0.1, 0.1, (count, 3), generator)
    inside = torch.stack(outlines, 1)[torch.arange(count), outline]
    shaded = colour[..., None, None] + _between(-0.05, 0.05, (count, 3, *far.shape[1:]), generator)
    return inside, shaded


def _pixels(size: tuple[int, ...]) -> Tensor:
    """(dims, *size): where the middle of each pixel is."""
    return torch.stack(torch.meshgrid(*(torch.arange(side) + 0.5 for side in size), indexing="ij"))


def _between(low: float, high: float, shape: tuple[int, ...], generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _phase(count: int, dims: int, generator: Generator) -> Tensor:
    return _between(0, 2 * math.pi, (count, *[1] * dims), generator)
