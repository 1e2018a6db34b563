"""Scenes of two coloured figures, and the sentence that names one of them and says on which side it lies."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SIDE = 48
COLOURS = {"red": (0.9, 0.15, 0.15), "green": (0.15, 0.8, 0.2), "blue": (0.2, 0.3, 0.95), "yellow": (0.95, 0.85, 0.1)}
FIGURES = ("ring", "square", "cross", "bar")
SIDES = ("left", "right")
WORDS = ("<pad>", "<s>", "</s>", "<image>", "what", "lies", "there", "?", "a", *COLOURS, *FIGURES, ",", *SIDES, "and")
ID = {word: number for number, word in enumerate(WORDS)}
PATCHES = 8  # along each side
PROMPT = ("<s>", *["<image>"] * PATCHES**2, "what", "lies", "there", "?")
ANSWER = 9  # a red ring , left and a blue bar


class Scene(NamedTuple):
    """A picture, what is in it, and where.

    image: (3, 48, 48) in [0, 1]. words: "a red ring left and a blue bar right". masks: for each of the two figures.
    """

    image: Tensor
    words: tuple[str, ...]
    masks: tuple[Tensor, Tensor]


def shape(figure: str, row: float, column: float, size: float) -> Tensor:
    """The pixels (48, 48) of a figure around a place."""
    y = torch.arange(SIDE)[:, None] + 0.5 - row
    x = torch.arange(SIDE)[None] + 0.5 - column
    if figure == "ring":
        far = (y.square() + x.square()).sqrt()
        return (far <= size) & (far >= size * 0.5)
    if figure == "square":
        return (y.abs() <= size * 0.8) & (x.abs() <= size * 0.8)
    if figure == "cross":
        return ((y.abs() <= size * 0.3) | (x.abs() <= size * 0.3)) & (y.abs() <= size) & (x.abs() <= size)
    return (y.abs() <= size * 0.35) & (x.abs() <= size)


def scene(generator: torch.Generator) -> Scene:
    """Two figures of other colours and kinds, one in each half; the sentence begins with either."""

    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    def real(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    image = 0.35 + 0.12 * torch.rand((1, SIDE // 4, SIDE // 4), generator=generator).repeat_interleave(
        4, 1
    ).repeat_interleave(4, 2)
    image = image.expand(3, -1, -1).clone() + 0.03 * torch.randn((3, SIDE, SIDE), generator=generator)
    colours = [list(COLOURS)[n] for n in torch.randperm(len(COLOURS), generator=generator)[:2].tolist()]
    figures = [FIGURES[n] for n in torch.randperm(len(FIGURES), generator=generator)[:2].tolist()]
    masks, parts = [], []
    for number in range(2):  # left, then right
        size = real(6, 8)
        centre = real(9, 15) + number * SIDE / 2
        mask = shape(figures[number], real(10, SIDE - 10), centre, size)
        image[:, mask] = torch.tensor(COLOURS[colours[number]])[:, None] + 0.05 * torch.randn(
            (3, int(mask.sum())), generator=generator
        )
        masks.append(mask)
        parts.append(("a", colours[number], figures[number], SIDES[number]))
    first = draw(2)
    words = (*parts[first], "and", *parts[1 - first])
    return Scene(image.clamp(0, 1), words, (masks[first], masks[1 - first]))


def batch(count: int, seed: int) -> tuple[dict[str, Tensor], Tensor, list[Scene]]:
    """What a processor would make of the prompts, the answers' tokens, and the scenes."""
    generator = torch.Generator().manual_seed(seed)
    scenes = [scene(generator) for _ in range(count)]
    ids = torch.tensor([[ID[word] for word in PROMPT]] * count)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.stack([each.image for each in scenes]) * 2 - 1,
    }
    answers = torch.tensor([[ID[word] for word in (*each.words, "</s>")] for each in scenes])
    return inputs, answers, scenes
