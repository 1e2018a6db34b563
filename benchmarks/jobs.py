"""What a run over a dataset costs: beside inference alone, in memory over many images, to start, to ask its table.

`python -m benchmarks.jobs` prints what is in results/jobs.md; `--images`, `--many` and `--rows` say how much is run.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

import seewhy
from benchmarks.machine import hardware, load
from seewhy.jobs import sink
from seewhy.jobs.events import Event
from seewhy.jobs.plan import Plan
from seewhy.jobs.planning import _part_size
from seewhy.models import Loaded, Preprocess

BATCH, WORKERS = 32, 1
SIZE = (375, 500)  # of the photographs, as most of ImageNet's

START = """
import sys, time
import torch, seewhy
seewhy.explain
model = seewhy.load("torchvision:resnet50", weights="none")
begin = time.perf_counter()
told = {}
seewhy.jobs.run(sys.argv[1], sys.argv[2], model=model, device="cpu", batch_size=1, workers=1,
                listener=lambda event: told.setdefault(event["event"], time.perf_counter() - begin))
print(told["start"], told["batch"])
"""


def photographs(folder: Path, count: int) -> Path:
    """JPEGs of smooth noise, some 60 kB each."""
    draws = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(draws.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(SIZE[::-1], 3)
        grain = draws.integers(-12, 13, (*SIZE, 3))
        levels = (np.asarray(coarse, np.int16) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(levels).save(folder / f"{number:05d}.jpg", quality=90)
    return folder


class Photographs(Dataset):
    """Files decoded as the model takes them."""

    def __init__(self, folder: Path, preprocess: Preprocess) -> None:
        self.names, self.preprocess = sorted(map(str, folder.iterdir())), preprocess

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.preprocess(self.names[index])


def inferred(folder: Path, model: Loaded) -> None:
    """The loop that decodes and infers."""
    loader = DataLoader(Photographs(folder, model.preprocess), batch_size=BATCH, num_workers=WORKERS)
    with torch.inference_mode():
        for images in loader:
            model.module(images).argmax(1)


@contextmanager
def clock(spent: list[float]) -> Iterator[None]:
    """Adds the seconds on the wall, and those of all processors, of this process and its workers, to `spent`."""
    wall, processor = time.perf_counter(), cpu()
    yield
    spent[0] += time.perf_counter() - wall
    spent[1] += cpu() - processor


def cpu() -> float:
    """Seconds of processors that this process and its finished children have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def throughput(name: str, folders: list[Path], scratch: Path) -> str:
    """A row: images per second of both, and the ratio. They take turns, some hundred images each."""
    model = seewhy.load(f"torchvision:{name}", weights="none")
    first = folders[0].parent / "first"
    seewhy.jobs.run(first, scratch / f"{name}-first", model=model, device="cpu", workers=WORKERS)
    inferred(first, model)
    plain, ours, planning = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    for number, folder in enumerate(folders):
        with clock(plain):
            inferred(folder, model)
        marks: list[tuple[float, float]] = []

        def mark(event: Event, marks: list[tuple[float, float]] = marks) -> None:
            if event["event"] == "start":
                marks.append((time.perf_counter(), cpu()))

        begin = time.perf_counter(), cpu()
        seewhy.jobs.run(folder, scratch / f"{name}-{number}", model=model, device="cpu", workers=WORKERS, listener=mark)
        end = time.perf_counter(), cpu()
        for place in range(2):
            planning[place] += marks[0][place] - begin[place]
            ours[place] += end[place] - marks[0][place]
    count = sum(len(list(folder.iterdir())) for folder in folders)
    return (
        f"| {name} | {count / plain[0]:.1f} | {count / ours[0]:.1f} | {plain[0] / ours[0]:.2f} | "
        f"{plain[1] / ours[1]:.2f} | {planning[0] / len(folders):.2f} |"
    )


class Generated(Dataset):
    """Images of 64 x 64 that are drawn when they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((3, 64, 64), (index % 251) / 251) + PATTERN, index % 10


PATTERN = torch.linspace(-1, 1, 64).expand(3, 64, 64).clone()


def tiny() -> Loaded:
    """Two convolutions and a head of ten classes."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip
    return Loaded(module.eval(), Preprocess(size=(64, 64), resize=64), tuple(f"class {n}" for n in range(10)), "tiny")


