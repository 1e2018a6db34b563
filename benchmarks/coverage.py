"""Does the automatic choice hold on every family of models? Layer, grid and verdict for each, with random weights.

    python benchmarks/coverage.py [--suite timm] [--only NAME] [--again]

One member of every module of timm, every family of torchvision's classifiers, video classifiers, segmenters and
detectors, and transformers' image classifiers. A map counts only if it is finite, not flat, has the input's aspect
ratio, is coarser than the input, comes from the second half of the network and lies over the input the right way
round: of all ways to arrange the quadrants the true one agrees best with where the layer changes as each is blanked.

Results are kept in results/coverage.json, and the members, which take minutes to find, in results/families.json, so
that a run can be stopped and goes on where it was; results/coverage.md is the table.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from threading import Timer
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

RESULTS = Path(__file__).parent / "results"
SECONDS = 300  # for one model, on a shared core
CLASSES = 10
DRAWS = 4  # batches of images: noise of one network and one input is not evidence
SIZE, LARGE = (128, 192), (224, 320)  # not square, where the model allows

Built = tuple[nn.Module, Any, Callable[[Any], Tensor] | None]  # model, inputs, target


# what is judged: suite -> names, and how to build one


def smallest(names: list[str], build: Callable[[str], nn.Module]) -> str:
    """The model with the fewest parameters, by building all of them without any."""
    counts = {}
    for name in names:
        try:
            with torch.device("meta"):
                counts[name] = sum(parameter.numel() for parameter in build(name).parameters())
        except Exception:  # some cannot be made on the meta device; their siblings can
            continue
    return min(counts, key=counts.__getitem__) if counts else names[0]


def timm_names() -> list[str]:
    import timm

    return [smallest(timm.list_models(module=module), timm.create_model) for module in timm.list_modules()]


def timm_builds(name: str) -> Iterator[Callable[[], Built]]:
    import timm

    _, height, width = timm.get_pretrained_cfg(name).input_size
    sizes: list[tuple[dict[str, Any], tuple[int, int]]] = [
        ({"img_size": SIZE}, SIZE),
        ({}, SIZE),
        ({}, LARGE),
        ({}, (height, width)),
    ]
    for options, size in sizes:
        yield lambda options=options, size=size: (
            timm.create_model(name, num_classes=CLASSES, **options),
            images(*size),
            None,
        )


def torchvision_names(package: Any) -> list[str]:
    """The smallest model of each module of one of torchvision's packages."""
    from torchvision import models

    families: dict[str, list[str]] = {}
    for name in models.list_models(module=package):
        families.setdefault(models.get_model_builder(name).__module__, []).append(name)

    def build(name: str) -> nn.Module:
        parts = {} if package in (models, models.video) else {"weights_backbone": None}
        return models.get_model(name, weights=None, **parts)

    return [smallest(names, build) for names in families.values()]


def torchvision_builds(name: str) -> Iterator[Callable[[], Built]]:
    import torchvision

    options: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    for size in (SIZE, LARGE, (224, 224), (299, 299)):
        yield lambda size=size: (
            torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **options),
            images(*size),
            None,
        )


def video_builds(name: str) -> Iterator[Callable[[], Built]]:
    import torchvision

    for frames, size in ((8, (96, 160)), (16, (96, 160)), (16, (224, 224))):
        yield lambda frames=frames, size=size: (
            torchvision.models.get_model(name, weights=None, num_classes=CLASSES),
            images(frames, *size)[:1],
            None,
        )


def segmenter_builds(name: str) -> Iterator[Callable[[], Built]]:
    import torchvision

    yield lambda: (
        torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES),
        images(*SIZE),
        lambda output: output["out"][:, 3].mean((-2, -1)),
    )


def detector_builds(name: str) -> Iterator[Callable[[], Built]]:
    import torchvision

    threshold = {"box_score_thresh" if "rcnn" in name else "score_thresh": 0.0}
    sizes = {} if name.startswith("ssd") else {"min_size": SIZE[0], "max_size": SIZE[1]}
    yield lambda: (
        torchvision.models.get_model(
            name, weights=None, weights_backbone=None, num_classes=CLASSES, **threshold, **sizes
        ),
        images(*SIZE),
        lambda output: torch.stack([boxes["scores"].sum() for boxes in output]),
    )


