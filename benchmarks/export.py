"""The time of an exported explanation against that of the plain model, both in ONNX Runtime.

python -m benchmarks.export
"""

from __future__ import annotations

import logging
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from torch import nn
from torchvision import models

import seewhy

_MODELS: dict[str, Callable[[], nn.Module]] = {"resnet18": models.resnet18}
_METHODS = ("grad_cam", "layer_cam")
_ROUNDS = 9


def _ready(path: Path, images: torch.Tensor) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, given)


def _milliseconds(runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The median of each, taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(_ROUNDS + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number:  # the first is a warm-up
                taken[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    images = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    print("# An exported explanation against the plain model, in ONNX Runtime\n")
    print(
        f"4 images of 224 x 224, one thread, random weights; median of {_ROUNDS} runs in turns, {platform.machine()},"
    )
    print(f"onnxruntime {onnxruntime.__version__}. Printed by `python -m benchmarks.export`.\n")
    print("| model | program | ms | time / plain |\n|---|---|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for name, make in _MODELS.items():
            torch.manual_seed(0)
            model = make().eval()
            paths = {"plain": Path(folder) / "plain.onnx"}
            batch = {"x": {0: torch.export.Dim("batch")}}
            plain = torch.onnx.export(model, (images,), dynamo=True, verbose=False, dynamic_shapes=batch)
            plain.save(paths["plain"])
            for method in _METHODS:
                paths[method] = seewhy.export(model, images, Path(folder) / f"{method}.onnx", method=method)
            found = _milliseconds({each: _ready(path, images) for each, path in paths.items()})
            for each, taken in found.items():
                print(f"| {name} | {each} | {taken:.1f} | {taken / found['plain']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
