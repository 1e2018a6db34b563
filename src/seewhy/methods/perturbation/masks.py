"""Change something, and see what becomes of the score: no gradient of the score is asked for, unless stated.

`activations` A are a layer's, (B, C, *space), and `inputs` X the images, (B, channels, *size). `score` and `replay`
tell S(changed X) and S(changed A): see `seewhy.methods.registry.Ask`. Random masks and noise are the same for all
images, so that an image's map does not depend on the batch it came in. Maps are signed, (B, *space) or (B, *size).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from seewhy._types import Ask
from seewhy.errors import InputError
from seewhy.images import arrays
from seewhy.methods.channels import Reduce, channel_sum, spread
from seewhy.methods.registry import Need, method

Layer = Float[Tensor, "B C *space"]
Images = Float[Tensor, "B c *size"]
Map = Float[Tensor, "B *space"]
Make = Callable[[Tensor, Tensor], Tensor]  # (images (n,), numbers (n,)) -> (n, c, *size)

_SCORE_CAM: tuple[Need, ...] = ("activations", "inputs", "score")


def _asked(ask: Ask, which: Bool[Tensor, "B K"], make: Make, missing: Float[Tensor, "B #K"]) -> Float[Tensor, "B K"]:
    """The scores of the changes `which` of K for each image; `missing` where one is not asked for."""
    numbers, images = which.T.nonzero().unbind(1)  # image by image within each number
    found = ask(images, lambda rows: make(images[rows], numbers[rows]))
    return missing.expand(which.shape).index_put((images, numbers), found.to(missing))


def _constant(activations: Layer) -> Bool[Tensor, "B C"]:
    places = activations.flatten(2)
    return places.amax(-1) == places.amin(-1)


def _every(inputs: Tensor, count: int) -> Bool[Tensor, "B K"]:
    return torch.ones(inputs.shape[0], count, dtype=torch.bool, device=inputs.device)


def _masks(maps: Float[Tensor, "n *space"], size: tuple[int, ...]) -> Float[Tensor, "n 1 *size"]:
    """Maps as masks: resized to the image, then scaled to [0, 1]; all zero where a map is constant."""
    resized = arrays.resize(maps, size)
    return arrays.rescale(resized, tuple(range(1, resized.ndim)))[:, None]


def _shown(activations: Layer, inputs: Images, share: float = 1.0) -> Make:
    """Images masked with a channel, the mask times `share`."""
    return lambda images, channels: share * _masks(activations[images, channels], inputs.shape[2:]) * inputs[images]


@method(
    "ablation_cam",
    needs=("activations", "scores", "replay"),
    source="doi:10.1109/WACV45572.2020.9093360",
    cost="1 forward, and C of what follows the layer",
)
def ablation_cam(
    activations: Layer,
    scores: Float[Tensor, " B"],
    replay: Ask,
    *,
    baseline: float = 0.0,
    reduce: Reduce = channel_sum,
) -> Map:
    """Channels weighted by the share of the score that is lost without them (Desai and Ramaswamy 2020, eq. 3).

    A channel without is one filled with `baseline`: the paper's 0, whatever the layer's range and the image's place in
    the batch. The loss is divided by the absolute score, so that a negative score does not turn the map around.
    """
    return reduce(spread(ablation_cam_weights(activations, scores, replay, baseline=baseline), activations))


def ablation_cam_weights(
    activations: Layer, scores: Float[Tensor, " B"], replay: Ask, *, baseline: float = 0.0
) -> Float[Tensor, "B C"]:
    """The share of the score that is lost without each channel."""

    def without(images: Tensor, channels: Tensor) -> Tensor:
        ablated = activations[images]  # a copy
        ablated[torch.arange(len(images), device=images.device), channels] = baseline
        return ablated

    lost = scores[:, None] - _asked(replay, (activations != baseline).flatten(2).any(-1), without, scores[:, None])
    return lost / scores.abs()[:, None]


@method("score_cam", needs=_SCORE_CAM, source="arXiv:1910.01279", cost="1 + C forwards")
def score_cam(activations: Layer, inputs: Images, score: Ask, *, reduce: Reduce = channel_sum) -> Map:
    """Channels weighted by the score of the image seen through them (Wang et al. 2020, eqs. 5 to 8 and algorithm 1).

    The weights are the softmax over channels, in which the score of the paper's baseline image cancels.
    """
    return reduce(spread(score_cam_weights(activations, inputs, score), activations))


def score_cam_weights(activations: Layer, inputs: Images, score: Ask) -> Float[Tensor, "B C"]:
    """The softmax over channels of the score of the image seen through each."""
    return _seen_through(activations, inputs, score).softmax(1)


def _seen_through(activations: Layer, inputs: Images, score: Ask, share: float = 1.0) -> Float[Tensor, "B C"]:
    """The score of each image masked with each channel. Constant channels mask everything, so one of them will do."""
    constant = _constant(activations)
    first = constant & (constant.cumsum(1) == 1)
    shown = _shown(activations, inputs, share)
    found = _asked(score, ~constant | first, shown, activations.new_zeros(len(inputs), 1))
    return torch.where(constant, (found * first).sum(1, keepdim=True), found)


@method("ss_cam", needs=(*_SCORE_CAM, "generator"), source="arXiv:2006.14255", cost="1 + samples x C forwards")
def ss_cam(
    activations: Layer,
    inputs: Images,
    score: Ask,
    generator: Generator,
    *,
    samples: int = 10,
    noise: float = 2.0,
    reduce: Reduce = channel_sum,
) -> Map:
    """Score-CAM with weights averaged over activations with noise (Wang et al. 2020, SS-CAM(1)).

    noise: its standard deviation, in units of the activations.
    """
    total = activations.new_zeros(activations.shape[:2])
    for _ in range(samples):
        drawn = torch.randn(activations.shape[1:], generator=generator, device=generator.device)
        total = total + _seen_through(activations + noise * drawn.to(activations), inputs, score)
    return reduce(spread((total / samples).softmax(1), activations))


@method("is_cam", needs=_SCORE_CAM, source="arXiv:2010.03023", cost="1 + steps x C forwards")
def is_cam(activations: Layer, inputs: Images, score: Ask, *, steps: int = 10, reduce: Reduce = channel_sum) -> Map:
    """Score-CAM with weights averaged over masks that fade in, from 1/steps to all of them (Naidu et al. 2020)."""
    totals = [_seen_through(activations, inputs, score, step / steps) for step in range(1, steps + 1)]
    return reduce(spread(torch.stack(totals).mean(0).softmax(1), activations))


@method(
    "poly_cam",
    needs=("activations", "inputs", "scores", "score"),
    source="arXiv:2204.13359",
    cost="1 forward, and 1 + 2C for each resolution",
    staged=True,
    fuse="local_product",
)
def poly_cam(
    activations: Layer,
    inputs: Images,
    scores: Float[Tensor, " B"],
    score: Ask,
    *,
    variant: Literal["+", "-", "+-"] = "+-",
    reduce: Reduce = channel_sum,
) -> Map:
    """Channels weighted by what showing them gains and hiding them loses, at every resolution (Englebert et al. 2022).

    With a channel's mask M "+" is S(M X) - S(0), "-" is S(X) - S((1 - M) X) and "+-" their sum, where positive: PCAM+,
    PCAM- and PCAM+-. The resolutions become one map by `fuse.local_product`. The authors explain probabilities, as
    `Probability` does, for which S(0) is about 0, and leave it out; with it no constant in the score counts.
    """
    if variant not in ("+", "-", "+-"):
        raise InputError("unknown variant of Poly-CAM.", got=repr(variant), expected='"+", "-" or "+-"')
    varied, shown, whole = ~_constant(activations), _shown(activations, inputs), scores[:, None]

    def hidden(images: Tensor, channels: Tensor) -> Tensor:
        return inputs[images] - shown(images, channels)

    weights = scores.new_zeros(varied.shape)
    if "+" in variant:
        black = _asked(score, _every(inputs, 1), lambda images, _: torch.zeros_like(inputs[images]), whole)
        weights = weights + _asked(score, varied, shown, black) - black
    if "-" in variant:
        weights = weights + whole - _asked(score, varied, hidden, whole)
    return reduce(spread(weights.clamp(min=0), activations))


@method(
    "gscore_cam",
    needs=("activations", "gradients", "inputs", "score"),
    source="doi:10.1007/978-3-031-26316-3_35",
    cost="1 + channels forwards, 1 backward",
)
def gscore_cam(
    activations: Layer,
    gradients: Layer,
    inputs: Images,
    score: Ask,
    *,
    channels: int = 300,
    reduce: Reduce = channel_sum,
) -> Map:
    """Score-CAM on the channels with the largest mean gradients only (Chen et al. 2022)."""
    slopes = gradients.flatten(2).mean(-1)
    ranks = slopes.argsort(dim=1, descending=True, stable=True).argsort(1)
    missing = activations.new_full((len(inputs), 1), -math.inf)
    found = _asked(score, ranks < channels, _shown(activations, inputs), missing)
    return reduce(spread(found.softmax(1), activations))


@method(
    "group_cam",
    needs=("activations", "gradients", "inputs", "score"),
    source="arXiv:2103.13859",
    cost="2 + groups forwards, 1 backward",
)
def group_cam(
    activations: Layer,
    gradients: Layer,
    inputs: Images,
    score: Ask,
    *,
    groups: int = 32,
    quantile: float = 0.7,
    sigma: float = 10.0,
) -> Map:
    """Groups of neighbouring channels weighted by the score that they bring back into a blurred image (Zhang 2021).

    A group's mask is the Grad-CAM of its channels without what lies under its `quantile`; the authors' code adds these
    up scaled to [0, 1], here they are as they are. sigma: of the blur, in pixels; volumes are blurred slice by slice.
    """
    count = min(groups, activations.shape[1])
    weighted = spread(gradients.flatten(2).mean(-1), activations)
    maps = torch.stack([group.sum(1) for group in weighted.tensor_split(count, 1)], 1).clamp(min=0)
    floor = maps.flatten(2).quantile(quantile, dim=-1)
    maps = maps * (maps > floor.reshape(*floor.shape, *[1] * (maps.ndim - 2)))
    blurred = arrays.blur(inputs.float(), sigma).to(inputs)

    def shown(images: Tensor, numbers: Tensor) -> Tensor:
        group = (numbers - 1).clamp(min=0)  # number 0 is the blurred image itself
        bare = (numbers == 0).reshape(-1, *[1] * (inputs.ndim - 1))
        masks = torch.where(bare, 0, _masks(maps[images, group], inputs.shape[2:]))
        return masks * inputs[images] + (1 - masks) * blurred[images]

    found = _asked(score, _every(inputs, 1 + count), shown, activations.new_zeros(len(inputs), 1))
    return channel_sum(spread(found[:, 1:] - found[:, :1], maps))


@method(
    "recipro_cam",
    needs=("activations", "replay"),
    source="arXiv:2209.14074",
    cost="1 forward, and H x W of what follows the layer",
)
def recipro_cam(activations: Layer, replay: Ask, *, gaussian: bool = False) -> Map:
    """What the score becomes when one place of the layer is all that is left, less the worst of places (Byun 2022).

    gaussian: leave its neighbours as well, with the weights of a 3 x 3 (x 3) binomial filter.
    """
    space = activations.shape[2:]
    grid = torch.stack(torch.meshgrid(*map(torch.arange, space), indexing="ij"), -1).to(activations.device)
    places = grid.reshape(-1, len(space))
    lobe = activations.new_tensor([0.5, 0.25] if gaussian else [1.0])

    def left(images: Tensor, numbers: Tensor) -> Tensor:
        distance = (places[numbers][:, None] - places[None]).abs()  # (n, places, dimensions)
        near = distance < len(lobe)
        share = torch.where(near, lobe[distance.clamp(max=len(lobe) - 1)], 0).prod(-1)
        return activations[images] * share.reshape(-1, 1, *space)

    count = len(places)
    found = _asked(replay, _every(activations, count), left, activations.new_zeros(len(activations), 1))
    return (found - found.amin(1, keepdim=True)).reshape(-1, *space)


@method("opti_cam", needs=_SCORE_CAM, source="arXiv:2301.07002", cost="1 + steps forwards, steps backwards")
def opti_cam(activations: Layer, inputs: Images, score: Ask, *, steps: int = 100, rate: float = 0.1) -> Map:
    """The convex combination of channels through which the image scores best (Zhang et al. 2023, eqs. 7 to 10).

    Found by Adam from equal weights, in `steps` steps at the learning `rate`. Constant channels take no part: the mask,
    scaled to [0, 1], does not depend on them, and Adam would follow the rounding of their zero gradients.
    """
    logits = activations.new_zeros(activations.shape[:2]).requires_grad_()
    out = _constant(activations) & ~_constant(activations).all(1, keepdim=True)
    optimiser = torch.optim.Adam([logits], lr=rate)
    images = torch.arange(len(inputs), device=inputs.device)

    def combined() -> Map:
        return channel_sum(spread(logits.masked_fill(out, -math.inf).softmax(1), activations))

    for _ in range(steps):
        masked = _masks(combined(), inputs.shape[2:]) * inputs
        gain = score(images, lambda rows, masked=masked: masked[rows])  # type: ignore[misc]
        (logits.grad,) = torch.autograd.grad(-gain.sum(), logits)
        optimiser.step()
    return combined().detach()


@method("rise", needs=("inputs", "score", "generator"), source="arXiv:1806.07421", cost="1 + masks forwards")
def rise(
    inputs: Images,
    score: Ask,
    generator: Generator,
    *,
    masks: int = 2000,
    cells: int = 7,
    keep: float = 0.5,
) -> Map:
    """Random masks weighted by the score of the image seen through them (Petsiuk et al. 2018, eq. 6).

    Masks are coarse grids of `cells` per side, each open with probability `keep`, enlarged and shifted at random. The
    mean score is taken off first: the map says which places score more than the others. It needs no layer.
    """
    size = inputs.shape[2:]
    cell = [math.ceil(side / cells) for side in size]
    larger = tuple((cells + 1) * side for side in cell)
    shape = (masks, *[cells] * len(size))
    grids = (torch.rand(shape, generator=generator, device=generator.device) < keep).to(inputs)
    shifts = [torch.randint(side, (masks,), generator=generator, device=generator.device).tolist() for side in cell]

    def drawn(numbers: Int[Tensor, " n"]) -> Float[Tensor, "n *size"]:
        cut = []
        for number, grid in zip(numbers.tolist(), arrays.resize(grids[numbers].float(), larger), strict=True):
            starts = [shift[number] for shift in shifts]
            cut.append(grid[tuple(slice(start, start + side) for start, side in zip(starts, size, strict=True))])
        return torch.stack(cut)

    def seen(images: Tensor, numbers: Tensor) -> Tensor:
        return drawn(numbers)[:, None] * inputs[images]

    found = _asked(score, _every(inputs, masks), seen, inputs.new_zeros(len(inputs), 1, dtype=torch.float32))
    found = found - found.mean(1, keepdim=True)
    total = found.new_zeros(len(inputs), *size)
    for start in range(0, masks, 32):
        numbers = torch.arange(start, min(start + 32, masks), device=inputs.device)
        total = total + torch.einsum("bn,n...->b...", found[:, numbers], drawn(numbers))
    return total / (masks * keep)


@method("occlusion", needs=("inputs", "scores", "score"), source="arXiv:1311.2901", cost="1 + windows forwards")
def occlusion(
    inputs: Images,
    scores: Float[Tensor, " B"],
    score: Ask,
    *,
    window: int | None = None,
    stride: int | None = None,
    baseline: float = 0.0,
) -> Map:
    """The score lost behind a window that slides over the image, averaged over the windows on a pixel (Zeiler 2014).

    window, stride: in pixels; an eighth of the shortest side and half of the window unless given. The windows are
    filled with `baseline`, 0 being the mean colour of a normalised image. The last ones may stand out over the edge.
    """
    size = inputs.shape[2:]
    window = window or math.ceil(min(size) / 8)
    stride = stride or math.ceil(window / 2)
    if not 0 < stride <= window:
        raise InputError("the windows leave gaps.", got=f"stride {stride}, window {window}", do="a smaller stride")
    starts = [range(0, max(side - window, 0) + stride, stride) for side in size]
    corners = list(itertools.product(*starts))

    def hidden(numbers: Int[Tensor, " n"]) -> Bool[Tensor, "n *size"]:
        masks = torch.zeros(len(numbers), *size, dtype=torch.bool, device=inputs.device)
        for mask, number in zip(masks, numbers.tolist(), strict=True):
            mask[tuple(slice(start, start + window) for start in corners[number])] = True
        return masks

    def occluded(images: Tensor, numbers: Tensor) -> Tensor:
        return torch.where(hidden(numbers)[:, None], baseline, inputs[images])

    found = _asked(score, _every(inputs, len(corners)), occluded, scores.new_zeros(len(inputs), 1))
    total, covered = found.new_zeros(len(inputs), *size), found.new_zeros(size)
    for start in range(0, len(corners), 32):
        numbers = torch.arange(start, min(start + 32, len(corners)), device=inputs.device)
        masks = hidden(numbers).to(found)
        total = total + torch.einsum("bn,n...->b...", scores[:, None] - found[:, numbers], masks)
        covered = covered + masks.sum(0)
    return total / covered