def transformers_names() -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    flat = [
        (kind, cls)
        for kind, found in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.items()
        for cls in (found if isinstance(found, tuple) else (found,))
    ]
    return [f"{kind}/{cls}" for kind, cls in flat]


def transformers_builds(name: str) -> Iterator[Callable[[], Built]]:
    import transformers

    kind, cls = name.split("/")

    def build(size: int | tuple[int, int] | None) -> Built:
        config = transformers.AutoConfig.for_model(kind, num_labels=CLASSES)
        vision = getattr(config, "vision_config", config)
        if isinstance(getattr(vision, "num_hidden_layers", None), int):
            vision.num_hidden_layers = min(vision.num_hidden_layers, 6)
        if size is not None and hasattr(vision, "image_size"):
            vision.image_size = size
        declared = getattr(vision, "image_size", 224)
        height, width = size or (declared if isinstance(declared, list | tuple) else (declared, declared))
        model = getattr(transformers, cls)(config)
        channels = getattr(vision, "num_channels", 3)
        given = images(height, width)[:, :1].expand(-1, channels, -1, -1) if channels != 3 else images(height, width)
        return model, {model.main_input_name: given}, None

    yield lambda: build(SIZE)
    yield lambda: build(LARGE)
    yield lambda: build(None)


def names_of(suite: str) -> list[str]:
    import torchvision.models as zoo

    if suite == "timm":
        return timm_names()
    if suite == "transformers":
        return transformers_names()
    package = {"torchvision": zoo, "video": zoo.video, "segmentation": zoo.segmentation, "detection": zoo.detection}
    return torchvision_names(package[suite])


BUILDS = {
    "timm": timm_builds,
    "torchvision": torchvision_builds,
    "video": video_builds,
    "segmentation": segmenter_builds,
    "detection": detector_builds,
    "transformers": transformers_builds,
}


def images(*space: int) -> Tensor:
    return torch.randn(2, 3, *space, generator=torch.Generator().manual_seed(1))


# how it is judged


def judge(suite: str, name: str) -> dict[str, Any]:
    """The row of one model: the first way to build it that runs and is right, else the last.

    A deep layer of a random network that sees all of a small input does not show which way round it lies; that of a
    larger one may.
    """
    row: dict[str, Any] = {"verdict": "not run"}
    for build in BUILDS[suite](name):
        torch.manual_seed(0)
        try:
            model, inputs, target = build()
            model.eval()
            awaken(
                model, lambda model=model, inputs=inputs: model(**inputs) if isinstance(inputs, dict) else model(inputs)
            )
        except Exception as error:  # this size is not for this model
            if row["verdict"] == "not run":
                row["reason"] = f"{type(error).__name__}: {error}".splitlines()[0][:160]
            continue
        row = verdict(model, inputs, target)
        if row["verdict"] in ("right", "refused"):
            break
    return row


def awaken(model: nn.Module, inputs: Any) -> None:
    """Make random weights pass signals on: no zeros, no layer scales near zero, and norms that know some batches.

    A norm behind a global average sees as few values as there are images: the variance of two can be almost zero, and
    what that divides explodes. So the statistics are the mean of those of several batches.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    with torch.no_grad():
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                if parameter.ndim > 1 and not parameter.any() and isinstance(module, nn.Linear | nn.Conv2d):
                    nn.init.normal_(parameter, std=0.02)
                elif parameter is not getattr(module, "bias", None) and near_zero(parameter):
                    nn.init.ones_(parameter)
        for norm in norms:
            norm.train().reset_running_stats()
            norm.momentum = None  # the mean of all batches
        for seed in range(DRAWS if norms else 0):
            answer(model, inputs, redrawn(inputs, seed))
    model.eval()


def near_zero(parameter: Tensor) -> bool:
    """Whether a parameter is a scale that starts at zero, or so near that what it scales would not matter."""
    low, high = parameter.aminmax()
    return parameter.numel() > 1 and bool(low == high) and abs(high.item()) < 0.1


def redrawn(inputs: Any, seed: int) -> Tensor:
    """Another batch of images like those in `inputs`."""
    return torch.randn(first(inputs).shape, generator=torch.Generator().manual_seed(100 + seed))


def first(inputs: Any) -> Tensor:
    return next(iter(inputs.values())) if isinstance(inputs, dict) else inputs


def answer(model: nn.Module, inputs: Any, image: Tensor) -> Any:
    """The model's outputs for `inputs` with another image in them."""
    return model(**{**inputs, next(iter(inputs)): image}) if isinstance(inputs, dict) else model(image)


