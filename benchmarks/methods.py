"""What each method costs, against plain inference and against the same method of grad-cam and torchcam, in one run.

    PYTHONPATH=src python benchmarks/methods.py
    PYTHONPATH=src python benchmarks/methods.py --captum   # only the table beside captum, put in its place in the file

Prints a table and writes benchmarks/results/methods.md. Everything that is compared is run in turn, several times, and
the median is told. Methods that run the model per channel are shown on resnet18's `layer1`, which has 64 channels; the
cost per masked image is that of any layer. grad-cam's ablation is timed on the first 32 channels, and scaled.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import captum.attr
import pytorch_grad_cam
import torch
import torchcam.methods
import torchvision
from allocator import keep_buffers
from machine import hardware
from pytorch_grad_cam.ablation_layer import AblationLayer
from torch import Tensor, nn

import seewhy
from seewhy.errors import MethodError
from seewhy.images.absent import grid_cells
from seewhy.methods.registry import Method

PER_CHANNEL = {
    "score_cam": {},
    "poly_cam": {},
    "ss_cam": {"samples": 2},
    "is_cam": {"steps": 2},
    "gscore_cam": {"channels": 64},
    "vit_cx": {},
}
OPTIONS = {
    **PER_CHANNEL,
    "rise": {"masks": 64},
    "d_rise": {"masks": 64},
    "occlusion": {"window": 56, "stride": 28},
    "opti_cam": {"steps": 10},
    "integrated_gradients": {"steps": 16},
    "guided_integrated_gradients": {"steps": 16},
    **{name: {"samples": 16} for name in ("expected_gradients", "smooth_grad", "smooth_grad_squared", "var_grad")},
    **{name: {"samples": 64} for name in ("lime", "kernel_shap", "hsic")},
    "sobol": {"designs": 4, "cells": 4},
}
TORCHCAM_OPTIONS = {"ss_cam": {"num_samples": 2}, "is_cam": {"num_samples": 2}}
LAYERS = {  # others at "layer4"
    **{name: ["layer1"] for name in PER_CHANNEL},
    "refine_cam": ["layer3", "layer4"],
    "le_grad": [f"encoder.layers.encoder_layer_{number}" for number in range(12)],  # torchcam's want to be named
}
ALIASES = {"GradCAMpp": "grad_cam_plus_plus", "SmoothGradCAMpp": "smooth_grad_cam_plus_plus"}
CATEGORY, PEER_CHANNELS = 281, 32
NETWORK, VIT, DETECTOR = "resnet18", "vit_b_16", "ssdlite320_mobilenet_v3_large"
NETWORKS = {"d_rise": DETECTOR, "clip_surgery": "timm:vit_base_patch16_clip_224"}  # of attention otherwise VIT

# captum's attribution, what it is called with, and the same for seewhy; maps of other draws are not compared
CAPTUM: dict[str, tuple[Callable[[nn.Module], Any], dict[str, Any], dict[str, Any], bool]] = {
    "saliency": (captum.attr.Saliency, {"abs": False}, {}, True),
    "input_x_gradient": (captum.attr.InputXGradient, {}, {}, True),
    "integrated_gradients": (captum.attr.IntegratedGradients, {"n_steps": 16}, {"steps": 16}, True),
    "expected_gradients": (
        captum.attr.GradientShap,
        {"n_samples": 16, "baselines": torch.zeros(1)},
        {"samples": 16, "baseline": "zero"},
        False,
    ),
    "smooth_grad": (
        lambda model: captum.attr.NoiseTunnel(captum.attr.Saliency(model)),
        {"nt_samples": 16, "nt_samples_batch_size": 16, "abs": False},
        {"samples": 16},
        False,
    ),
    "occlusion": (
        captum.attr.Occlusion,
        {"sliding_window_shapes": (3, 16, 16), "strides": (3, 8, 8), "perturbations_per_eval": 32},
        {"window": 16, "stride": 8},
        True,
    ),
    "lime": (captum.attr.Lime, {"n_samples": 64, "perturbations_per_eval": 32}, {"samples": 64}, False),
    "kernel_shap": (captum.attr.KernelShap, {"n_samples": 64, "perturbations_per_eval": 32}, {"samples": 62}, False),
}
SECTION = "## Beside captum"

Row = tuple[str, ...]


def medians(
    runs: dict[str, Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Seconds for each, the median of `repeats` rounds in which all take their turn, after a round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            time.sleep(0.1)  # what ran before, with threads of its own, lets go of the cores
            start = clock()
            run()
            if turn or repeats == 1:
                times[name].append(clock() - start)
    return {name: statistics.median(found) for name, found in times.items()}


@cache
def network(name: str) -> nn.Module:
    """A model with random weights, none of them 0, and batch norms that know one batch; torchvision's if no other's."""
    torch.manual_seed(0)
    if name == DETECTOR:  # with all its boxes
        return torchvision.models.get_model(name, weights=None, weights_backbone=None, score_thresh=0.0).eval()
    model = seewhy.load(name if ":" in name else f"torchvision:{name}", weights="none").module
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.02)
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 224, 224))
    return model.eval()


def grad_cam_classes() -> dict[str, Any]:
    found = {name: cls for name, cls in vars(pytorch_grad_cam).items() if isinstance(cls, type)}
    return _by_method(found)


def torchcam_classes() -> dict[str, Any]:
    return _by_method({name: cls for name, cls in vars(torchcam.methods).items() if isinstance(cls, type)})


def _by_method(classes: dict[str, Any]) -> dict[str, Any]:
    matched = {}
    for name, cls in classes.items():
        try:
            matched[seewhy.methods.get(ALIASES.get(name, name)).name] = cls
        except MethodError:
            continue
    return matched


def target(output: Tensor) -> Tensor:
    """grad-cam's idea of a target: one image's scores."""
    return output[CATEGORY]


def run_grad_cam(cls: Any, model: nn.Module, layers: list[str], images: Tensor) -> Any:
    with cls(model=model, target_layers=[model.get_submodule(layer) for layer in layers]) as cam:
        cam.batch_size = 32
        return torch.tensor(cam(input_tensor=images, targets=[target] * len(images)))


def run_torchcam(cls: Any, model: nn.Module, layers: list[str], images: Tensor, options: dict[str, Any]) -> Any:
    with cls(model, layers, **options) as extractor:
        output = model(images)
        return extractor([CATEGORY] * len(images), output)[0].detach()


class FirstChannels(AblationLayer):
    """grad-cam's ablation of the first channels only."""

    def activations_to_be_ablated(self, activations: Any, _: float = 1.0) -> Any:
        self.indices = super().activations_to_be_ablated(activations, 1.0)[:PEER_CHANNELS]
        return self.indices


