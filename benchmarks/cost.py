"""What an explanation costs: time and peak memory against plain inference and against the peers, in one run.

Every row is measured in rounds that go through all rows in turn: what disturbs the machine disturbs them all;
a ratio is the median over rounds of (row / plain inference of the same round). Memory is the peak above what the
process held before the call: on a GPU the allocator's, on Linux the high-water mark, in processes of their own.

    python benchmarks/cost.py                       # resnet50, 16 images; writes benchmarks/results/cost-cpu.md
    python benchmarks/cost.py --rounds 9 --device cuda
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from allocator import KEEPS_BUFFERS
from machine import hardware

BATCH, TARGETS = 16, 10


def rows(device: str) -> dict[str, Callable[[], object]]:
    """Every row of the table by name; the model, its layer and the inputs are the same for all."""
    import torch
    from torchvision.models import resnet50

    import seewhy

    torch.manual_seed(0)
    model = resnet50().eval().to(device)
    images = torch.randn(BATCH, 3, 224, 224, device=device)
    one = torch.zeros(BATCH, dtype=torch.long)
    ten = torch.arange(TARGETS).expand(BATCH, TARGETS)

    def plain() -> object:
        with torch.inference_mode():
            return model(images)

    def ours(method: str, target: torch.Tensor = one, **options: object) -> Callable[[], object]:
        explainer = seewhy.Explainer(model, method, **options)
        return lambda: explainer(images, target).maps

    table: dict[str, Callable[[], object]] = {"plain inference": plain}
    once = ("1 forward", "1 forward, 1 backward")
    listed = seewhy.methods.available().items()
    for name in [name for name, method in listed if method.cost in once and not method.attends]:
        table[f"seewhy {name}"] = ours(name)
    table[f"seewhy grad_cam, {TARGETS} targets"] = ours("grad_cam", ten)
    table["seewhy grad_cam, layer chosen in the call"] = lambda: seewhy.explain(model, images, one).maps
    table["seewhy grad_cam, layer3 and layer4"] = ours("grad_cam", layers=["layer3", "layer4"])
    table["seewhy grad_cam, eigen_smooth"] = ours("grad_cam", eigen_smooth=True)
    table["seewhy grad_cam, augment_smooth (6 views)"] = ours("grad_cam", augment_smooth=True)
    table |= peers(model, images)
    return table


def peers(model: object, images: object) -> dict[str, Callable[[], object]]:
    """The same with grad-cam, torchcam and captum, as far as they are installed."""
    table: dict[str, Callable[[], object]] = {}
    try:
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        targets = [ClassifierOutputTarget(0)] * BATCH
        for name in ("GradCAM", "HiResCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM"):
            cam = getattr(pytorch_grad_cam, name)(model=model, target_layers=[model.layer4])
            table[f"grad-cam {name}"] = lambda cam=cam: cam(input_tensor=images, targets=targets)
    except ImportError:
        print("grad-cam is not installed: left out", file=sys.stderr)
    try:
        from torchcam.methods import GradCAM

        def torchcam() -> object:
            with GradCAM(model, "layer4") as extractor:
                return extractor([0] * BATCH, model(images))

        table["torchcam GradCAM"] = torchcam
    except ImportError:
        print("torchcam is not installed: left out", file=sys.stderr)
    try:
        from captum.attr import LayerGradCam

        table["captum LayerGradCam"] = lambda: LayerGradCam(model, model.layer4).attribute(images, target=0)
    except ImportError:
        print("captum is not installed: left out", file=sys.stderr)
    return table


def measure_times(device: str, rounds: int) -> dict[str, tuple[float, float]]:
    """Per row the median seconds, and the median ratio to plain inference in the same round."""
    table = rows(device)
    seconds: dict[str, list[float]] = {name: [] for name in table}
    for number in range(rounds + 1):
        for name, run in _turned(table, number):
            start = time.perf_counter()
            run()
            _wait(device)
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    plain = seconds["plain inference"]
    return {
        name: (statistics.median(taken), statistics.median(a / b for a, b in zip(taken, plain, strict=True)))
        for name, taken in seconds.items()
    }


def _turned(table: dict[str, Callable[[], object]], by: int) -> list[tuple[str, Callable[[], object]]]:
    """The rows, each round beginning with another one: none always runs after the same one."""
    items = list(table.items())
    return items[by % len(items) :] + items[: by % len(items)]


def measure_memory(device: str, row: str, rounds: int) -> int:
    """Peak bytes of a call of `row` above what was held before it: the median over `rounds`, after one to warm up."""
    run = rows(device)[row]
    run()
    return int(statistics.median(peak(device, run) for _ in range(rounds)))


def peak(device: str, run: Callable[[], object]) -> int:
    import torch

    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # what the call before left for reuse would hide what this one takes
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def _wait(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def _in_process(arguments: list[str], environment: dict[str, str]) -> object:
    """The JSON that this script prints when it is run with `arguments` in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, env=os.environ | environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def surroundings(device: str) -> str:
    """The machine, and what runs on it, in a line."""
    packages = ("torch", "torchvision", "grad-cam", "torchcam", "captum")
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{hardware(device)}; Python {platform.python_version()}, {', '.join(versions)}"


def main() -> None:
    """Measure and write the table; with --part, print one measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # random weights make dull maps
    if options.part == "times":
        print(json.dumps(measure_times(options.device, options.rounds)))
        return
    if options.part:
        print(json.dumps(measure_memory(options.device, options.part, options.rounds)))
        return
    shared = ["--device", options.device, "--rounds", str(options.rounds)]
    times = _in_process([*shared, "--part", "times"], KEEPS_BUFFERS)
    lines = [
        f"resnet50, {BATCH} images of 224x224, float32, layer4; median of {options.rounds} interleaved rounds.",
        "",
        surroundings(options.device),
        "",
        "| | seconds | time / plain inference | peak memory above the model |",
        "|---|---:|---:|---:|",
    ]
    print("\n".join(lines))
    for name, (seconds, ratio) in times.items():
        peak = _in_process(["--device", options.device, "--rounds", "3", "--part", name], {})
        lines.append(f"| {name} | {seconds:.3f} | {ratio:.2f} | {peak / 1e6:,.0f} MB |")
        print(lines[-1], flush=True)
    options.out.mkdir(exist_ok=True)
    path = options.out / f"cost-{options.device}.md"
    path.write_text("# What an explanation costs\n\n" + "\n".join(lines) + "\n\nWritten by `benchmarks/cost.py`.\n")


if __name__ == "__main__":
    main()
