"""What it costs to capture every layer of resnet50, against a plain forward: `python benchmarks/hooks.py`.

Each round times every way once, in turn, so that what else the machine does falls on all of them; a way's cost is the
median over the rounds of its time divided by the plain forward's of the same round. Prints a table, and writes it to
benchmarks/results/hooks.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from allocator import keep_buffers
from machine import hardware, load
from torchvision.models import resnet50

import seewhy

RESULTS = Path(__file__).parent / "results" / "hooks.md"
ALLOWED = 1.1  # times a plain forward, where only a reduction is kept
REDUCTIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    "nothing": lambda _: None,
    "mean": torch.mean,
    "norm of each image": lambda tensor: torch.linalg.vector_norm(tensor.flatten(1), dim=1),
    # PyTorch reads no faster than half the memory's speed for these, in hooks by hand as in capture
    "norm of all": torch.linalg.vector_norm,
    "mean of absolute values": lambda tensor: tensor.abs().mean(),
}


def ways(model: torch.nn.Module) -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    """What to run the forward inside of, by name; the first is the measure of the others."""
    by_hand = {f"hooks by hand: {name}": partial(hooks_by_hand, model, f) for name, f in REDUCTIONS.items()}
    captured = {f"capture: {name}": partial(seewhy.capture, model, "**", reduce=f) for name, f in REDUCTIONS.items()}
    return {
        "plain forward": nullcontext,
        "plain forward, again": nullcontext,
        **by_hand,
        **captured,
        "capture: outputs": partial(seewhy.capture, model, "**"),
        "capture: outputs, copied at once": partial(seewhy.capture, model, "**", copy=True),
    }


@contextmanager
def hooks_by_hand(model: torch.nn.Module, reduce: Callable[[torch.Tensor], Any]) -> Iterator[list[Any]]:
    """What a person writes without seewhy; its cost is the reduction's own."""
    kept: list[Any] = []
    inner = [module for name, module in model.named_modules() if name]
    handles = [module.register_forward_hook(lambda _, __, output: kept.append(reduce(output))) for module in inner]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def measure(rounds: int, batch: int, size: int, device: str) -> dict[str, tuple[float, float, float, float]]:
    """By way: seconds (median), and its time / the plain forward's: lower quartile, median, upper quartile."""
    model = resnet50().eval().to(device)
    images = torch.randn(batch, 3, size, size, device=device)
    found = ways(model)
    seconds: dict[str, list[float]] = {name: [] for name in found}
    with torch.no_grad():
        for number in range(rounds + 1):  # the first round warms up
            names = list(found)
            for name in names[number % len(names) :] + names[: number % len(names)]:  # none always after the same one
                start = _now(device)
                with found[name]():
                    model(images)
                if number:
                    seconds[name].append(_now(device) - start)
    plain = seconds[next(iter(found))]
    rows = {}
    for name, spent in seconds.items():
        ratios = [one / other for one, other in zip(spent, plain, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows[name] = (statistics.median(spent), low, middle, high)
    return rows


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    keep_buffers()
    rows = measure(options.rounds, options.batch, options.size, options.device)
    costs = {name: rows[f"capture: {name}"][2] for name in REDUCTIONS}
    verdicts = (f"{name} {cost:.3f} ({'kept' if cost <= ALLOWED else 'NOT KEPT'})" for name, cost in costs.items())
    busy = f", {load()}" if load() else ""
    text = [
        "# Capturing every layer of resnet50",
        "",
        f"{options.batch} images of {options.size}x{options.size}, {hardware(options.device)}{busy}; "
        f"torch {torch.__version__}; {options.rounds} interleaved rounds.",
        "",
        "| | seconds, median | time / plain forward, median | quartiles |",
        "|---|---|---|---|",
        *(
            f"| {name} | {spent:.3f} | {middle:.3f} | {low:.3f} - {high:.3f} |"
            for name, (spent, low, middle, high) in rows.items()
        ),
        "",
        f"{ALLOWED} times a plain forward is allowed for keeping a reduction: {', '.join(verdicts)}.",
        "",
    ]
    print("\n".join(text))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text("\n".join(text))


if __name__ == "__main__":
    main()