def verdict(model: nn.Module, inputs: Any, target: Any) -> dict[str, Any]:
    import seewhy
    from seewhy.errors import SeewhyError
    from seewhy.layers import look

    image = next(iter(inputs.values())) if isinstance(inputs, dict) else inputs
    row: dict[str, Any] = {"input": " x ".join(map(str, image.shape[1:]))}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            explanation = seewhy.explain(model, inputs, target)
        seen = {call.label: call for call in look(model, inputs)}[explanation.layers[0]]
    except SeewhyError as error:
        return row | {"verdict": "refused", "reason": " ".join(str(error).split())[:300]}
    (label, found), space = next(iter(explanation.maps.items())), image.shape[2:]
    grid = tuple(found.shape[1:])
    row |= {"layer": label, "grid": seen.grid.layout, "depth": round(seen.depth, 2)}
    rows, columns = grid[-2:]
    tests = {
        "not finite": bool(found.isfinite().all()),
        "flat": bool((found.flatten(1).amax(1) > found.flatten(1).amin(1)).all()),
        "another aspect ratio": abs(rows * space[-1] - columns * space[-2]) <= 1.5 * max(space[-2:]),
        "as fine as the input": rows < space[-2] and columns < space[-1],
        "first half": seen.depth >= 0.5,
        "wrong way round": oriented(model, inputs, image, seen),
    }
    failed = [problem for problem, passed in tests.items() if not passed]
    return row | {"verdict": "wrong: " + ", ".join(failed) if failed else "right"}


def oriented(model: nn.Module, inputs: Any, image: Tensor, seen: Any) -> bool:
    """Whether blanking each quadrant of the input shows best in the layer where that quadrant is.

    Of all ways to put the quadrants in order the true one must agree best with where the layer changes, as shares of
    the whole change: deep layers see all of the input. Of a volume or video the quadrant is
    blanked in the first half of the time, and that half must change more than the other.
    """
    module, call = model.get_submodule(seen.name), int(seen.label.rpartition("#")[2]) if "#" in seen.label else 0

    def folded(given: Tensor) -> Tensor:
        from seewhy.capture.tape import activation_in

        kept: list[Tensor] = []
        handle = module.register_forward_hook(
            lambda _m, _a, output: kept.append(activation_in(output).detach().clone())
        )
        try:
            with torch.no_grad():
                model(**{**inputs, next(iter(inputs)): given}) if isinstance(inputs, dict) else model(given)
        finally:
            handle.remove()
        return seen.grid.fold(kept[call]).float()

    before = folded(image)
    corners = [(row, column) for row in (0, 1) for column in (0, 1)]
    shares: dict[tuple[int, int], Tensor] = {}
    for corner in corners:
        blanked = image.clone()
        quadrant(blanked, corner).zero_()
        change = (folded(blanked) - before).abs().mean((0, 1))
        if (
            change.ndim == 3
            and change.shape[0] > 1
            and quadrant(change, corner).mean() <= quadrant(change.flip(0), corner).mean()
        ):
            return False  # the half of time that was not blanked changed more
        shares[corner] = torch.stack([quadrant(change, place).mean() for place in corners]) / change.mean()
    table = torch.stack([shares[corner] for corner in corners]).tolist()  # what is blanked, where it shows

    def agreement(arrangement: tuple[int, ...]) -> float:
        return sum(row[place] for row, place in zip(table, arrangement, strict=True))

    return max(permutations(range(len(corners))), key=agreement) == tuple(range(len(corners)))


