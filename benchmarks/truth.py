"""Which maps lie on the evidence: every method at every resolution on every model of tests/truth, and the peers' best.

    PYTHONPATH=src python -m benchmarks.truth                       # goes on where it stopped
    PYTHONPATH=src python -m benchmarks.truth --models resnet,vit --methods grad_cam,layer_cam --images 8

Writes benchmarks/results/truth.json as it goes, and truth.md from it. Rows that the file already holds are not measured
again: the same command goes on where it stopped, `--fresh` starts anew, and `--tables` writes truth.md alone.

ap: average precision of the heat, pixel by pixel, against the mark that was asked for. mass: the share of the heat that
lies on it. hit: whether the hottest place does. Beside them what needs no mask: insertion, deletion (of the
probability, the absent pixels blurred) and their difference.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import pytorch_grad_cam
import torch
import torchcam.methods
from torch import Tensor, nn

import seewhy
from seewhy import metrics
from seewhy.errors import SeewhyError
from tests.truth.models import CASES, Case, accuracy
from tests.truth.scenes import Scenes

RESULTS = Path(__file__).parent / "results"
IMAGES, SLOW_IMAGES, MOSAICS = 16, 4, 2
LABEL_FREE_IMAGES, STEPS = 8, 8
SLOW = {
    *("score_cam", "ss_cam", "is_cam", "poly_cam", "gscore_cam", "group_cam", "opti_cam", "vit_cx", "recipro_cam"),
    *("rise", "d_rise", "occlusion"),
}
RULES = ("default", "auto")  # what stands for a method: by the kind of model, or measured by what needs no mask
AUTO = "auto"
OPTIONS: dict[str, dict[str, Any]] = {
    "rise": {"masks": 400, "cells": 8},
    "d_rise": {"masks": 400, "cells": 8},
    "ss_cam": {"samples": 4},
    "is_cam": {"steps": 4},
    "opti_cam": {"steps": 30},
}
WINDOW = 8  # of occlusion: an eighth of a side, moved by half of it
JUDGED = ("ap", "mass", "hit", "insertion", "deletion", "difference")
Row = dict[str, Any]


def judge(case: Case, model: nn.Module, seen: Scenes, maps: Tensor) -> dict[str, float]:
    """The mean of each measure over images; maps: (B, *space), of which what is negative counts as 0.

    ap_error: the standard error of ap. blank: the share of images without heat.
    """
    heat = maps.detach().float().clamp(min=0)
    found = {
        "ap": metrics.average_precision(heat, seen.truth),
        "mass": metrics.relevance_mass(heat, seen.truth),
        "hit": metrics.pointing_game(heat, seen.truth),
    }
    if case.task == "classes":
        some = seen[: min(len(seen), LABEL_FREE_IMAGES)]
        inputs = case.score(model, some), some.images, heat[: len(some)]
        found["insertion"] = metrics.insertion(*inputs, steps=STEPS)
        found["deletion"] = metrics.deletion(*inputs, steps=STEPS)
        found["difference"] = found["insertion"] - found["deletion"]
    spread = found["ap"].std() / math.sqrt(len(heat)) if len(heat) > 1 else torch.tensor(math.nan)
    blank = (~(heat.flatten(1) > 0).any(1)).float().mean()
    values = {name: float(value.nanmean()) for name, value in found.items()}
    return {**values, "ap_error": float(spread), "blank": float(blank)}


def centred(seen: Scenes) -> Tensor:
    """A Gaussian in the middle of the image, with a deviation of a quarter of each side."""
    space = seen.truth.shape[1:]
    axes = [torch.exp(-(((torch.arange(side) + 0.5) / side - 0.5) ** 2) / (2 * 0.25**2)) for side in space]
    bump = axes[0]
    for axis in axes[1:]:
        bump = bump[..., None] * axis
    return bump.expand(len(seen), *space)


def constant(seen: Scenes) -> Tensor:
    return torch.ones(seen.truth.shape)


def ours(case: Case, model: nn.Module, seen: Scenes, name: str, layer: str) -> seewhy.Explanation:
    options = OPTIONS.get(name, {})
    if name == "occlusion":
        window = max(2, seen.truth.shape[-1] // WINDOW)
        options = {"window": window, "stride": window // 2}
    layers = {} if layer == "default" else {"layers": layer}
    return seewhy.explain(model, case.inputs(seen), case.target(seen), method=name, **layers, **options)


# --- the peers, for models that give class scores of images ---


def peers(case: Case) -> Iterator[tuple[str, str, Callable[[nn.Module, Scenes], Tensor]]]:
    """(library, method, (model, scenes) -> maps) at the layer that the library's documentation names."""
    if case.task != "classes":
        return
    vit = case.name.startswith("vit")
    volume = case.name == "volume"
    for name in ("GradCAM", "HiResCAM", "GradCAMElementWise", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "EigenCAM",
                 "EigenGradCAM", "AblationCAM", "ScoreCAM", "ShapleyCAM", "FullGrad"):  # fmt: skip
        if not (volume and name in ("AblationCAM", "FullGrad", "EigenGradCAM")) and not (vit and name == "FullGrad"):
            yield "grad-cam", name, lambda model, seen, name=name: _grad_cam(case, model, seen, name)
    for name in ("GradCAM", "GradCAMpp", "SmoothGradCAMpp", "XGradCAM", "LayerCAM", "ScoreCAM", "ISCAM"):
        if not vit:  # it reads a grid of tokens as channels
            yield "torchcam", name, lambda model, seen, name=name: _torchcam(case, model, seen, name)
    if not vit:
        yield "captum", "LayerGradCam", lambda model, seen: _captum_layer(case, model, seen)
    for name in ("Saliency", "InputXGradient", "IntegratedGradients", "GuidedBackprop", "Occlusion"):
        yield "captum", name, lambda model, seen, name=name: _captum(case, model, seen, name)
    if not vit:
        yield "captum", "GuidedGradCam", lambda model, seen: _captum(case, model, seen, "GuidedGradCam")


