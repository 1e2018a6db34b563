"""Which measure that needs no mask finds the map that lies on the evidence, and at what price.

    PYTHONPATH=src:. python -m benchmarks.choosing            # all models of tests/truth that are trained
    PYTHONPATH=src:. python -m benchmarks.choosing --models resnet,vit --cache DIRECTORY

Every candidate method and layer of a model is held against the known marks (average precision of its heatmap), and
against the model's own answers for images of which the hottest pixels are inserted or deleted. What is printed is
written to benchmarks/results/choosing.md.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import seewhy
from seewhy import metrics
from seewhy.errors import SeewhyError
from seewhy.evaluation._candidates import resolutions
from seewhy.evaluation._competitors import shown
from seewhy.evaluation._meter import hottest
from seewhy.images import arrays
from tests.truth.models import CASES, Case

RESULTS = Path(__file__).parent / "results"
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
IMAGES = 8
JUDGED = 24  # images on which the choice is judged
AT_LAYERS = ("grad_cam", "grad_cam_plus_plus", "x_grad_cam", "layer_cam", "hires_cam", "seg_xres_cam")
REPLAYED = ("ablation_cam", "recipro_cam")
BY_THEMSELVES = ("local_libra_grad", "local_integrated_gradients", "refine_cam")
OF_ATTENTION = ("attention_rollout", "attention_relevance", "agcam", "le_grad", "grad_eclip")


@dataclass
class Found:
    """What was measured of a model's candidates.

    names: of the candidates, "method@layers". positions: where each looks, counted from the end of the layers; "" where
    it looks at none. ap: (N, B) average precision of the heatmaps. answers: (N, B, shares, 2, 2, K) the model's class
    scores with the hottest share inserted and deleted, absent pixels blurred and mean; whole, blank: (B, [2,] K) those
    of the images and of the baselines; target: (B,).
    """

    names: list[str]
    positions: list[str]
    ap: Tensor
    answers: Tensor
    whole: Tensor
    blank: Tensor
    target: Tensor


def candidates(case: Case, model: Any, seen: Any) -> Iterable[tuple[str, str, seewhy.Explanation]]:
    """(method@layers, where from the end, explanation) of all that are tried."""
    inputs, target = case.inputs(seen), case.target(seen)
    layers = resolutions(model, inputs)
    places = {layer: f"-{number}" for number, layer in enumerate(reversed(layers), 1)}
    for names in (AT_LAYERS, *((name,) for name in REPLAYED)):
        try:
            found = seewhy.Explainer(model, list(names), layers=layers).each(inputs, target)
        except SeewhyError:
            continue
        for name, explanation in found.items():
            for layer, grid in explanation.maps.items():
                yield f"{name}@{layer}", places[layer], replace(explanation, maps={layer: grid})
            for last in range(2, len(explanation.maps) + 1):
                maps = dict(list(explanation.maps.items())[-last:])
                yield (
                    f"{name}@{'x'.join(maps)}",
                    f"product of -{last} to -1",
                    replace(explanation, maps=maps, fuse="product"),
                )
    for name in (*BY_THEMSELVES, *OF_ATTENTION):
        try:
            yield name, "", seewhy.explain(model, inputs, target, method=name)
        except SeewhyError:
            continue


def measured(case: Case, images: int, seed: int) -> Found:
    """All candidates of a model on some images."""
    model, seen = case.model(), case.scenes(images, seed=seed)
    names, positions, precision, answers = [], [], [], []
    blurred = seen.images
    for dim in range(2, blurred.ndim):
        blurred = arrays.blur(blurred, blurred.shape[dim] / 8, (dim,))
    mean = seen.images.flatten(2).mean(2).reshape(*seen.images.shape[:2], *[1] * (seen.images.ndim - 2))
    blanks = [blurred, mean.expand_as(seen.images)]
    with torch.no_grad():
        whole, blank = model(seen.images), torch.stack([model(blank) for blank in blanks], 1)
    for name, position, explanation in candidates(case, model, seen):
        maps = shown(explanation)
        if not maps.isfinite().all() or not bool((maps.flatten(1).std(1) > 0).any()):
            continue
        names.append(name)
        positions.append(position)
        precision.append(metrics.average_precision(explanation.heatmap, seen.truth))
        rows = []
        for share in SHARES:
            hot = hottest(maps, share)[:, None]
            for present in (hot, ~hot):
                rows += [torch.where(present, seen.images, blank) for blank in blanks]
        with torch.no_grad():
            found = torch.cat([model(part) for part in torch.cat(rows).split(64)])
        answers.append(found.reshape(len(SHARES), 2, 2, len(seen), -1).movedim(3, 0))
    return Found(names, positions, torch.stack(precision), torch.stack(answers), whole, blank, case.target(seen))


# --- measures: (N, B, shares) of each candidate, image and share, higher is better ---


def scores(found: Found, of: str) -> tuple[Tensor, Tensor, Tensor]:
    """(N, B, shares, 2, 2), (B,) and (B, 2): the target's score for the changed images, the images, the baselines."""

    def squash(logits: Tensor) -> Tensor:
        return {"softmax": logits.softmax(-1), "sigmoid": logits.sigmoid()}.get(of, logits)

    rows = torch.arange(len(found.target))
    return (
        torch.stack([squash(found.answers)[:, row, ..., kind] for row, kind in enumerate(found.target.tolist())], 1),
        squash(found.whole)[rows, found.target],
        squash(found.blank)[rows, :, found.target],
    )


