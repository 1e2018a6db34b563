"""Does the automatic choice hold on every family of models? Layer, grid and verdict for each, with random weights.

    python benchmarks/coverage.py [--suite timm] [--only NAME] [--again]

One member of every module of timm, every family of torchvision's classifiers, video classifiers, segmenters and
detectors, and of transformers every classifier of images and videos, segmenter, detector, estimator of depth and text-
image model; ultralytics' detectors and networks of MONAI's. A map counts only if it is finite, not flat, has the
input's aspect ratio, is coarser than the input, comes from the second half of the network and lies over the input the
right way round: of all ways to arrange the quadrants the true one agrees best with where the layer changes as each is
redrawn.

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
from functools import partial
from pathlib import Path
from threading import Timer
from typing import Any, NamedTuple

import torch
from small import CONFIGS, INPUTS, Queries
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

RESULTS = Path(__file__).parent / "results"
ROWS = RESULTS / "coverage.json"
VERDICTS = ("right", "refused", "wrong", "not run")
SECONDS = 300  # for one model, on a shared core
CLASSES = 10
DRAWS = 4  # batches of images: noise of one network and one input is not evidence
NETWORKS = 4  # random ones, until one shows which way round its layer lies
NOT_SHOWN = "which way round is not shown"
SIZE, LARGE = (128, 192), (256, 384)  # not square, where the model allows
CORNERS = [(row, column) for row in (0, 1) for column in (0, 1)]
# where the four corners come to lie: in their places; mirrored, turned, and rows for columns
ARRANGED = [
    (0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0), (0, 2, 1, 3), (3, 1, 2, 0), (1, 3, 0, 2), (2, 0, 3, 1),
]  # fmt: skip


class Built(NamedTuple):
    """A model to judge. target: None is the predicted class. options: how it differs from the library's own."""

    model: nn.Module
    inputs: Any
    target: Callable[[Any], Tensor] | None = None
    options: dict[str, Any] = {}  # noqa: RUF012  # never changed


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


FEWER = {"deepseek_vit_412m": {"depth": 2}, "gemma4_vit_167m": {"depth": 6}}  # blocks: as built they take minutes


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
        options |= FEWER.get(name, {})
        yield lambda options=options, size=size: Built(
            timm.create_model(name, num_classes=CLASSES, **options), images(*size), options=options
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
        yield lambda size=size: Built(
            torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **options), images(*size)
        )


def video_builds(name: str) -> Iterator[Callable[[], Built]]:
    import torchvision

    for frames, size in ((8, (96, 160)), (16, (96, 160)), (16, (224, 224))):
        yield lambda frames=frames, size=size: Built(
            torchvision.models.get_model(name, weights=None, num_classes=CLASSES), images(frames, *size)[:1]
        )


def segmenter_builds(name: str) -> Iterator[Callable[[], Built]]:
    import torchvision

    yield lambda: Built(
        torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES),
        images(*SIZE),
        lambda output: output["out"][:, 3].mean((-2, -1)),
    )


def detector_builds(name: str) -> Iterator[Callable[[], Built]]:
    """R-CNNs with a few boxes only: the heads of masks and keypoints run on each of a thousand, for minutes."""
    import torchvision

    few = {"box_score_thresh": 0.0, "box_detections_per_img": 5, "rpn_post_nms_top_n_test": 50}
    options = few if "rcnn" in name else {"score_thresh": 0.0}
    options |= {} if name.startswith("ssd") else {"min_size": SIZE[0], "max_size": SIZE[1]}
    yield lambda: Built(
        torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES, **options),
        images(*SIZE),
        lambda output: torch.stack([boxes["scores"].sum() for boxes in output]),
        options,
    )


# transformers' tables of models by task; of outputs that are no classes the mean score, mask or depth is explained
TASKS = {
    "transformers": ("IMAGE_CLASSIFICATION",),
    "transformers-video": ("VIDEO_CLASSIFICATION",),
    "transformers-text": ("ZERO_SHOT_IMAGE_CLASSIFICATION",),
    "transformers-segmentation": (
        "SEMANTIC_SEGMENTATION", "IMAGE_SEGMENTATION", "INSTANCE_SEGMENTATION", "UNIVERSAL_SEGMENTATION",
    ),
    "transformers-detection": ("OBJECT_DETECTION",),
    "transformers-depth": ("DEPTH_ESTIMATION",),
}  # fmt: skip
BLOCKS = 4  # of transformers' models, where none of them is read by its number
ANSWERS = ("predicted_depth", "masks_queries_logits", "logits", "video_embeds", "last_hidden_state")