def _grad_cam(case: Case, model: nn.Module, seen: Scenes, name: str) -> Tensor:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    options: dict[str, Any] = {}
    if case.name.startswith("vit"):
        options["reshape_transform"] = lambda tokens: tokens[:, 1:].mT.unflatten(2, (math.isqrt(tokens.shape[1]), -1))
    targets = [ClassifierOutputTarget(int(index)) for index in case.target(seen)]
    with getattr(pytorch_grad_cam, name)(model, [model.get_submodule(case.documented)], **options) as cam:
        return torch.as_tensor(np.asarray(cam(seen.images.clone(), targets)))


def _torchcam(case: Case, model: nn.Module, seen: Scenes, name: str) -> Tensor:
    options = {"num_samples": 4} if name in ("SmoothGradCAMpp", "ISCAM") else {}
    maps = []
    for image, index in zip(seen.images, case.target(seen).tolist(), strict=True):  # one class for a whole batch
        with getattr(torchcam.methods, name)(model, target_layer=case.documented, **options) as cam:
            scores = model(image[None])
            maps.append(cam(index, scores)[0].detach())
        model.zero_grad()
    return _resized(torch.cat(maps), seen)


def _captum_layer(case: Case, model: nn.Module, seen: Scenes) -> Tensor:
    cam = captum.attr.LayerGradCam(model, model.get_submodule(case.documented))
    maps = cam.attribute(seen.images.clone(), target=case.target(seen), relu_attributions=True)
    return _resized(maps[:, 0].detach(), seen)