def measures(found: Found) -> dict[str, Tensor]:
    """(N, B, shares) by name."""
    made: dict[str, Tensor] = {}
    for of in ("logit", "softmax", "sigmoid"):
        changed, whole, blank = scores(found, of)
        for number, baseline in enumerate(("blur", "mean")):
            inserted, deleted = changed[..., 0, number], changed[..., 1, number]
            made[f"insertion - deletion, {of}, {baseline}"] = inserted - deleted
            made[f"deletion, {of}, {baseline}"] = -deleted
            made[f"insertion, {of}, {baseline}"] = inserted
            if of == "logit":
                reach = (whole - blank[:, number]).abs()[:, None].clamp(min=1e-6)
                made[f"insertion - deletion, logit over its reach, {baseline}"] = (inserted - deleted) / reach
                low = torch.minimum(whole, blank[:, number])[:, None]
                within = [((part - low) / reach).clamp(0, 1) for part in (inserted, deleted)]
                made[f"insertion - deletion, logit within its reach, {baseline}"] = within[0] - within[1]
                ahead = (whole - blank[:, number]).clamp(min=0)[:, None]
                near = [((part - low) / reach).clamp(-1, 2) for part in (inserted, deleted)]
                weighed = (near[0] - near[1]) * ahead / ahead.mean().clamp(min=1e-6)
                made[f"insertion - deletion, logit, used by choose, {baseline}"] = weighed
        made[f"insertion - deletion, {of}, blur and mean"] = (changed[..., 0, :] - changed[..., 1, :]).mean(-1)
    return made


def ranks(values: Tensor) -> Tensor:
    """Of each candidate among the candidates, by image and share; equal values share a rank."""
    return ((values[:, None] > values[None]).double() + (values[:, None] == values[None]).double() / 2).mean(1)


def totals(found: Found, shares: Sequence[int]) -> dict[str, Tensor]:
    """(N,) what each measure says of each candidate, over all images."""
    made = {}
    for name, values in measures(found).items():
        taken = values[..., list(shares)].double()
        made[name] = taken.mean((1, 2))
        if name.startswith("insertion - deletion"):
            made[f"ranks of {name}"] = ranks(taken).mean((1, 2))
    return made


def spearman(first: Tensor, second: Tensor) -> float:
    order = torch.stack([first.argsort().argsort(), second.argsort().argsort()]).double()
    return float(torch.corrcoef(order)[0, 1])


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [heads, ["---"] * len(heads), *lines])


def report(found: Mapping[str, Found], autos: Mapping[str, Sequence[str]]) -> str:
    images = len(next(iter(found.values())).target)
    return "\n\n".join(
        [
            "# Which measure that needs no mask finds the best map",
            "Written by `PYTHONPATH=src:. python -m benchmarks.choosing`. The models and scenes are those of "
            "tests/truth, whose evidence is known. AP is the average precision of a heatmap against the marks of the "
            "kind explained.",
            "## What `choose` takes",
            f'Chosen on 8 images, as by `method="auto"`. AP on {JUDGED} other images, beside that of `grad_cam` where '
            "seewhy looks by default, and of `grad_cam` at the layer that the other libraries' documentation names.",
            table(
                ["model", "chosen", "AP", "grad_cam", "grad_cam, documented layer", "forwards of an image"],
                autos.values(),
            ),
            "## Measures",
            f"On {images} images. Of each measure: the AP of the candidate that it puts first, and in brackets "
            "Spearman's correlation with AP over all candidates. Shares of the pixels are inserted or deleted, the "
            'hottest first. "Within its reach" is the share of the way from the score of the image without anything to '
            'that of the image, from 0 to 1. "Used by choose": the same from -1 to 2, and images whose score changes '
            'more by blurring count for more. "Ranks" are means of the ranks among the candidates.',
            _measures(found),
            "## Fixed rules",
            "One method at one place on all models; -1 is the last resolution, -2 the one before. A model that "
            "refuses a rule is left out of its mean.",
            _rules(found),
            "## The ten best of each model",
            _best(found),
        ]
    )


