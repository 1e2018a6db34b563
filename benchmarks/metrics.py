"""What each metric costs, against quantus, captum and grad-cam, in one run.

    PYTHONPATH=src python benchmarks/metrics.py            # resnet18, 8 images of 224 x 224; writes results/metrics.md
    PYTHONPATH=src python benchmarks/metrics.py --quick    # 2 images of 64 x 64, one round, few steps; writes nothing

Everything that is compared is run in turn, several times, and the median is told. `runs` is how often the model scores
each image. In the first table both sides run the model as often, so that only what is around the model differs; in
the second each works with as many steps as its own defaults ask for, the peer's cost being that of one step times their
number. Where quantus fails with today's NumPy or with colours, it is mended for the occasion, and the table says so.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import captum.metrics
import numpy as np
import pytorch_grad_cam.metrics.road
import quantus
import torch
import torchvision
from allocator import keep_buffers
from machine import hardware
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torch import Tensor, nn

from seewhy import metrics

CATEGORY = 281
MENDED = "np.trapz put back"


@dataclass(frozen=True)
class Row:
    """Two ways to the same number: `runs` and `peer_runs` of the model per image, the peer's scaled by `times`."""

    name: str
    peer: str
    runs: int
    ours: Callable[[], Any]
    peer_runs: int
    theirs: Callable[[], Any]
    times: float = 1.0
    note: str = ""


@dataclass(frozen=True)
class Case:
    """What all rows are about."""

    model: nn.Module
    images: Tensor
    maps: Tensor
    masks: Tensor
    steps: int

    @property
    def score(self) -> Any:
        return metrics.probability(self.model, CATEGORY)

    def explain(self, images: Tensor) -> Tensor:
        """The gradient of the score, as a map of the same cost for all libraries."""
        with torch.enable_grad():  # captum explains without
            images = images.detach().requires_grad_()
            return torch.autograd.grad(self.score(images).sum(), images)[0].abs().sum(1)

    def quantus(self, metric: Any, images: Tensor | None = None, **options: Any) -> Callable[[], Any]:
        """A run of `metric` on the images and maps, or on others than the images."""
        x = self.images if images is None else images
        measure = metric(disable_warnings=True, display_progressbar=False, **options)
        return lambda: measure(
            model=self.model,
            x_batch=x.numpy(),
            y_batch=np.full(len(x), CATEGORY),
            a_batch=self.maps[:, None].numpy().copy(),
            s_batch=self.masks[:, None].numpy(),
            channel_first=True,
            softmax=True,
            explain_func=lambda *_, inputs, **__: self.explain(torch.as_tensor(inputs))[:, None].numpy(),
            batch_size=len(x),
        )