def transformers_names(suite: str) -> list[str]:
    from transformers.models.auto import modeling_auto

    tables = [getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES") for task in TASKS[suite]]
    flat = [
        f"{kind}/{cls}"
        for table in tables
        for kind, found in table.items()
        for cls in (found if isinstance(found, tuple) else (found,))
    ]
    return list(dict.fromkeys(flat))


def transformers_builds(suite: str, name: str) -> Iterator[Callable[[], Built]]:
    import transformers

    from seewhy.models.sources.transformers import ImageSide

    kind, cls = name.split("/")

    def build(size: tuple[int, int] | None) -> Built:
        config = transformers.AutoConfig.for_model(kind, num_labels=CLASSES, **CONFIGS.get(kind, {}))
        for part in configs(config):
            read = any(hasattr(part, told) for told in ("out_features", "out_indices", "backbone_out_indices"))
            for blocks in () if read else ("num_hidden_layers", "encoder_layers", "decoder_layers"):
                if isinstance(getattr(part, blocks, None), int):
                    setattr(part, blocks, min(getattr(part, blocks), BLOCKS))
            if size is not None and hasattr(part, "image_size"):
                part.image_size = size
        vision = getattr(config, "vision_config", config)
        declared = getattr(vision, "image_size", None) or 224
        height, width = size or (declared if isinstance(declared, list | tuple) else (declared, declared))
        model = getattr(transformers, cls)(config)
        given = images(height, width)
        channels = getattr(vision, "num_channels", 3)
        given = given if channels == 3 else given[:, :1].expand(-1, channels, -1, -1)
        if suite == "transformers-video" or kind.startswith("video"):
            frames = (getattr(vision, key) for key in ("num_frames", "frames_per_clip") if hasattr(vision, key))
            given = images(next(frames, 4), height, width)[:1].transpose(1, 2)
        inputs = INPUTS.get(kind, lambda given: {model.main_input_name: given})(given)
        options = {"blocks": f"<= {BLOCKS}"} | CONFIGS.get(kind, {})
        if suite != "transformers-text":
            return Built(model, inputs, None if "CLASSIFICATION" in TASKS[suite][0] else mean_answer, options)
        side = Queries if kind == "blip-2" else ImageSide  # the side of the images, as seewhy.load does
        if kind != "videoprism" and kind not in INPUTS:
            return Built(side(model), given, lambda embedding: embedding.flatten(1)[:, ::2].sum(1), options)
        prompt = {"input_ids": torch.arange(1, 9).expand(len(given), -1)}
        return Built(model, inputs | prompt, mean_answer, options)

    yield lambda: build(SIZE)
    yield lambda: build(LARGE)
    yield lambda: build(None)


def configs(config: Any) -> Iterator[Any]:
    """A configuration and those of its parts."""
    from transformers import PretrainedConfig

    yield config
    for part in vars(config).values():
        if isinstance(part, PretrainedConfig):
            yield from configs(part)


def mean_answer(output: Any) -> Tensor:
    """(B,) of what a model without classes says: the mean of its scores, masks or depths, half of an embedding."""
    key = next(key for key in ANSWERS if key in output)
    return output[key].flatten(1)[:, :: 2 if "embeds" in key else 1].mean(1)


YOLOS = ["yolov8n", "yolov8n-seg", "yolo11n", "yolo12n", "yolo26n"]
SCANS: dict[str, dict[str, Any]] = {
    "DenseNet": {"spatial_dims": 3, "in_channels": 3, "out_channels": CLASSES, "block_config": (2, 2, 2)},
    "UNet": dict(spatial_dims=3, in_channels=3, out_channels=CLASSES, channels=(8, 16, 32), strides=(2, 2)),  # noqa: C408
    "SwinUNETR": {"in_channels": 3, "out_channels": CLASSES, "feature_size": 12, "depths": (1, 1, 1, 1)},
}


def yolo_builds(name: str) -> Iterator[Callable[[], Built]]:
    """The network from its YAML file; the score is the mean of all boxes' probabilities."""
    from ultralytics import YOLO

    def likely(found: Any) -> Tensor:
        if isinstance(found, dict):
            return found["dense_scores"].flatten(1).mean(1)
        return torch.stack([image["scores"].mean() for image in found])

    for size in (SIZE, LARGE):
        yield lambda size=size: Built(YOLO(f"{name}.yaml").model, images(*size), likely)


def scan_builds(name: str) -> Iterator[Callable[[], Built]]:
    from monai.networks import nets

    def mean_of_a_class(output: Tensor) -> Tensor:
        return output[:, 3].flatten(1).mean(1) if output.ndim > 2 else output[:, 3]

    for size in ((32, 64, 96), (64, 64, 64)):
        yield lambda size=size: Built(getattr(nets, name)(**SCANS[name]), images(*size)[:1], mean_of_a_class)


def names_of(suite: str) -> list[str]:
    import torchvision.models as zoo

    if suite in ("ultralytics", "monai"):
        return YOLOS if suite == "ultralytics" else list(SCANS)

    if suite == "timm":
        return timm_names()
    if suite in TASKS:
        return transformers_names(suite)
    package = {"torchvision": zoo, "video": zoo.video, "segmentation": zoo.segmentation, "detection": zoo.detection}
    return torchvision_names(package[suite])


BUILDS = {
    "timm": timm_builds,
    "torchvision": torchvision_builds,
    "video": video_builds,
    "segmentation": segmenter_builds,
    "detection": detector_builds,
    **{suite: partial(transformers_builds, suite) for suite in TASKS},
    "ultralytics": yolo_builds,
    "monai": scan_builds,
}


def images(*space: int) -> Tensor:
    return torch.randn(2, 3, *space, generator=torch.Generator().manual_seed(1))


# how it is judged


def judge(suite: str, name: str) -> dict[str, Any]:
    """The row of one model: the first way to build it that runs and is right, else the last.

    A deep layer of a random network that sees all of a small input does not show which way round it lies; that of a
    larger one may, or that of another random network: the layout is the same.
    """
    row: dict[str, Any] = {"verdict": "not run"}
    for seed in range(NETWORKS):
        for build in BUILDS[suite](name):
            torch.manual_seed(seed)
            try:
                built = build()
                built.model.eval()
                awaken(built.model, built.inputs)
            except Exception as error:  # this size is not for this model
                if row["verdict"] == "not run":
                    row["reason"] = " ".join(f"{type(error).__name__}: {error}".split())[:160]
                continue
            row = {"options": told(built.options)} | verdict(built.model, built.inputs, built.target)
            if row["verdict"] == "right":
                return row
        if NOT_SHOWN not in row["verdict"]:
            break
    return row


def told(options: dict[str, Any]) -> str:
    """What differs from the defaults, long values by name only."""
    values = {key: value if len(str(value)) < 40 else "..." for key, value in options.items()}
    return ", ".join(f"{key}={value}" for key, value in values.items())


def awaken(model: nn.Module, inputs: Any) -> None:
    """Make random weights pass signals on: no zeros, no scales near zero, and norms that know some batches.

    Some models of transformers draw the scales of norms as if they were weights, and signals die out in them. A norm
    behind a global average sees as few values as there are images: the variance of two can be almost zero, and what
    that divides explodes. So the statistics are the mean of those of several batches.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.ndim > 1 and not parameter.any():
                    nn.init.normal_(parameter, std=0.02)
                elif parameter.ndim == 1 and "bias" not in name and parameter.abs().mean() < 0.1:
                    nn.init.ones_(parameter)
        for norm in norms:
            norm.train().reset_running_stats()
            norm.momentum = None  # the mean of all batches
        for seed in range(DRAWS if norms else 1):
            answer(model, inputs, redrawn(inputs, seed))
    model.eval()


def redrawn(inputs: Any, seed: int) -> Tensor:
    """Another batch of images like those in `inputs`; what is no picture stays as it is."""
    if not first(inputs).is_floating_point():
        return first(inputs)
    return torch.randn(first(inputs).shape, generator=torch.Generator().manual_seed(100 + seed))


def first(inputs: Any) -> Tensor:
    return next(iter(inputs.values())) if isinstance(inputs, dict) else inputs


def answer(model: nn.Module, inputs: Any, image: Tensor) -> Any:
    """The model's outputs for `inputs` with another image in them."""
    return model(**{**inputs, next(iter(inputs)): image}) if isinstance(inputs, dict) else model(image)


def verdict(model: nn.Module, inputs: Any, target: Any) -> dict[str, Any]:
    import seewhy
    from seewhy.engine.session import session
    from seewhy.errors import SeewhyError
    from seewhy.geometry.observe import look
    from seewhy.inputs.call import Inputs

    image = first(inputs)
    row: dict[str, Any] = {"input": " x ".join(map(str, image.shape[1:]))}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            explanation = seewhy.explain(model, inputs, target)
        with session(model, inputs) as run:
            calls = {str(call.label): call for call in look(run)}
    except SeewhyError as error:
        return row | {"verdict": "refused", "reason": " ".join(str(error).split())[:600]}
    # of a pyramid the level that is read from most for every image: the boxes of one may come from few of them
    label, found = max(explanation.maps.items(), key=lambda level: float(level[1].flatten(1).abs().amax(1).amin()))
    seen, space = calls[label], Inputs.of(inputs, model).space  # what it is resized to
    grid = tuple(found.shape[1:])
    row |= {"layer": label, "grid": seen.grid.layout, "depth": round(seen.depth, 2)}
    rows, columns = grid[-2:]
    tests = {
        "not finite": bool(found.isfinite().all()),
        "flat": bool((found.flatten(1).amax(1) > found.flatten(1).amin(1)).all()),
        "another aspect ratio": abs(rows * space[-1] - columns * space[-2]) <= 1.5 * max(space[-2:]),
        "as fine as the input": rows < space[-2] and columns < space[-1],
        "first half": seen.depth >= 0.5,
    }
    failed = [problem for problem, passed in tests.items() if not passed]
    failed += filter(None, [oriented(model, inputs, seen)])
    return row | {"verdict": "wrong: " + ", ".join(failed) if failed else "right"}


def oriented(model: nn.Module, inputs: Any, seen: Any) -> str:
    """What is wrong with how the layer lies over the input, "" if nothing is.

    A proof, as every layout that could have been taken by mistake (rows for columns, either of them backwards) is
    held against the one that was. Each quadrant of several images is drawn anew, the rest of them kept; or, where
    that shows nothing, the rest blank: some random networks hide the one behind their norms, some the other. The
    layer's change, less its mean over all places (what attention and gates tell every place alike), is summed up per
    quadrant of the grid. The layout passes if its quadrants agree with those that were redrawn better than under each
    of the other seven, by three standard errors of the mean over the draws (which noise does once in 100,000 times),
    and is wrong if another one does. How strongly a quadrant acts, or a place reacts, is the same for all eight.
    Of a volume or video the quadrant is redrawn in the first half of the time, and that half must change more, by as
    many standard errors.
    """
    images = [redrawn(inputs, seed) for seed in range(2 * DRAWS)]
    for grounds in (images[DRAWS:], [torch.zeros_like(images[0])] * DRAWS):
        draws = [responses(model, inputs, seen, *pair) for pair in zip(grounds, images, strict=False)]
        sums = torch.stack([torch.stack([table[range(4), at].sum() for at in ARRANGED]) for table, *_ in draws])
        better = sums[:, :, None] - sums[:, None, :]
        errors = (better.mean(0) / (better.std(0) / DRAWS**0.5)).fill_diagonal_(torch.inf)
        (best,) = (errors > 3).all(1).nonzero(as_tuple=True)
        if not len(best):
            continue
        if int(best):
            return "wrong way round"
        ahead = torch.tensor([early - late for _, early, late in draws])
        sure = float(ahead.mean() / (ahead.std() / DRAWS**0.5))
        if not ahead.any() or sure > 3:  # images have no time
            return ""
        if sure < -3:
            return "time runs backwards"
    return NOT_SHOWN


def responses(model: nn.Module, inputs: Any, seen: Any, image: Tensor, other: Tensor) -> tuple[Tensor, float, float]:
    """(redrawn quadrant of the image, quadrant of the layer): the share of the change; of time that of both halves."""
    from seewhy.engine.tape import activations_in
    from seewhy.inputs.call import Inputs

    module, call = model.get_submodule(seen.label.name), seen.label.number or 0
    level = seen.label.level
    axis = Inputs.of(inputs, model).channel_axis
    kept: list[Tensor] = []

    def folded(given: Tensor) -> Tensor:
        kept.clear()
        with torch.no_grad():
            answer(model, inputs, given)
        return seen.grid.fold(kept[call]).float()

    rows, halves = [], torch.zeros(2)
    with module.register_forward_hook(lambda _m, _a, output: kept.append(activations_in(output)[level].clone())):
        before = folded(image)
        for corner in CORNERS:
            changed = image.clone()
            quadrant(changed.movedim(axis, 1), corner).copy_(quadrant(other.movedim(axis, 1), corner))
            change = folded(changed) - before
            change = (change - change.flatten(2).mean(-1).view(*change.shape[:2], *[1] * len(seen.grid.space))).abs()
            rows.append(torch.stack([quadrant(change, place).mean() for place in CORNERS]) / change.mean())
            if change.ndim == 5 and change.shape[2] > 1:
                halves += torch.stack([quadrant(turned, corner).mean() for turned in (change, change.flip(2))])
    return torch.stack(rows), *halves.tolist()


def quadrant(tensor: Tensor, corner: tuple[int, int]) -> Tensor:
    """The view of one quadrant of the last two dimensions, middles of odd sizes left out; of time the first half."""
    for dim, end in zip((-2, -1), corner, strict=True):
        half = max(1, tensor.shape[dim] // 2)
        tensor = tensor.narrow(dim, tensor.shape[dim] - half if end else 0, half)
    is_volume = tensor.ndim in (3, 5)
    return tensor.narrow(-3, 0, max(1, tensor.shape[-3] // 2)) if is_volume else tensor


# running and writing


COLUMNS = ("options", "input", "layer", "grid", "depth")


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


def run(pairs: list[tuple[str, str]]) -> None:
    """Judge all, in processes that are replaced when a model takes too long or kills its process."""
    while pairs:
        chunk, done = pairs[:20], 0
        command = [sys.executable, "-W", "ignore", __file__, "--worker", json.dumps(chunk)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            while done < len(chunk):
                timer = Timer(SECONDS, process.kill)
                timer.start()
                line = process.stdout.readline()
                timer.cancel()
                suite, name = chunk[done]
                failed = {"verdict": "not run", "reason": f"over {SECONDS} s, or the process died"}
                row = json.loads(line) if line else {"suite": suite, "model": name, **failed}
                row["code"] = code()
                print(row, flush=True)
                keep(row)
                done += 1
                if not line:
                    break
        pairs = pairs[done:]


def code() -> str:
    """The commit in which the library was last changed."""
    command = ["git", "log", "-1", "--format=%h", "--", "../src/seewhy"]
    return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()


def kept() -> dict[str, dict[str, Any]]:
    return json.loads(ROWS.read_text()) if ROWS.exists() else {}


def keep(row: dict[str, Any]) -> None:
    """Put a row among those that are there, of other runs too, and write the table anew."""
    rows = kept() | {f"{row['suite']}/{row['model']}": row}
    ROWS.write_text(json.dumps(rows, indent=1))
    (RESULTS / "coverage.md").write_text("\n".join(table(list(rows.values()))) + "\n")


def table(rows: list[dict[str, Any]]) -> list[str]:
    def counts(name: str, some: list[dict[str, Any]]) -> str:
        found = [sum(row["verdict"].startswith(verdict) for row in some) for verdict in VERDICTS]
        return f"| {name} | {' | '.join(map(str, found))} | {len(some)} |"

    lines = [
        "# The automatic choice of layer and grid, family by family",
        "",
        "Written by `benchmarks/coverage.py`; random weights. `options` were passed to the builder or set in the",
        "configuration; `code` is the commit of the library that the row was judged at.",
        "",
        f"| suite | {' | '.join(VERDICTS)} | of |",
        "|---" * (2 + len(VERDICTS)) + "|",
        *[counts(suite, [row for row in rows if row["suite"] == suite]) for suite in BUILDS],
        counts("all", rows),
        "",
        "| model | options | input | layer | grid | depth | verdict | code |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (list(BUILDS).index(row["suite"]), row["model"])):
        told = row["verdict"] + (f": {row['reason']}" if "reason" in row else "")
        cells = [f"{row['suite']}: {row['model']}", *(row.get(key, "") for key in COLUMNS)]
        lines.append(f"| {' | '.join(map(str, cells))} | {told.replace('|', '/')} | {row.get('code', '')} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=BUILDS, help="only this one")
    parser.add_argument("--only", help="only models with this in their name")
    parser.add_argument(
        "--again",
        action="store_true",
        help="judge again what was judged at another commit: what was not right, the quick",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(json.loads(options.worker))
        return
    RESULTS.mkdir(exist_ok=True)
    rows = kept()
    families = RESULTS / "families.json"
    names = json.loads(families.read_text()) if families.exists() else {}
    names |= {suite: names_of(suite) for suite in BUILDS if suite not in names}
    families.write_text(json.dumps(names, indent=1))
    pairs = [(suite, name) for suite in ([options.suite] if options.suite else BUILDS) for name in names[suite]]
    pairs = [
        (suite, name)
        for suite, name in pairs
        if (options.only or "") in name
        and (f"{suite}/{name}" not in rows or (options.again and rows[f"{suite}/{name}"].get("code") != code()))
    ]

    def order(pair: tuple[str, str]) -> tuple[bool, int]:
        row = rows.get("/".join(pair), {})
        return row.get("verdict") == "right", row.get("seconds", 0)

    run(sorted(pairs, key=order))


if __name__ == "__main__":
    main()
