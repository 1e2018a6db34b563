"""What changing the import changes: the same calls under grad-cam and its drop-in, in one process.

    PYTHONPATH=src python benchmarks/migration.py       # resnet18, 8 images; writes benchmarks/results/migration.md
    PYTHONPATH=src python benchmarks/migration.py --epsilons    # what grad-cam's additions to denominators move

Each round calls both packages in turn, so that what else the machine does falls on both; seconds are medians, and so is
their ratio over rounds. Memory is the peak above what the process held before the call, on Linux. The difference is
the largest between the two packages' maps in [0, 1], as they come and with `upstream_exact=True`; of RandomCAM it is
that of two draws.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytorch_grad_cam
import pytorch_grad_cam.metrics.road
import torch
import torchvision
from cost import peak, surroundings
from torch import Tensor, nn

import seewhy.compat.pytorch_grad_cam
import seewhy.compat.pytorch_grad_cam.metrics.road
from seewhy.compat.pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

OURS, UPSTREAM = seewhy.compat.pytorch_grad_cam, pytorch_grad_cam
PLAIN = (
    "GradCAM", "HiResCAM", "GradCAMElementWise", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "EigenCAM", "EigenGradCAM",
    "SegEigenCAM", "KPCA_CAM", "FEM", "ShapleyCAM", "RefineCAM", "FinerCAM", "FullGrad", "RandomCAM",
)  # fmt: skip
SLOW = ("ScoreCAM", "AblationCAM", "SESS")  # one image: grad-cam takes minutes for more
Run = Callable[[], Any]


@dataclass(frozen=True)
class Setting:
    """What both packages are called with."""

    model: nn.Module
    images: Tensor

    def call(self, package: ModuleType, name: str, **exact: bool) -> Run:
        """A call as a script makes it, object and all; `exact` is for ours only."""
        kind, _, option = name.partition(", ")
        images = self.images[:1] if kind in (*SLOW, "ROADMostRelevantFirst") else self.images
        targets = [ClassifierOutputTarget(1)] * len(images)
        if kind == "ROADMostRelevantFirst":
            metric = package.metrics.road.ROADMostRelevantFirst(80, **exact)
            side = torch.linspace(0, 1, images.shape[-1])
            maps = (side[:, None] * side.flip(0) + side[:, None] / 7)[None].numpy() / 2
            return lambda: metric(images, maps, targets, self.model)
        options = {"num_scales": 2} if kind == "SESS" else {}
        smooth = {option: True} if option else {}

        make = getattr(package, kind)
        return lambda: make(self.model, [self.model.layer4], **options, **exact)(images, targets, **smooth)


def measure(setting: Setting, name: str, rounds: int) -> str:
    """A row of the table."""
    runs = {"theirs": setting.call(UPSTREAM, name), "ours": setting.call(OURS, name)}
    found = {who: run() for who, run in runs.items()}
    exact = setting.call(OURS, name, upstream_exact=True)()
    seconds: dict[str, list[float]] = {who: [] for who in runs}
    for _ in range(rounds):
        for who, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[who].append(time.perf_counter() - start)
    times = {who: statistics.median(taken) for who, taken in seconds.items()}
    ratio = statistics.median(a / b for a, b in zip(seconds["theirs"], seconds["ours"], strict=True))
    memory = {who: peak("cpu", run) / 1e6 for who, run in runs.items()}
    differences = [float(np.abs(maps - found["theirs"]).max()) for maps in (found["ours"], exact)]
    return (
        f"| {name} | {times['theirs']:.3f} | {times['ours']:.3f} | {ratio:.1f} "
        f"| {memory['theirs']:,.0f} MB | {memory['ours']:,.0f} MB | {differences[0]:.0e} | {differences[1]:.0e} |"
    )


def epsilons(name: str, factor: float, size: float) -> float:
    """The largest difference between both packages' maps over ten small networks.

    factor: what is explained is so many times the score of a class. size: of the layer's activations.
    """

    def target(scores: Tensor) -> Tensor:
        return factor * scores[1]

    worst = 0.0
    for seed in range(10):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 10, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(640, 16), nn.Tanh(), nn.Linear(16, 5),
        ).eval()  # fmt: skip
        with torch.no_grad():
            model[2].weight *= size
            model[2].bias *= size
            model[5].weight /= size
        images = torch.randn(2, 3, 32, 32)
        theirs, ours = (getattr(of, name)(model, [model[3]])(images, [target] * 2) for of in (UPSTREAM, OURS))
        worst = max(worst, float(np.abs(theirs - ours).max()))
    return worst


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--epsilons", action="store_true", help="only what additions to denominators move")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # random weights make dull maps
    if options.epsilons:
        for factor in (1, 1e-2, 1e-4):
            print(f"GradCAMPlusPlus, {factor:g} times the score: {epsilons('GradCAMPlusPlus', factor, 1):.1g}")
        for size in (1, 1e-4, 1e-8):
            print(f"XGradCAM, activations {size:g} times as large: {epsilons('XGradCAM', 1, size):.1g}")
        return
    torch.manual_seed(0)
    model = torchvision.models.get_model(options.model, weights=None).eval()
    setting = Setting(model, torch.randn(options.images, 3, options.size, options.size))
    lines = [
        f"{options.model} with random weights, {options.images} images of {options.size}x{options.size}, layer4; "
        f"median of {options.rounds} interleaved rounds. ScoreCAM, AblationCAM, SESS (two scales) and "
        "ROADMostRelevantFirst: one image.",
        "",
        surroundings("cpu"),
        "",
        "| | grad-cam, s | seewhy, s | times faster | grad-cam, peak | seewhy, peak | difference | `upstream_exact` |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    print("\n".join(lines))
    for name in (*PLAIN, "GradCAM, aug_smooth", "GradCAM, eigen_smooth", *SLOW, "ROADMostRelevantFirst"):
        lines.append(measure(setting, name, min(options.rounds, 2) if name in SLOW else options.rounds))
        print(lines[-1], flush=True)
    options.out.mkdir(exist_ok=True)
    text = "# The same calls under grad-cam and its drop-in\n\n" + "\n".join(lines)
    (options.out / "migration.md").write_text(text + "\n\nWritten by `benchmarks/migration.py`.\n")


if __name__ == "__main__":
    main()
