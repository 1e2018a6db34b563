"""A small YOLO that finds marks in scenes of noise, and the scenes: python -m tests.models.marks trains it anew."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from seewhy import metrics

WEIGHTS = Path(__file__).parent / "data" / "marks.safetensors"
NAMES = ("disc", "square", "cross")
SIDE = 96  # of a scene, in pixels
_SIZES = (16, 34)  # of a mark, in pixels


class Scene(NamedTuple):
    """A picture and what is in it.

    Attributes:
        pixels: (SIDE, SIDE, 3), uint8.
        labels: of each mark, an index into `NAMES`.
        boxes: (x0, y0, x1, y1) of each, in pixels.
        masks: (N, SIDE, SIDE), the pixels that each covers.
    """

    pixels: NDArray[np.uint8]
    labels: list[int]
    boxes: list[tuple[int, int, int, int]]
    masks: NDArray[np.bool_]


def scene(seed: int, labels: list[int] | None = None) -> Scene:
    """Marks of random size, place and colour on noise; none touches another.

    Args:
        seed: of everything random.
        labels: the marks that are wanted; None draws one to four.
    """
    draw = np.random.default_rng(seed)
    wanted = draw.integers(0, len(NAMES), draw.integers(1, 5)).tolist() if labels is None else labels
    pixels = draw.uniform(60, 140, (SIDE, SIDE, 3)) + draw.uniform(-40, 40, 3)
    boxes: list[tuple[int, int, int, int]] = []
    found: list[int] = []
    masks = np.zeros((len(wanted), SIDE, SIDE), bool)
    for label in wanted:
        for _ in range(100):
            side = int(draw.integers(*_SIZES))
            x, y = (int(start) for start in draw.integers(2, SIDE - side - 2, 2))
            box = (x, y, x + side, y + side)
            if all(
                box[2] + 4 < x0 or x1 + 4 < box[0] or box[3] + 4 < y0 or y1 + 4 < box[1] for x0, y0, x1, y1 in boxes
            ):
                shade = draw.choice([0.0, 1.0]) * 200 + draw.uniform(0, 55, 3)
                masks[len(found), y : y + side, x : x + side] = _shape(label, side)
                pixels[masks[len(found)]] = shade
                boxes.append(box)
                found.append(label)
                break
    return Scene(pixels.clip(0, 255).astype(np.uint8), found, boxes, masks[: len(found)])


def _shape(label: int, side: int) -> NDArray[np.bool_]:
    """(side, side): which pixels a mark of this label covers."""
    across = np.abs((np.arange(side) + 0.5) / side * 2 - 1)
    x, y = across[None, :], across[:, None]
    bars: NDArray[np.bool_] = ((x < 0.3) | (y < 0.3)) & (x <= 1) & (y <= 1)
    return (np.hypot(x, y) < 1, np.maximum(x, y) <= 1, bars)[label]


def worth(heat: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """(N, N) each: the share of the heat of N maps (N, H, W) in each of N masks, and their average precision there."""
    rows = [(one[None], mask[None]) for one in heat for mask in masks]
    square = (len(heat), len(masks))
    masses = torch.cat([metrics.relevance_mass(*row) for row in rows]).reshape(square)
    return masses, torch.cat([metrics.average_precision(*row) for row in rows]).reshape(square)


def network() -> nn.Module:
    """YOLOv8 of half the width of the smallest that ultralytics has, for the marks' classes, not trained."""
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    config = yaml_model_load("yolov8n.yaml")
    config |= {"scales": {"n": [0.33, 0.125, 512]}, "reg_max": 8}
    model = DetectionModel(config, nc=len(NAMES), verbose=False)
    model.names = dict(enumerate(NAMES))
    return model


def trained() -> nn.Module:
    """The network as this file trained it."""
    return load(network(), WEIGHTS)


def train(steps: int) -> nn.Module:
    """Train the network with its own loss, on scenes that are all new."""
    from ultralytics.cfg import get_cfg

    torch.manual_seed(0)
    model = network()
    model.args = get_cfg()
    return fit(model, lambda scenes: model(_batch(scenes))[0].sum() / len(scenes), steps, rate=4e-3, clip=10)


def fit(
    model: nn.Module, loss: Callable[[list[Scene]], Tensor], steps: int, *, rate: float, clip: float, batch: int = 8
) -> nn.Module:
    """Train a model on scenes that are all new; losses are printed.

    Args:
        model: its weights are changed.
        loss: of some scenes.
        steps: how many batches it sees.
        rate: the highest one of learning.
        clip: the largest norm of a step's gradient.
        batch: scenes in each.
    """
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        found = loss([scene(1000 + step * batch + number) for number in range(batch)])
        optimizer.zero_grad()
        found.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        schedule.step()
        if step % 25 == 0:
            print(f"step {step}: loss {float(found.detach()):.3f}", flush=True)
    return model.eval()


def _batch(scenes: list[Scene]) -> dict[str, Tensor]:
    """What ultralytics' losses take: boxes are (centre x, centre y, width, height) in units of the picture."""
    corners = torch.tensor([box for each in scenes for box in each.boxes]) / SIDE
    boxes = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
    return {
        "img": torch.stack([torch.from_numpy(each.pixels).permute(2, 0, 1).float() / 255 for each in scenes]),
        "cls": torch.tensor([[label] for each in scenes for label in each.labels]).float(),
        "bboxes": boxes,
        "batch_idx": torch.tensor([number for number, each in enumerate(scenes) for _ in each.labels]).float(),
    }


def save(model: nn.Module, file: Path) -> None:
    """Write its weights in half precision, and say how large the file is."""
    file.parent.mkdir(exist_ok=True)
    save_file(_kept(model), file)
    print(f"{file.stat().st_size} bytes", flush=True)


def load(model: nn.Module, file: Path) -> nn.Module:
    """The model with the weights that `save` wrote."""
    weights = {name: kept.float() for name, kept in load_file(file).items()}
    missing, unknown = model.load_state_dict(weights, strict=False)
    assert not unknown
    assert set(missing) <= set(model.state_dict()) - set(_kept(model))
    return model.eval()


def _kept(model: nn.Module) -> dict[str, Tensor]:
    """What is saved of a model: its numbers, tensors that are shared once."""
    found, seen = {}, set()
    for name, value in model.state_dict().items():
        if value.is_floating_point() and value.data_ptr() not in seen:
            seen.add(value.data_ptr())
            found[name] = value.half().contiguous()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=260)
    save(train(parser.parse_args().steps), WEIGHTS)