def resident() -> float:
    """MB of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(count: int, out: Path) -> str:
    """A row: memory of the process over the five parts after 10,000 images and the last five, medians: it swings."""
    seen: list[float] = []

    def look(event: Event) -> None:
        if event["event"] == "part" and event["done"] >= min(10_000, count // 4):
            seen.append(resident())

    begin = time.perf_counter()
    found = seewhy.jobs.run(Generated(count), out, model=tiny(), device="cpu", batch_size=256, workers=1, listener=look)
    spent = time.perf_counter() - begin
    early, late = statistics.median(seen[:5]), statistics.median(seen[-5:])
    sizes = [path.stat().st_size for path in sorted(out.glob("parts/*.parquet"))[:-1]]
    even = f"{min(sizes) / 2**20:.2f} to {max(sizes) / 2**20:.2f} MB"
    return f"| {found.images:,} | {early:.0f} MB | {late:.0f} MB | {late / early:.3f} | {even} | {count / spent:,.0f} |"


def copies(many: Path, rows: int, out: Path) -> Path:
    """A table of so many rows, whose parts are copies of one of `many`."""
    read = pq.read_table(next(iter(sorted(many.glob("parts/*.parquet")))))
    each = _part_size(rows, 32)  # as a run over so many images has them
    read = read.take([row % len(read) for row in range(each)])
    found = Plan.read(many)
    plan = Plan(**{**vars(found), "source": {**found.source, "samples": rows // each * each}, "part_size": each})
    sink.folder_of_parts(out).mkdir(parents=True)
    plan.write(out)
    for number in range(rows // each):
        keys = pa.array([f"{number * each + row:08d}" for row in range(each)])
        sink.write_part(out, number, [read.set_column(0, "key", keys)], each)
    return out


def asked(out: Path) -> str:
    """A row: seconds to open a table, to filter it by class, and to read one row of that."""
    opening, table = timed(lambda: seewhy.jobs.open(out))
    filtering, chosen = timed(lambda: table.filter(label="class 3"))
    row, _ = timed(lambda: chosen[len(chosen) // 2])
    return f"| {len(table):,} | {len(table._parts)} | {opening:.3f} | {filtering:.3f} | {len(chosen):,} | {row:.3f} |"


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call takes, and what it returns."""
    begin = time.perf_counter()
    found = function()
    return time.perf_counter() - begin, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000, help="JPEGs for the throughput; 0 leaves it out")
    parser.add_argument(
        "--many", type=int, default=100_000, help="generated images for the memory; 0 leaves it and the table out"
    )
    parser.add_argument("--rounds", type=int, default=4, help="turns that both loops take over them")
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="rows of the table that is asked; copies if more than --many"
    )
    parser.add_argument("--models", default="resnet18,resnet50", help="names of torchvision's for the throughput")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        print(f"{hardware()} of {os.cpu_count()} cores, torch {torch.__version__}; {load()}\n")
        if given.many:
            print("| images | memory after 10,000 | at the end | ratio | parts | images/s |")
            print("|---:|---:|---:|---:|---:|---:|")
            print(memory(given.many, scratch / "many"), flush=True)
            print(
                "\n| rows | parts | s to open | s to filter by class | rows found | s to read one as an explanation |"
            )
            print("|---:|---:|---:|---:|---:|---:|")
            many = scratch / "many"
            print(asked(many if given.many >= given.rows else copies(many, given.rows, scratch / "asked")), flush=True)
        if not given.images:
            return
        folders = [photographs(scratch / "photos" / str(n), given.images // given.rounds) for n in range(given.rounds)]
        photographs(scratch / "photos" / "first", BATCH)
        start = [sys.executable, "-c", START, str(folders[0].parent / "first"), str(scratch / "start")]
        planned, first = subprocess.run(start, check=True, capture_output=True, text=True).stdout.split()
        print(
            f"\nThe local engine on resnet50: {float(planned):.2f} s until the plan is made, {float(first):.2f} s until"
        )
        print("the first image is explained, beyond importing torch and seewhy and loading the model.\n")
        print("| model | decode + infer, images/s | run, images/s | ratio | ratio of processor time | s to plan |")
        print("|---|---:|---:|---:|---:|---:|")
        for model in given.models.split(","):
            print(throughput(model, folders, scratch), flush=True)


if __name__ == "__main__":
    main()
