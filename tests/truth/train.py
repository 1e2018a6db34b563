"""Trains the models of `tests.truth.models` and writes their weights, as halves, to tests/truth/data.

    PYTHONPATH=src OMP_NUM_THREADS=1 python -m tests.truth.train [NAME ...]

Every model takes a minute or two on one core. Seeds are fixed, so that the same machine makes the same weights again;
on another one they differ in their last digits, and the maps with them.
"""

from __future__ import annotations

import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.truth.models import ALL, DATA, Case, accuracy, places
from tests.truth.scenes import Scenes


def train(case: Case, *, steps: int | None = None, told: bool = False) -> nn.Module:
    """The model of `case` in eval mode, after AdamW with one cycle of the learning rate."""
    torch.manual_seed(0)
    model = case.build()
    steps = steps or case.steps
    optimizer = torch.optim.AdamW(model.parameters(), case.rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, case.rate, total_steps=steps, pct_start=0.2)
    for step in range(1, steps + 1):
        seen = case.scene(case.batch, seed=step)
        loss = _loss(case, model.train(), seen)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if told and step % 100 == 0:
            print(f"  {step}: loss {loss.item():.3f}, accuracy {accuracy(case, model, 200):.3f}", flush=True)
    return model.eval()


def _loss(case: Case, model: nn.Module, seen: Scenes) -> Tensor:
    if case.task == "boxes":
        marks = [kinds < seen.masks.shape[1] for kinds in seen.kinds]
        truth = [
            {"boxes": boxes[mark], "labels": kinds[mark] + 1}
            for boxes, kinds, mark in zip(seen.boxes, seen.kinds, marks, strict=True)
        ]
        return torch.stack(list(model(case.inputs(seen), truth).values())).sum()
    if case.task == "places":
        return F.cross_entropy(model(seen.images), places(seen))
    return F.binary_cross_entropy_with_logits(model(seen.images), seen.labels.float())


def save(case: Case, model: nn.Module) -> None:
    """The model's state in float16, read-only numbers that differ from the trained ones by a 2,000th."""
    DATA.mkdir(exist_ok=True)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    torch.save(halves, case.file)


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    for name in names or list(ALL):
        case, start = ALL[name], time.perf_counter()
        print(name, flush=True)
        save(case, train(case, told=True))
        reached = accuracy(case, case.model())
        size = case.file.stat().st_size / 1e3
        print(f"{name}: accuracy {reached:.4f}, {size:.0f} kB, {time.perf_counter() - start:.0f} s", flush=True)
        if reached < case.least:
            case.file.unlink()
            raise SystemExit(f"{name} is not accurate enough: its maps would not be judged")


if __name__ == "__main__":
    main(sys.argv[1:])