def case(images: int, side: int, steps: int) -> Case:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval()
    x = torch.randn(images, 3, side, side)
    low = torch.rand(images, 1, 8, 8)
    maps = nn.functional.interpolate(low, (side, side), mode="bilinear")[:, 0]
    masks = torch.zeros(images, side, side, dtype=torch.bool)
    masks[:, side // 4 : side // 2, side // 4 : side // 2] = True
    return Case(model, x, maps, masks, steps)


def same_work(case: Case) -> list[Row]:
    """Both sides run the model equally often on each image."""
    x, maps, score, steps = case.images, case.maps, case.score, case.steps
    pixels, values = maps[0].numel(), x[0].numel()
    zero, each = {"perturb_baseline": 0.0}, values // steps
    shares = [number / (steps + 1) for number in range(1, steps + 1)]
    percents = [100 * share for share in shares]
    few = max(2, steps // 8)
    noise = {"lower_bound": 0.02}
    gray = x[:, :1].expand_as(x)  # quantus' IROF takes one channel only

    class Gray(nn.Module):
        """The model on an image with one channel."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = case.model

        def forward(self, one: Tensor) -> Any:
            return self.inner(one.expand(-1, 3, -1, -1))

    one_channel = Case(Gray().eval(), x[:, :1].clone(), maps, case.masks, steps)
    regions = metrics.superpixels(x[:, :1])
    count = int(regions.amax()) + 1
    targets = [ClassifierOutputSoftmaxTarget(CATEGORY)] * len(x)

    def captum_infidelity() -> Any:
        def perturb(images: Tensor) -> Any:
            change = 0.1 * torch.randn_like(images)
            return change, images - change

        attributions = maps[:, None].expand_as(x)
        return captum.metrics.infidelity(score, perturb, x, attributions, n_perturb_samples=steps, normalize=True)

    def noisy(images: Tensor) -> Tensor:
        return images - 0.1 * torch.randn_like(images)

    def captum_sensitivity() -> Any:
        return captum.metrics.sensitivity_max(
            lambda rows: (case.explain(rows[0] if isinstance(rows, tuple) else rows),), x, n_perturb_samples=few
        )

    def grad_cam_road() -> Any:
        metric = pytorch_grad_cam.metrics.road.ROADMostRelevantFirstAverage(percentiles=[100 - p for p in percents])
        return metric(x, maps.numpy(), targets, case.model)

    q, road = case.quantus, metrics.road_most_relevant_first
    return [
        Row(
            "pixel_flipping",
            "quantus",
            steps + 1,
            lambda: metrics.pixel_flipping(score, x, maps, steps=steps),
            steps,
            q(quantus.PixelFlipping, features_in_step=each, **zero),
        ),
        Row(
            "road_most_relevant_first",
            "quantus",
            steps,
            lambda: road(score, x, maps, shares=shares),
            steps,
            one_channel.quantus(quantus.ROAD, percentages=percents),
            note="one channel there: it refuses colours with such maps",
        ),
        Row(
            "road_most_relevant_first",
            "grad-cam",
            steps,
            lambda: road(score, x, maps, shares=shares),
            2 * steps,
            grad_cam_road,
            note="the image itself is scored anew for each share",
        ),
        Row(
            "infidelity",
            "captum",
            steps + 1,
            lambda: metrics.infidelity(score, x, maps, perturb=noisy, samples=steps),
            2 * steps,
            captum_infidelity,
        ),
        Row(
            "sensitivity_n",
            "quantus",
            steps + 1,
            lambda: metrics.sensitivity_n(score, x, maps, sizes=(pixels // 4,), subsets=steps),
            steps + 1,
            q(quantus.SensitivityN, features_in_step=each, **zero),
            note="correlated over images there, not over subsets",
        ),
        Row(
            "faithfulness_correlation",
            "quantus",
            steps + 1,
            lambda: metrics.faithfulness_correlation(score, x, maps, size=pixels // 10, subsets=steps),
            steps + 1,
            q(quantus.FaithfulnessCorrelation, nr_runs=steps, subset_size=values // 10, **zero),
        ),
        Row(
            "faithfulness_estimate",
            "quantus",
            steps + 1,
            lambda: metrics.faithfulness_estimate(score, x, maps, groups=steps),
            steps + 1,
            q(quantus.FaithfulnessEstimate, features_in_step=each, **zero),
        ),
        Row(
            "irof",
            "quantus",
            count + 1,
            lambda: metrics.irof(score, gray, maps, segments=regions),
            count + 1,
            one_channel.quantus(quantus.IROF, return_aggregate=False),
            note=f"one channel there, {MENDED}; superpixels are made there",
        ),
        Row(
            "max_sensitivity",
            "quantus",
            few + 1,
            lambda: metrics.max_sensitivity(case.explain, x, samples=few),
            few,
            q(quantus.MaxSensitivity, nr_samples=few, **noise),
        ),
        Row(
            "max_sensitivity",
            "captum",
            few + 1,
            lambda: metrics.max_sensitivity(case.explain, x, samples=few),
            few + 1,
            captum_sensitivity,
        ),
        Row(
            "average_sensitivity",
            "quantus",
            few + 1,
            lambda: metrics.average_sensitivity(case.explain, x, samples=few),
            few,
            q(quantus.AvgSensitivity, nr_samples=few, **noise),
        ),
        Row(
            "relative_input_stability",
            "quantus",
            few + 1,
            lambda: metrics.relative_input_stability(case.explain, x, outputs=case.model, samples=few),
            few,
            q(quantus.RelativeInputStability, nr_samples=few),
        ),
        Row(
            "relative_output_stability",
            "quantus",
            few + 1,
            lambda: metrics.relative_output_stability(case.explain, x, case.model, samples=few),
            few,
            q(quantus.RelativeOutputStability, nr_samples=few),
        ),
    ]


def maps_alone(case: Case) -> list[Row]:
    """No model is run."""
    x, maps, masks, k = case.images[:, :1], case.maps, case.masks, max(1, case.maps[0].numel() // 50)
    pairs: list[tuple[str, Callable[[], Any], Any, dict[str, Any]]] = [
        ("pointing_game", lambda: metrics.pointing_game(maps, masks), quantus.PointingGame, {}),
        ("relevance_mass", lambda: metrics.relevance_mass(maps, masks), quantus.RelevanceMassAccuracy, {}),
        ("relevance_rank", lambda: metrics.relevance_rank(maps, masks), quantus.RelevanceRankAccuracy, {}),
        (
            "top_k_intersection",
            lambda: metrics.top_k_intersection(maps, masks, k=k),
            quantus.TopKIntersection,
            {"k": k},
        ),
        ("entropy", lambda: metrics.entropy(maps), quantus.Complexity, {}),
        ("sparseness", lambda: metrics.sparseness(maps), quantus.Sparseness, {}),
    ]
    return [Row(name, "quantus", 0, ours, 0, case.quantus(peer, x, **options)) for name, ours, peer, options in pairs]


def defaults(case: Case) -> list[Row]:
    """As many steps as each library takes if it is not told; the peer's cost is that of a few steps, scaled."""
    x, maps, score = case.images, case.maps, case.score
    pixels, values, few = maps[0].numel(), x[0].numel(), 3
    each, zero = values // few, {"perturb_baseline": 0.0}
    return [
        Row(
            "pixel_flipping",
            "quantus",
            33,
            lambda: metrics.pixel_flipping(score, x, maps),
            values,
            case.quantus(quantus.PixelFlipping, features_in_step=each, **zero),
            times=values / few,
        ),
        Row(
            "faithfulness_estimate",
            "quantus",
            33,
            lambda: metrics.faithfulness_estimate(score, x, maps),
            values + 1,
            case.quantus(quantus.FaithfulnessEstimate, features_in_step=each, **zero),
            times=values / few,
        ),
        Row(
            "sensitivity_n",
            "quantus",
            8 * 33,
            lambda: metrics.sensitivity_n(score, x, maps),
            values + 1,
            case.quantus(quantus.SensitivityN, features_in_step=each, **zero),
            times=values / few,
        ),
        Row(
            "infidelity",
            "quantus",
            65,
            lambda: metrics.infidelity(score, x, maps),
            10 * pixels // 16,
            case.quantus(quantus.Infidelity, perturb_patch_sizes=[x.shape[-1]], n_perturb_samples=1, **zero),
            times=10 * pixels / 16,  # ten samples of all patches of 4 x 4, after one of the whole image
        ),
        Row(
            "faithfulness_correlation",
            "quantus",
            101,
            lambda: metrics.faithfulness_correlation(score, x, maps),
            101,
            case.quantus(quantus.FaithfulnessCorrelation, nr_runs=few, **zero),
            times=100 / few,
        ),
        *(
            Row(name, "quantus", 11, ours, 200, case.quantus(peer, nr_samples=few), times=200 / few)
            for name, ours, peer in (
                ("max_sensitivity", lambda: metrics.max_sensitivity(case.explain, x), quantus.MaxSensitivity),
                ("average_sensitivity", lambda: metrics.average_sensitivity(case.explain, x), quantus.AvgSensitivity),
                (
                    "relative_input_stability",
                    lambda: metrics.relative_input_stability(case.explain, x, outputs=case.model),
                    quantus.RelativeInputStability,
                ),
                (
                    "relative_output_stability",
                    lambda: metrics.relative_output_stability(case.explain, x, case.model),
                    quantus.RelativeOutputStability,
                ),
            )
        ),
    ]


def measured(rows: list[Row], repeats: int) -> list[tuple[float, float]]:
    """Seconds of ours and of the peer's for each row: medians of `repeats` rounds in which all take their turn."""
    runs = [run for row in rows for run in (row.ours, row.theirs)]
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(repeats + 1):
        for taken, run in zip(times, runs, strict=True):
            start = time.perf_counter()
            run()
            if turn or repeats == 1:  # the first round warms up
                taken.append(time.perf_counter() - start)
    middle = [statistics.median(taken) for taken in times]
    return [(ours, theirs * row.times) for row, ours, theirs in zip(rows, middle[::2], middle[1::2], strict=True)]


def table(rows: list[Row], images: int, repeats: int) -> str:
    lines = [
        "| metric | runs | ms / image | peer | runs | ms / image | peer / seewhy | |",
        "|---|---:|---:|---|---:|---:|---:|---|",
    ]
    for row, (ours, theirs) in zip(rows, measured(rows, repeats), strict=True):
        each, peers = (seconds / images * 1e3 for seconds in (ours, theirs))
        cells = (row.name, row.runs, f"{each:,.2f}", row.peer, f"{row.peer_runs:,}", f"{peers:,.2f}")
        lines.append("| " + " | ".join(map(str, (*cells, f"{theirs / ours:,.1f}", row.note))) + " |")
    return "\n".join(lines)


def surroundings() -> str:
    """The machine, and what runs on it."""
    packages = ", ".join(f"{package} {version(package)}" for package in ("torch", "quantus", "captum", "grad-cam"))
    return f"{hardware()}; {packages}"


def main() -> None:
    """Measure, print, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--steps", type=int, default=24, help="3 times a divisor of the pixels, as quantus wants")
    parser.add_argument("--quick", action="store_true", help="2 images of 64 x 64, one round, 6 steps; writes nothing")
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.images, options.side, options.steps = 1, 2, 64, 6
    warnings.simplefilter("ignore")
    setattr(np, "trapz", np.trapezoid)  # noqa: B010 - gone from NumPy 2.4, and quantus' IROF needs it
    start, asked = time.perf_counter(), case(options.images, options.side, options.steps)
    text = "\n".join(
        [
            "# What each metric costs",
            "",
            f"resnet18 with random weights, {options.images} images of {options.side} x {options.side}, float32;",
            f"medians of {options.repeats} rounds, all in turn. {surroundings()}.",
            "`runs`: how often the model scores each image. Ratios above 1 say how many times longer the peer takes.",
            "",
            "## With as many runs of the model",
            "",
            table(same_work(asked), options.images, options.repeats),
            "",
            "## Of maps alone",
            "",
            table(maps_alone(asked), options.images, options.repeats),
            "",
            "## With as many steps as each takes by default",
            "",
            "The peer's cost is that of three steps or samples, scaled.",
            "",
            table(defaults(asked), options.images, options.repeats),
            "",
        ]
    )
    print(text)
    print(f"{time.perf_counter() - start:.0f} s in all")
    if not options.quick:
        path = Path(__file__).parent / "results" / "metrics.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\nWritten by `benchmarks/metrics.py`.\n")


if __name__ == "__main__":
    keep_buffers()
    main()
