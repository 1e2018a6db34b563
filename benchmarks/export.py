"""The time of an exported explanation beside that of the plain model, both in ONNX Runtime.

Each round runs every program once, in turn. The ratio is the median over the rounds, so that what else the machine does
falls on both.

    python benchmarks/export.py               # prints the table, and writes benchmarks/results/export.md
    python benchmarks/export.py --rounds 3 --no-file
"""

from __future__ import annotations

import argparse
import logging
import platform
import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from allocator import keep_buffers
from machine import hardware, in_turn, load
from torch import nn
from torchvision import models

import seewhy

RESULTS = Path(__file__).parent / "results" / "export.md"
MODELS: dict[str, Callable[[], nn.Module]] = {"resnet18": models.resnet18, "mobilenet_v2": models.mobilenet_v2}
METHODS = ("grad_cam", "layer_cam", "eigen_cam")
BATCH = 4


def programs(model: nn.Module, images: torch.Tensor, folder: Path) -> dict[str, Path]:
    """The plain model and its explanations as files."""
    batch = {next(iter(_names(model))): {0: torch.export.Dim("batch")}}
    plain = torch.onnx.export(model, (images,), dynamo=True, verbose=False, dynamic_shapes=batch)
    assert plain is not None
    plain.save(folder / "plain.onnx")
    written = {method: seewhy.export(model, images, folder / f"{method}.onnx", method=method) for method in METHODS}
    return {"plain": folder / "plain.onnx", **written}


def _names(model: nn.Module) -> list[str]:
    """What its forward calls its arguments."""
    return list(model.forward.__code__.co_varnames[1 : model.forward.__code__.co_argcount])


def ready(path: Path, images: torch.Tensor) -> Callable[[], object]:
    """A call of a program in a session of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, given)


def rows(name: str, model: nn.Module, images: torch.Tensor, rounds: int) -> list[str]:
    """The lines of one model."""
    with tempfile.TemporaryDirectory() as folder:
        calls = {each: ready(path, images) for each, path in programs(model, images, Path(folder)).items()}
        taken = in_turn(calls, rounds)
    lines = []
    for each, seconds in taken.items():
        ratio = statistics.median(own / plain for own, plain in zip(seconds, taken["plain"], strict=True))
        lines.append(f"| {name} | {each} | {1e3 * statistics.median(seconds):.1f} | {ratio:.2f} |")
    return lines


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--no-file", action="store_true", help="print only")
    options = parser.parse_args()
    keep_buffers()
    warnings.simplefilter("ignore")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    torch.manual_seed(0)
    images = torch.randn(BATCH, 3, 224, 224)
    lines = [
        "# An exported explanation beside the plain model, in ONNX Runtime",
        "",
        f"{BATCH} images of 224 x 224, random weights, one thread; medians of {options.rounds} interleaved rounds.",
        "Written by `python benchmarks/export.py`.",
        "",
        f"{hardware()} for torch; {load()}; Python {platform.python_version()}, torch {torch.__version__}, "
        f"onnxruntime {onnxruntime.__version__}.",
        "",
        "| model | program | ms | time / plain |",
        "|---|---|---:|---:|",
    ]
    for name, make in MODELS.items():
        lines += rows(name, make().eval(), images, options.rounds)
    text = "\n".join([*lines, ""])
    print(text)
    if not options.no_file:
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