def quadrant(tensor: Tensor, corner: tuple[int, int]) -> Tensor:
    """The view of one quadrant of the last two dimensions, middles of odd sizes left out; of time the first half."""
    for dim, end in zip((-2, -1), corner, strict=True):
        half = max(1, tensor.shape[dim] // 2)
        tensor = tensor.narrow(dim, tensor.shape[dim] - half if end else 0, half)
    is_volume = tensor.ndim in (3, 5)
    return tensor.narrow(-3, 0, max(1, tensor.shape[-3] // 2)) if is_volume else tensor


# running and writing


def work(pairs: list[tuple[str, str]]) -> None:
    """Judge each and print a line of JSON for it; what a worker process does."""
    for suite, name in pairs:
        start = time.perf_counter()
        row = judge(suite, name)
        print(
            json.dumps({"suite": suite, "model": name, "seconds": round(time.perf_counter() - start), **row}),
            flush=True,
        )
        gc.collect()


def run(pairs: list[tuple[str, str]], results: dict[str, Any]) -> None:
    """Judge all, in processes that are replaced when a model takes too long or kills its process."""
    while pairs:
        command = [sys.executable, "-W", "ignore", __file__, "--worker", json.dumps(pairs[:20])]
        chunk, done = pairs[:20], 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            while done < len(chunk):
                timer = Timer(SECONDS, process.kill)
                timer.start()
                line = process.stdout.readline()
                timer.cancel()
                suite, name = chunk[done]
                row = (
                    json.loads(line)
                    if line
                    else {
                        "suite": suite,
                        "model": name,
                        "verdict": "not run",
                        "reason": f"over {SECONDS} s, or the process died",
                    }
                )
                results[f"{suite}/{name}"] = row
                print(row, flush=True)
                done += 1
                write(results)
                if not line:
                    break
        pairs = pairs[done:]


def write(results: dict[str, Any]) -> None:
    kept = RESULTS / "coverage.json"
    if kept.exists():  # another run may be at another suite
        results |= {key: row for key, row in json.loads(kept.read_text()).items() if key not in results}
    (RESULTS / "coverage.json").write_text(json.dumps(results, indent=1))
    lines = [
        "# The automatic choice of layer and grid, family by family",
        "",
        "Written by `benchmarks/coverage.py`; random weights.",
        "",
    ]
    lines += ["| suite | right | of |", "|---|---|---|"]
    for suite in BUILDS:
        rows = [row for row in results.values() if row["suite"] == suite]
        lines.append(f"| {suite} | {sum(row['verdict'] == 'right' for row in rows)} | {len(rows)} |")
    right = sum(row["verdict"] == "right" for row in results.values())
    lines += [
        f"| all | {right} | {len(results)} |",
        "",
        "| model | input | layer | grid | depth | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(results.values(), key=lambda row: (list(BUILDS).index(row["suite"]), row["model"])):
        told = row["verdict"] + (f": {row['reason']}" if "reason" in row else "")
        cells = (
            f"{row['suite']}: {row['model']}",
            row.get("input", ""),
            row.get("layer", ""),
            row.get("grid", ""),
            str(row.get("depth", "")),
            told.replace("|", "/"),
        )
        lines.append("| " + " | ".join(cells) + " |")
    (RESULTS / "coverage.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=BUILDS, help="only this one")
    parser.add_argument("--only", help="only models with this in their name")
    parser.add_argument("--again", action="store_true", help="judge again what was not right")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(json.loads(options.worker))
        return
    RESULTS.mkdir(exist_ok=True)
    kept = RESULTS / "coverage.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    families = RESULTS / "families.json"
    names = json.loads(families.read_text()) if families.exists() else {suite: names_of(suite) for suite in BUILDS}
    families.write_text(json.dumps(names, indent=1))
    pairs = [(suite, name) for suite in ([options.suite] if options.suite else BUILDS) for name in names[suite]]
    pairs = [
        (suite, name)
        for suite, name in pairs
        if (options.only or "") in name
        and (f"{suite}/{name}" not in results or (options.again and results[f"{suite}/{name}"]["verdict"] != "right"))
    ]
    run(pairs, results)


if __name__ == "__main__":
    main()
