"""What a call costs beside the model, and what the guard costs: one image, small models and larger ones.

Each round times every way once, in turn, so that what else the machine does falls on all of them; the figures are
medians over the rounds. "Explainer" is one that is used again, at a layer chosen once; `seewhy.explain` is called anew
each time with the same model.

    python benchmarks/overhead.py               # prints the tables, and writes benchmarks/results/overhead.md
    python benchmarks/overhead.py --rounds 5 --no-file
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from allocator import keep_buffers
from machine import hardware, in_turn, load
from torch import nn

import seewhy
from seewhy.engine.guard import guard

RESULTS = Path(__file__).parent / "results" / "overhead.md"
GUARDS = 200


def small() -> nn.Sequential:
    """Three convolutions, as a person writes them for pictures of 32 x 32."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def cases() -> list[tuple[str, nn.Module, str, int]]:
    """Name, model, its last layer with space, and the side of its images."""
    from torchvision import models

    resnet, convnext = models.resnet18().eval(), models.convnext_tiny().eval()
    return [
        ("3 convolutions, 32 x 32", small().eval(), "7", 32),
        ("resnet18, 64 x 64", resnet, "layer4", 64),
        ("resnet18, 224 x 224", resnet, "layer4", 224),
        ("convnext_tiny, 224 x 224", convnext, "features", 224),
    ]


def ways(model: nn.Module, layer: str, images: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Grad-CAM of class 0 by every library that is installed, and a plain forward."""
    module = model.get_submodule(layer)
    explainer = seewhy.Explainer(model, layers=layer)

    def plain() -> object:
        with torch.inference_mode():
            return model(images)

    found: dict[str, Callable[[], object]] = {"plain": plain}
    try:
        from torchcam.methods import GradCAM as TorchCam

        def torchcam() -> object:
            with TorchCam(model, module) as extractor:
                return extractor(0, model(images))

        found["torchcam"] = torchcam
    except ImportError:
        print("torchcam is not installed: left out", file=sys.stderr)
    try:
        from captum.attr import LayerGradCam

        found["captum"] = lambda: LayerGradCam(model, module).attribute(images, target=0)
    except ImportError:
        print("captum is not installed: left out", file=sys.stderr)
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        cam = GradCAM(model=model, target_layers=[module])
        found["grad-cam"] = lambda: cam(input_tensor=images, targets=[ClassifierOutputTarget(0)])
    except ImportError:
        print("grad-cam is not installed: left out", file=sys.stderr)
    found["Explainer"] = lambda: explainer(images, 0).maps
    found["`seewhy.explain`"] = lambda: seewhy.explain(model, images, 0).maps
    return found


def medians(table: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, float]:
    """The median seconds of each way over interleaved rounds."""
    return {name: statistics.median(taken) for name, taken in in_turn(table, rounds, partial(_now, device)).items()}


def guards(device: str) -> dict[str, float]:
    """The median seconds of entering and leaving the guard, after a first call that was watched."""
    from torchvision.models import resnet50

    table: dict[str, Callable[[], object]] = {}
    for name, build, side in (("3 convolutions", small, 32), ("resnet50", resnet50, 224)):
        for mode in (False, True):
            model = build().train(mode).to(device)
            with guard(model), torch.no_grad():
                model(torch.zeros(1, 3, side, side, device=device))
            table[f"{name}, in {'train' if mode else 'eval'} mode"] = partial(_guarded, model)
    return medians(table, GUARDS, device)


def _guarded(model: nn.Module) -> None:
    with guard(model):
        pass


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-file", action="store_true", help="print only")
    options = parser.parse_args()
    keep_buffers()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")

    rows = {}
    for name, model, layer, side in cases():
        images = torch.randn(1, 3, side, side, device=options.device)
        rows[name] = medians(ways(model.to(options.device), layer, images), options.rounds, options.device)
    columns = list(next(iter(rows.values())))
    libraries = ("torchvision", "torchcam", "captum", "grad-cam")
    versions = ", ".join(f"{library} {importlib.metadata.version(library)}" for library in libraries)
    busy = f"{load()}; " if load() else ""
    text = [
        "# What a call costs beside the model",
        "",
        f"Grad-CAM of one image, milliseconds: medians of {options.rounds} interleaved rounds in one process.",
        "",
        f"{hardware(options.device)}; {busy}Python {platform.python_version()}, torch {torch.__version__}, {versions}.",
        "",
        f"| | {' | '.join(columns)} |",
        f"|---|{'---:|' * len(columns)}",
        *(f"| {name} | {' | '.join(f'{1e3 * row[column]:.2f}' for column in columns)} |" for name, row in rows.items()),
        "",
        f"The guard, entered and left, milliseconds: medians of {GUARDS} interleaved rounds.",
        "",
        "| | |",
        "|---|---:|",
        *(f"| {name} | {1e3 * seconds:.3f} |" for name, seconds in guards(options.device).items()),
        "",
    ]
    print("\n".join(text))
    if not options.no_file:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text("\n".join(text))


if __name__ == "__main__":
    main()