def difference(explanation: seewhy.Explanation, theirs: Tensor) -> str:
    """The largest one between our heatmap and a peer's, both in [0, 1], at the size of the peer's."""
    ours = explanation.scaled(size=tuple(theirs.shape[-2:]))
    low, high = theirs.amin((1, 2), keepdim=True), theirs.amax((1, 2), keepdim=True)
    return f"{float((ours - (theirs - low) / (high - low)).abs().max()):.0e}"


def row_of(method: Method, images: Tensor, peers: tuple[Any, Any], repeats: int) -> Row:
    name = NETWORKS.get(method.name, VIT if method.attends else NETWORK)
    model = network(name)
    layers = LAYERS.get(method.name, ["layer4"])
    options = OPTIONS.get(method.name, {})
    explainer = seewhy.Explainer(model, method.name, **({"layers": layers} if method.layered else {}), **options)
    batch = images[:1] if method.name in PER_CHANNEL or method.family == "perturbation" else images
    asked = seewhy.Box(index=0) if name == DETECTOR else CATEGORY

    def inference() -> Any:
        with torch.no_grad():
            return model(batch)

    runs: dict[str, Callable[[], Any]] = {"inference": inference, "seewhy": lambda: explainer(batch, asked)}
    theirs, others = peers
    if theirs and method.name != "ablation_cam" and hasattr(theirs, "__enter__"):  # RefineCAM leaves its hooks behind
        runs["grad-cam"] = lambda: run_grad_cam(theirs, model, layers, batch)
    if others:
        peer_options = TORCHCAM_OPTIONS.get(method.name, {})
        runs["torchcam"] = lambda: run_torchcam(others, model, layers, batch, peer_options)
    found = medians(runs, repeats)
    where = ", ".join(layers) if method.layered else "" if name == NETWORK else name
    what = " ".join([where, *(f"{key}={value}" for key, value in options.items())])
    explanation = explainer(batch, asked)
    compared = []
    for peer in ("grad-cam", "torchcam"):
        compared += (
            [f"{found[peer] / found['seewhy']:.2f}", difference(explanation, runs[peer]())]
            if peer in found
            else ["", ""]
        )
    return (
        method.name,
        what.strip(),
        str(len(batch)),
        f"{found['seewhy'] * 1e3:,.0f}",
        f"{found['seewhy'] / found['inference']:.2f}",
        *compared,
    )


