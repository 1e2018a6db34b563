"""How much of the batched explainer's speed the command line keeps: with overlays, without pictures, with figures.

    PYTHONPATH=src python -m benchmarks.cli [--photographs 64] [--batch-size 16] [--model default] [--repeats 3]

Each way explains the same photographs, in processes of their own that are timed without the start of Python and the
model's construction. The explainer reads the files itself, as the command line does. Medians; a table on stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageOps

import seewhy
from seewhy import samples
from seewhy.apps.cli.commands import app

FLOORS = {"overlays": 0.7, "no pictures": 0.9}
WAYS = {
    "overlays": ["--no-figure"],
    "no pictures": ["--no-figure", "--no-overlay"],
    "overlays and figures": [],
}


def photographs(folder: Path, count: int) -> list[Path]:
    """JPEG files of 640 x 480 from the two samples, mirrored and shifted, so that no two are the same."""
    sources = [Image.open(samples.path(name)).convert("RGB") for name in ("chelsea.png", "coffee.png")]
    paths = []
    for number in range(count):
        photo = sources[number % 2]
        photo = ImageOps.mirror(photo) if number % 4 > 1 else photo
        shift = number % 40
        photo = photo.crop((shift, 0, photo.width, photo.height)).resize((640, 480))
        paths.append(folder / f"{number:04}.jpg")
        photo.save(paths[-1], quality=90)
    return paths


def explained(paths: list[Path], model: str, batch_size: int) -> float:
    """Seconds that the explainer takes in batches."""
    explainer = seewhy.Explainer(seewhy.load(model, weights="pretrained" if model == "default" else None))
    explainer(list(map(str, paths[:2])))
    start = time.perf_counter()
    for first in range(0, len(paths), batch_size):
        explainer(list(map(str, paths[first : first + batch_size])))
    return time.perf_counter() - start


def commanded(paths: list[Path], model: str, batch_size: int, options: list[str], out: Path) -> float:
    """Seconds that `seewhy explain` takes, less those for a run without photographs, which builds the model."""
    weights = [] if model == "default" else ["--weights", "none"]
    command = ["explain", "--model", model, *weights, "--batch-size", str(batch_size), "--json", *options]

    def run(arguments: list[str], where: Path) -> float:
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            app([*command, "--out", str(where), *arguments], standalone_mode=False)
        return time.perf_counter() - start

    few = run(list(map(str, paths[:2])), out / "few")
    return (run(list(map(str, paths)), out / "all") - few) * len(paths) / (len(paths) - 2)


def main() -> None:
    """Measure every way, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--model", default="default")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    seconds: dict[str, list[float]] = {"explainer in batches": [], **{way: [] for way in WAYS}}
    with tempfile.TemporaryDirectory() as folder:
        paths = photographs(Path(folder), given.photographs)
        for repeat in range(given.repeats):
            seconds["explainer in batches"].append(explained(paths, given.model, given.batch_size))
            for way, options in WAYS.items():
                out = Path(folder, f"{way}-{repeat}")
                seconds[way].append(commanded(paths, given.model, given.batch_size, options, out))
    medians = {way: statistics.median(found) for way, found in seconds.items()}
    reference = medians["explainer in batches"]
    print(f"{given.photographs} photographs of 640 x 480, model {given.model}, batches of {given.batch_size}, seconds")
    print()
    print("| | seconds | share of the explainer's speed | at least |")
    print("|---|---:|---:|---:|")
    for way, median in medians.items():
        floor = f"{FLOORS[way]:.1f}" if way in FLOORS else ""
        print(f"| {way} | {median:.2f} | {reference / median:.2f} | {floor} |")


if __name__ == "__main__":
    main()