def _measures(found: Mapping[str, Found]) -> str:
    lines = []
    for label, shares in {"0.01-0.4": range(6), "0.01-0.1": range(4), "0.02-0.2": range(1, 5)}.items():
        by_model = {model: totals(one, shares) for model, one in found.items()}
        for name in next(iter(by_model.values())):
            chosen, agreed = [], []
            for model, one in found.items():
                values, truth = by_model[model][name], one.ap.mean(1)
                chosen.append(float(truth[values.argmax()]))
                agreed.append(spearman(values, truth))
            cells = [f"{ap:.2f} ({rho:.2f})" for ap, rho in zip(chosen, agreed, strict=True)]
            lines.append((_mean(chosen), _mean(agreed), name, label, cells))
    lines.sort(reverse=True)
    best = [float(one.ap.mean(1).max()) for one in found.values()]
    return table(
        ["measure", "shares", "AP of its choice", "rank correlation", *found],
        [
            ["(the best candidate)", "", f"{_mean(best):.3f}", "", *(f"{ap:.2f}" for ap in best)],
            *([name, label, f"{ap:.3f}", f"{rho:.2f}", *cells] for ap, rho, name, label, cells in lines),
        ],
    )


def _rules(found: Mapping[str, Found]) -> str:
    rules: dict[str, dict[str, float]] = {}
    for model, one in found.items():
        depth = max((int(place[1:]) for place in one.positions if place.startswith("-")), default=0)
        for name, place, ap in zip(one.names, one.positions, one.ap.mean(1).tolist(), strict=True):
            method = name.partition("@")[0]
            rules.setdefault(f"{method} {place}".strip(), {})[model] = ap
            if place == f"product of -{depth} to -1":
                rules.setdefault(f"{method} product of all", {})[model] = ap
    # attention's methods are for transformers alone
    kept = {rule: by for rule, by in rules.items() if len(by) >= len(found) - 1 or rule in OF_ATTENTION}
    ordered = sorted(kept, key=lambda rule: -_mean(list(kept[rule].values())))
    return table(
        ["rule", "mean AP", *found],
        (
            [
                rule,
                f"{_mean(list(kept[rule].values())):.3f}",
                *(f"{kept[rule][model]:.2f}" if model in kept[rule] else "" for model in found),
            ]
            for rule in ordered
        ),
    )


def _best(found: Mapping[str, Found]) -> str:
    parts = []
    for model, one in found.items():
        order = one.ap.mean(1).argsort(descending=True)[:10].tolist()
        parts.append(f"- {model}: " + ", ".join(f"{one.names[n]} {float(one.ap[n].mean()):.2f}" for n in order))
    return "\n".join(parts)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def automatic(case: Case, seed: int) -> list[str]:
    """A line about what `choose` takes of a model, and what it is worth on other images."""
    model, chosen_on, seen = case.model(), case.scenes(8, seed=seed), case.scenes(JUDGED)
    choice = seewhy.choose(model, case.inputs(chosen_on), case.target(chosen_on))
    inputs, target = case.inputs(seen), case.target(seen)
    explained = [
        choice.explainer(inputs, target),
        seewhy.explain(model, inputs, target, method="grad_cam"),
        seewhy.explain(model, inputs, target, method="grad_cam", layers=case.documented),
    ]
    worth = [float(metrics.average_precision(each.heatmap, seen.truth).mean()) for each in explained]
    where = f"{choice.method} at {', '.join(choice.layers)}" if choice.layers else choice.method
    return [case.name, where, *(f"{ap:.3f}" for ap in worth), str(choice.forwards)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    trained = [name for name, case in CASES.items() if case.task == "classes"]
    parser.add_argument("--models", default=",".join(trained))
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--seed", type=int, default=910_000)
    parser.add_argument("--cache", type=Path, help="a directory for what was measured")
    parser.add_argument("--out", type=Path, default=RESULTS / "choosing.md")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    found = {}
    for name in asked.models.split(","):
        kept = asked.cache and asked.cache / f"{name}-{asked.images}-{asked.seed}.pt"
        if kept and kept.exists():
            found[name] = Found(**torch.load(kept))
        else:
            found[name] = measured(CASES[name], asked.images, asked.seed)
            if kept:
                torch.save(vars(found[name]), kept)
    autos = {name: automatic(CASES[name], seed=700_000) for name in found}
    means = [_mean([float(line[column]) for line in autos.values()]) for column in (2, 3, 4)]
    autos["mean"] = ["mean", "", *(f"{mean:.3f}" for mean in means), ""]
    text = report(found, autos)
    print(text)
    asked.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