def _captum(case: Case, model: nn.Module, seen: Scenes, name: str) -> Tensor:
    """Of attributions of the inputs what speaks for the score: the sum over channels."""
    made = getattr(captum.attr, name)
    attribution = made(model, model.get_submodule(case.documented)) if name == "GuidedGradCam" else made(model)
    options: dict[str, Any] = {}
    if name == "Occlusion":
        channels, *space = seen.images.shape[1:]
        side = max(2, space[-1] // WINDOW)
        options = {
            "sliding_window_shapes": (channels, *[side] * len(space)),
            "strides": (channels, *[side // 2] * len(space)),
        }
    if name == "IntegratedGradients":
        options = {"n_steps": 20, "internal_batch_size": 64}
    return attribution.attribute(seen.images.clone(), target=case.target(seen), **options).sum(1).detach()


def _resized(maps: Tensor, seen: Scenes) -> Tensor:
    mode = "bilinear" if maps.ndim == 3 else "trilinear"
    return nn.functional.interpolate(maps[:, None], size=seen.truth.shape[1:], mode=mode, align_corners=False)[:, 0]


# --- the run ---


def measure(case: Case, methods: Sequence[str], images: int, known: dict[tuple[str, ...], Row]) -> Iterator[Row]:
    """A row for each method, layer and peer that is not in `known`."""
    model, every = case.model(), case.scenes(min(images, MOSAICS) if case.name == "mosaics" else images)
    few = every[: min(len(every), SLOW_IMAGES)]

    def row(library: str, method: str, layer: str, make: Callable[[Scenes], Tensor], seen: Scenes) -> Row:
        start = time.perf_counter()
        try:
            maps = make(seen)
            seconds = (time.perf_counter() - start) / len(seen)
            judged: Row = {**judge(case, model, seen, maps), "seconds": seconds}
        except SeewhyError as error:
            judged = {"refused": str(error).partition("\n")[0]}
        except Exception as error:
            if library == "seewhy":
                raise
            judged = {"refused": f"{type(error).__name__}: {error}".partition("\n")[0]}  # a peer's own failure
        return {"model": case.name, "library": library, "method": method, "layer": layer, "images": len(seen), **judged}

    def new(library: str, method: str, layer: str) -> bool:
        return (case.name, library, method, layer) not in known

    if new("model", "accuracy", "") and not case.categories:
        reached = accuracy(case, model)
        yield {"model": case.name, "library": "model", "method": "accuracy", "layer": "", "accuracy": reached}
    for name in methods:
        seen = few if name in SLOW else every
        default = known.get((case.name, "seewhy", name, "default"))
        for layer in ("default", *(case.layers if name not in RULES and seewhy.methods.get(name).layered else ())):
            if not new("seewhy", name, layer):
                continue
            if default and default.get("at") == layer:
                yield {**default, "layer": layer}  # the same map
                continue
            looked: list[str] = []

            def make(seen: Scenes, name: str = name, layer: str = layer, looked: list[str] = looked) -> Tensor:
                explanation = ours(case, model, seen, name, layer)
                looked.extend([explanation.method] * (name in RULES) + list(explanation.layers))
                return explanation.heatmap

            found = row("seewhy", name, layer, make, seen)
            if layer == "default":
                default = found = {**found, "at": ", ".join(looked)}
            yield found
    for floor, flat in (("centred Gaussian", centred), ("chance", constant)):
        if new("floor", floor, ""):
            yield row("floor", floor, "", flat, every)
    for library, name, explain in peers(case):
        if new(library, name, case.documented):
            slow = name in ("AblationCAM", "ScoreCAM", "ISCAM", "Occlusion")
            # a model of its own: a peer that fails may leave it changed
            yield row(library, name, case.documented, partial(explain, case.model()), few if slow else every)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(CASES), help="names of tests.truth.models.CASES")
    parser.add_argument("--methods", default=",".join((*RULES, *seewhy.methods.available())))
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--fresh", action="store_true", help="measure again what the file already holds")
    parser.add_argument("--tables", action="store_true", help="write truth.md alone")
    parser.add_argument("--out", type=Path, default=RESULTS / "truth.json")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # blank maps are counted
    names, methods = asked.models.split(","), asked.methods.split(",")
    rows: list[Row] = json.loads(asked.out.read_text())["rows"] if asked.out.exists() else []
    if asked.fresh:
        rows = [
            row
            for row in rows
            if row["model"] not in names or (row["library"] == "seewhy" and row["method"] not in methods)
        ]
    for name in [] if asked.tables else names:
        known = {(row["model"], row["library"], row["method"], row["layer"]): row for row in rows}
        start = time.perf_counter()
        for row in measure(CASES[name], methods, asked.images, known):
            rows.append(row)
            print(_line(row), flush=True)
            write(asked.out, rows)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    write(asked.out, rows)
    asked.out.with_suffix(".md").write_text(report(rows))


def write(path: Path, rows: Sequence[Row]) -> None:
    rounded = [
        {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()} for row in rows
    ]
    lines = ",\n".join(json.dumps(row) for row in rounded)
    path.write_text(f'{{"rows": [\n{lines}\n]}}\n'.replace("NaN", "null"))


# --- the tables ---


def rules(case: Case) -> dict[str, str]:
    """The layers of a model by how far they are from the end."""
    names = ("last", "last but one", "last but two", "last but three")
    if case.name.startswith("vit"):
        return {layer: layer for layer in case.layers} | {"default": "default"}
    return dict(zip(names, reversed(case.layers), strict=False)) | {"default": "default"}


def report(rows: Sequence[Row]) -> str:
    found = {
        (row["model"], row["library"], row["method"], row["layer"]): row for row in rows if row.get("ap") is not None
    }
    present = [name for name in CASES if any(key[0] == name for key in found)]
    vits = [name for name in present if name.startswith("vit")]
    networks = [name for name in present if CASES[name].task == "classes" and name not in vits]
    others = [name for name in present if name not in (*vits, *networks)]
    accuracies = {row["model"]: row["accuracy"] for row in rows if "accuracy" in row}
    parts = [
        "# Which maps lie on the evidence",
        "Written by `PYTHONPATH=src python -m benchmarks.truth`; every number is in truth.json. The models and scenes "
        "are those of tests/truth: several marks in each image, a map for one kind of them. AP is the average "
        "precision of the heat against the marks of that kind. Mass is the share of the heat on the marks, hit the "
        "share of images whose hottest place is on one. Insertion and deletion are areas under the probability, absent "
        "pixels blurred; difference is the first less the second. A layer is the last of its resolution, counted from "
        f"the end; default is where seewhy looks unless told. Means over {IMAGES} images ({SLOW_IMAGES} for methods "
        f"that run the model hundreds of times, and for mosaics), of insertion and deletion over {LABEL_FREE_IMAGES}.",
        _table(
            ["model", "accuracy on held-out scenes", "chance (AP)", "centred Gaussian (AP)"],
            [
                [name, _number(accuracies.get(name), 3), *(_number(_value(found, name, "floor", floor, "")) for floor in
                                                           ("chance", "centred Gaussian"))]
                for name in present
            ],
        ),
        "## Convolutional networks: AP by method and layer",
        _by_rule(found, networks),
        "## Vision transformers with a class token: AP by method and layer",
        _by_rule(found, vits),
        "## Segmentation, detection: AP by method and layer",
        _by_rule(found, others),
        "## Beside the other libraries",
        "Each library's best method by hindsight, at the layer that its documentation names, with the same images.",
        _peers(found, [*networks, *vits]),
        "## One rule for all models",
        "A method where seewhy looks unless told, on every model; `auto` chooses for each. Those that were measured on "
        "nearly all models, by their mean over those that `rise` was measured on as well, and over all.",
        _fixed(found, present),
        "## Which measure that needs no mask finds the best map",
        "Over all candidates of a model: Spearman's correlation with AP, and the AP of the candidate that the measure "
        "puts first.",
        _label_free(found, [*networks, *vits]),
        "## The ten best of each model, and `grad_cam` by default",
        *(text for name in present for text in (f"### {name}", _best(found, name))),
        "## At or below chance",
        "AP not above the share of the image that the marks take up.",
        _below(found, present),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _by_rule(found: dict[Any, Row], models: Sequence[str]) -> str:
    table = {}
    for model in models:
        for rule, layer in rules(CASES[model]).items():
            for method in (*RULES, *seewhy.methods.available()):
                if row := found.get((model, "seewhy", method, layer)):
                    table.setdefault((method, rule), {})[model] = row["ap"]
    means = {key: sum(row.values()) / len(row) for key, row in table.items()}
    ordered = sorted(table, key=lambda key: (-len(table[key]), -means[key]))
    cells = [
        [method, rule, f"{means[method, rule]:.2f}" + ("" if len(table[method, rule]) == len(models) else " (of some)"),
         *(_number(table[method, rule].get(model)) for model in models)]
        for method, rule in ordered
    ]  # fmt: skip
    return _table(["method", "layer", "mean", *models], cells)


def _peers(found: dict[Any, Row], models: Sequence[str]) -> str:
    cells, sums = [], defaultdict(list)
    for model in models:
        chosen = found.get((model, "seewhy", AUTO, "default"), {})
        line = {
            "grad_cam, last layer": (_value(found, model, "seewhy", "grad_cam", "default"), ""),
            "seewhy, default": (_value(found, model, "seewhy", "default", "default"), ""),
            "seewhy, auto": (chosen.get("ap", math.nan), chosen.get("at", "")),
        }
        for library in ("seewhy", "grad-cam", "torchcam", "captum"):
            line[f"{library}, best"] = max(
                (
                    (row["ap"], f"{key[2]} {key[3]}" if library == "seewhy" else key[2])
                    for key, row in found.items()
                    if key[:2] == (model, library) and key[2] not in (*RULES, "random_cam")
                ),
                default=(math.nan, ""),
            )
        for name, (value, _) in line.items():
            sums[name].append(value)
        cells.append([model, *(f"{_number(value)} {name}".strip() for value, name in line.values())])
    return _table(["model", *sums], [*cells, ["mean", *(_number(float(np.nanmean(row))) for row in sums.values())]])


def _fixed(found: dict[Any, Row], models: Sequence[str]) -> str:
    shared = [model for model in models if (model, "seewhy", "rise", "default") in found]
    methods = {key[2] for key in found if key[1] == "seewhy" and key[3] == "default"}
    by_method = {name: [_value(found, model, "seewhy", name, "default") for model in models] for name in methods}
    kept = {name: values for name, values in by_method.items() if sum(map(math.isfinite, values)) > len(models) - 4}
    in_common = {
        name: float(np.mean([value for model, value in zip(models, values, strict=True) if model in shared]))
        for name, values in kept.items()
    }
    return _table(
        ["method", "mean where rise is", "mean", *models],
        [
            [name, _number(in_common[name]), _number(float(np.nanmean(kept[name]))), *map(_number, kept[name])]
            for name in sorted(kept, key=lambda name: -np.nan_to_num(in_common[name]))
        ],
    )


def _label_free(found: dict[Any, Row], models: Sequence[str]) -> str:
    cells = []
    for model in models:
        rows = [row for key, row in found.items() if key[:2] == (model, "seewhy") and key[2] not in RULES]
        rows = [row for row in rows if all(row.get(name) is not None for name in JUDGED)]
        if len(rows) < 3:
            continue
        truth = torch.tensor([row["ap"] for row in rows])
        line = [model, str(len(rows)), f"{truth.max():.2f}"]
        for name, sign in (("insertion", 1), ("deletion", -1), ("difference", 1)):
            values = torch.tensor([sign * row[name] for row in rows])
            line += [f"{_spearman(values, truth):.2f}", f"{truth[values.argmax()]:.2f}"]
        cells.append(line)
    heads = [
        f"{name}{what}" for name in ("insertion", "deletion", "difference") for what in (": correlation", ": AP chosen")
    ]
    return _table(["model", "candidates", "best AP", *heads], cells)


def _spearman(first: Tensor, second: Tensor) -> float:
    ranks = torch.stack([first.argsort().argsort(), second.argsort().argsort()]).double()
    return float(torch.corrcoef(ranks)[0, 1])


def _best(found: dict[Any, Row], model: str) -> str:
    rows = sorted((row for key, row in found.items() if key[:2] == (model, "seewhy")), key=lambda row: -row["ap"])
    chosen = rows[:10]
    default = found.get((model, "seewhy", "grad_cam", "default"))
    if default and default not in chosen:
        chosen.append(default)
    names = [name for name in JUDGED if any(row.get(name) is not None for row in chosen)]
    cells = [
        [row["method"], row["layer"], str(row["images"]), *(_number(row.get(name)) for name in names)] for row in chosen
    ]
    return _table(["method", "layer", "images", *names], cells)


def _below(found: dict[Any, Row], models: Sequence[str]) -> str:
    lines = []
    for model in models:
        chance = found.get((model, "floor", "chance", ""))
        below = [f"{key[2]} at {key[3]} {row['ap']:.2f}" for key, row in found.items()
                 if key[:2] == (model, "seewhy") and chance and row["ap"] <= chance["ap"]]  # fmt: skip
        lines.append(f"- {model}: {', '.join(below) or 'none'}")
    return "\n".join(lines)


def _value(found: dict[Any, Row], *key: str) -> float:
    return float(found[key]["ap"]) if key in found else math.nan


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _table(heads: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _line(row: Row) -> str:
    told = row.get("refused") or " ".join(f"{name} {row[name]:.2f}" for name in JUDGED if name in row)
    return f"{row['model']} {row['library']} {row['method']} {row['layer']}: {told}"


if __name__ == "__main__":
    main()