def ablation(name: str, images: Tensor) -> Row:
    """Our ablation of all channels of the last block, against grad-cam's on some of them, scaled."""
    model = network(name)
    layer = f"layer4.{len(model.layer4) - 1}"
    module = model.get_submodule(layer)
    spied: list[Tensor] = []

    def spy(weighted: Tensor) -> Tensor:  # a layer's weighted channels give the weights back
        spied.append(weighted)
        return weighted.sum(1)

    explainer = seewhy.Explainer(model, seewhy.methods.get("ablation_cam", reduce=spy), layers=layer)
    ours = medians({"": lambda: explainer(images, CATEGORY)}, 3)[""]
    kept: list[Tensor] = []
    handle = module.register_forward_hook(lambda _m, _a, output: kept.append(output.detach()))
    score = model(images)[:, CATEGORY].detach()
    handle.remove()
    with pytorch_grad_cam.AblationCAM(model=model, target_layers=[module], ablation_layer=FirstChannels()) as cam:
        start = time.perf_counter()
        weights = cam.get_cam_weights(images, module, [target], kept[0].numpy(), None)
        theirs = (time.perf_counter() - start) * kept[0].shape[1] / PEER_CHANNELS
    total = kept[0].flatten(2).sum(-1)
    alive = total[:, :PEER_CHANNELS] != 0
    found = (spied[0].flatten(2).sum(-1) / total)[:, :PEER_CHANNELS] * score.sign()
    difference = (found - torch.tensor(weights)[:, :PEER_CHANNELS])[alive].abs().max()
    return (
        name,
        layer,
        str(kept[0].shape[1]),
        f"{ours:.2f}",
        f"{theirs:.1f}",
        f"{theirs / ours:,.0f}",
        f"{float(difference):.0e}",
    )


def score_cam(model: nn.Module, images: Tensor, repeats: int) -> list[Row]:
    """Speed and agreement on `layer1`; grad-cam's resizing, which aligns corners, is given ours for the comparison."""
    explainers = {
        "seewhy": seewhy.Explainer(model, "score_cam", layers="layer1"),
        "seewhy bf16": seewhy.Explainer(model, "score_cam", layers="layer1", precision="bf16"),
    }
    runs: dict[str, Callable[[], Any]] = {
        "seewhy": lambda: explainers["seewhy"](images, CATEGORY).heatmap,
        "grad-cam": lambda: run_grad_cam(pytorch_grad_cam.ScoreCAM, model, ["layer1"], images),
        "torchcam": lambda: run_torchcam(torchcam.methods.ScoreCAM, model, ["layer1"], images, {}),
    }
    found = medians(runs, repeats)
    start = time.perf_counter()
    half = explainers["seewhy bf16"](images, CATEGORY).heatmap
    found["seewhy bf16"] = time.perf_counter() - start
    reference = runs["seewhy"]()
    aligned, nn.UpsamplingBilinear2d = nn.UpsamplingBilinear2d, _half_pixel  # type: ignore[assignment, misc]
    try:
        same = runs["grad-cam"]()
    finally:
        nn.UpsamplingBilinear2d = aligned  # type: ignore[misc]
    best = min(found["grad-cam"], found["torchcam"])
    correlation = float(torch.corrcoef(torch.stack([reference.flatten(), half.flatten()]))[0, 1])
    agreement = {
        "seewhy": f"grad-cam with half-pixel resizing differs by {float((reference - same).abs().max()):.0e}",
        "seewhy bf16": f"correlation with float32 {correlation:.4f}",
    }
    return [
        (name, f"{took / 64 * 1e3:.1f}", f"{best / took:.2f}", agreement.get(name, "")) for name, took in found.items()
    ]


def beside_captum(image: Tensor, repeats: int) -> str:
    """The table of what captum has too: one image, all in turn."""
    model = network(NETWORK)
    segments = grid_cells(image, count=16)
    rows = []
    for name, (kind, theirs, ours, same) in CAPTUM.items():
        by_regions = name in ("lime", "kernel_shap")
        options = {**ours, **({"segments": segments, "baseline": "zero"} if by_regions else {})}
        explainer = seewhy.Explainer(model, name, **options)
        peer = kind(model)
        passed = {**theirs, **({"feature_mask": segments[:, None]} if by_regions else {})}
        if "baselines" in passed:
            passed["baselines"] = torch.zeros_like(image)
        runs = {
            "seewhy": lambda explainer=explainer: explainer(image, CATEGORY),
            "captum": lambda peer=peer, passed=passed: peer.attribute(image.clone(), target=CATEGORY, **passed),
        }
        found = medians(runs, repeats, time.process_time)
        own, peers = runs["seewhy"]().maps["input"], runs["captum"]()
        # an occlusion hides all colours at once, and captum gives each of them the whole loss
        apart = (own - (peers[:, 0] if name == "occlusion" else peers.sum(1))).abs().max() / own.abs().max()
        rows.append(
            (
                name,
                " ".join(f"{key}={value}" for key, value in ours.items()),
                f"{found['seewhy'] * 1e3:,.0f}",
                f"{found['captum'] / found['seewhy']:.2f}",
                f"{float(apart):.0e}" if same else "other draws",
            )
        )
        print(*rows[-1], sep="  ", flush=True)
    head = ("method", "options", "ms", "captum / seewhy", "differs, of the largest value")
    return f"""{SECTION}

{surroundings()}; {NETWORK}, random weights, one image of
{image.shape[-2]} x {image.shape[-1]}; medians of {repeats} rounds, each pair in turn, in processor
time, which other processes do not add to. captum {captum.__version__}.

{table(head, rows)}
"""


def _half_pixel(size: Any) -> nn.Module:
    return nn.Upsample(size=size, mode="bilinear", align_corners=False)


def table(head: Row, rows: list[Row]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def surroundings() -> str:
    """The machine, and what runs on it."""
    return f"{hardware()}, torch {torch.__version__}, {platform.system()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, default=224, help="of the images, in pixels")
    parser.add_argument("--methods", nargs="*", default=list(seewhy.methods.available()))
    parser.add_argument("--ablate", nargs="*", default=["resnet18", "resnet50"], help="models")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "methods.md")
    parser.add_argument("--captum", action="store_true", help="only the table beside captum")
    arguments = parser.parse_args()
    keep_buffers()
    warnings.filterwarnings("ignore")
    if arguments.captum:
        size = arguments.size
        image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        before = arguments.out.read_text().partition(SECTION)[0].rstrip()
        arguments.out.write_text(f"{before}\n\n{beside_captum(image, arguments.repeats)}")
        return
    start = time.perf_counter()
    size = arguments.size
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    grad_cam, torch_cam = grad_cam_classes(), torchcam_classes()
    rows = []
    for name in arguments.methods:
        method = seewhy.methods.get(name)
        rows.append(row_of(method, images, (grad_cam.get(name), torch_cam.get(name)), arguments.repeats))
        print(*rows[-1], sep="  ", flush=True)
    scores = score_cam(network(NETWORK), images[:1], arguments.repeats)
    ablations = [ablation(name, images[:1]) for name in arguments.ablate]
    head = (
        "method",
        "at",
        "images",
        "ms",
        "/ inference",
        "grad-cam / seewhy",
        "differs",
        "torchcam / seewhy",
        "differs",
    )
    text = f"""# What each method costs

{surroundings()}; {NETWORK} unless another is named, random
weights, {size} x {size}; medians of {arguments.repeats} rounds, all in turn.
Ratios above 1 say how many times longer the peer takes; beside each the largest difference of the maps in [0, 1]. Where
it is large, tests/methods/test_peers*.py say why. {time.perf_counter() - start:.0f} s in all.

{table(head, rows)}

## score_cam, resnet18 `layer1`, 64 channels

{table(("", "ms per masked image", "faster than the best peer", "agreement"), scores)}

bfloat16 pays where the processor has it (AVX512-BF16, AMX) and on GPUs; elsewhere seewhy computes in float32.

## ablation_cam, last block

grad-cam's time is that of its first {PEER_CHANNELS} channels, scaled to all.

{table(("model", "layer", "channels", "seewhy, s", "grad-cam, s", "faster", "largest weight difference"), ablations)}

{beside_captum(images[:1], arguments.repeats)}"""
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
