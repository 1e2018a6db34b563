"""How concepts are found: in what a layer returned for whole images, or for crops of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy import targets
from seewhy._types import Ask, CallLabel
from seewhy.engine.session import Session
from seewhy.engine.tape import replacing
from seewhy.errors import InputError, LayerError, MethodError, TargetError
from seewhy.evidence import Forward, Recorder, Request, requests
from seewhy.geometry import grid as grids
from seewhy.images import arrays
from seewhy.methods.cam.decomposition import coefficients, factorize
from seewhy.methods.perturbation.asking import asked_of_each
from seewhy.methods.perturbation.sensitivity import design, total_indices
from seewhy.methods.registry import Method
from seewhy.results import Concepts

Discovery = Literal["factorization", "craft"]

_CROP = 2 / 7  # of the shorter side: the authors' 64 of 224 pixels
_STRIDE = 0.8  # of a crop, as in the authors' code


def discovered(
    recorder: Recorder, run: Session, count: int, method: Discovery, target: Any, options: Mapping[str, Any]
) -> Concepts:
    """The concepts of a layer by one of two methods: see `seewhy.Explainer.concepts`."""
    if method not in get_args(Discovery):
        raise MethodError("unknown way to find concepts.", got=repr(method), expected='"factorization" or "craft"')
    if method == "craft":
        return craft(recorder, run, count, target, **options)
    if target is not None or options:
        got = ", ".join([*([] if target is None else ["target"]), *options])
        raise MethodError("deep feature factorization asks about no score.", got=got, do='method="craft"')
    forward = recorder.first(run, None)
    labels = _labels(forward)
    if len(labels) != 1:
        raise LayerError("concepts are those of one layer.", got=", ".join(map(str, labels)), do="layers=")
    (label,) = labels
    maps, vectors = factorize(forward.fold(label)(forward.activation(label).detach()), count)
    return Concepts(maps, vectors, _alone(forward, label, maps, vectors), str(label), run.call.size)


def craft(
    recorder: Recorder,
    run: Session,
    count: int,
    target: Any,
    *,
    crop: int | None = None,
    share: float = 0.1,
    designs: int = 32,
) -> Concepts:
    """The concepts of a class, and how important each is for it: CRAFT (Fel et al. 2023, arXiv:2211.10154, section 3).

    Crops of the images, enlarged to the input's size, go through the model; the mean A of what the layer returns for
    each, over places, is factorized without negative numbers, A ~ U W: W are the concepts. In each image U is found at
    every place, for the same W; that is a concept's map, as in the authors' code. For the importance the concepts of an
    image are scaled by shares in [0, 1], the layer returns (shares * U) W, and the total Sobol index of each concept's
    share for the score is Jansen's estimate; the mean over images is told. What the layer returns below 0 is none of
    its concepts. With several layers each concept of the last one is taken apart once more, at the layer before, by the
    crops that have most of it: `Concepts.parts`, with their importance for the same score.

    Checked against scipy's non-negative least squares (1e-6), Jansen's sum in float64 (1e-5), and Sobol indices that a
    planted score is known to have (0.02). The authors draw shares from a Halton sequence, here it is Sobol's.

    Args:
        recorder: records at the layers that were named, or chooses one.
        run: the session, on images of one class.
        count: how many concepts.
        target: one for each image; None is its predicted class.
        crop: the side of a crop, in pixels of the input; None is 2/7 of the shorter side. They overlap by a fifth.
        share: of the crops that have most of a concept, which are taken for its parts.
        designs: rows of the first draw of shares: (1 + count) x designs runs of what follows the layer for each image.

    Raises:
        TargetError: for several targets of an image.
        LayerError: where there is more than one layer that nobody named.
        InputError: for more concepts than crops or channels, and a crop that is larger than the images.
    """
    if not 0 < share <= 1:
        raise InputError("`share` is out of range.", got=share, expected="above 0, at most 1")
    recorder = Recorder(
        [_CRAFT], None if recorder.layers is None else run.modules(recorder.layers), recorder.settings, recorder.context
    )
    forward = recorder.first(run, target)
    if forward.scores.ndim == 2:
        raise TargetError("importance is for one score of each image.", got=f"{forward.scores.shape[1]} targets")
    labels = _labels(forward)
    if recorder.layers is None and len(labels) > 1:
        raise LayerError("concepts are those of one layer.", got=", ".join(map(str, labels)), do="layers=")
    generator = recorder.settings.generator
    same = torch.Generator(generator.device).set_state(generator.get_state())  # the next call draws the same
    masks = design(count, designs, same).to(forward.scores.device)
    bounds = _bounds(run.call.batch, run.call.size, crop)
    (request,) = requests(forward, {"activations", "replay"}, keep_graph=False)
    pooled = _pooled(forward, labels, bounds, recorder.settings.limits.batch_size)
    return _crafted(request, labels, pooled, bounds, _Asked(count, share, designs, masks))


class _Asked(NamedTuple):
    """How concepts are looked for at each layer."""

    concepts: int
    share: float
    designs: int
    masks: Float[Tensor, "N K"]


def _crafted(
    request: Request,
    labels: Sequence[CallLabel],
    pooled: Mapping[CallLabel, Float[Tensor, "N C"]],
    bounds: Int[Tensor, "N bounds"],
    asked_for: _Asked,
) -> Concepts:
    """The concepts of the last of `labels`, of the crops with these bounds; and their parts at those before it."""
    *earlier, label = labels
    rows, count = pooled[label], asked_for.concepts
    if not 0 < count <= min(rows.shape):
        raise InputError(
            f"there cannot be that many concepts at {label}.",
            got=count,
            expected=f"1 to {min(rows.shape)}: {rows.shape[0]} crops, {rows.shape[1]} channels",
            do="pass more images, a smaller crop=, or for parts a larger share=",
        )
    shares, vectors = factorize(rows, count)
    here = request.at(label)
    maps = coefficients(here.give("activations"), vectors)
    importance = _importance(here.give("replay"), maps, vectors, asked_for)
    order = importance.argsort(descending=True)
    shares, vectors, maps = shares[:, order], vectors[order], maps[:, order]
    parts = []
    if earlier:
        most = max(round(asked_for.share * len(rows)), min(count, len(rows)))
        for chosen in shares.topk(most, 0).indices.unbind(1):
            of_crops = {each: pooled[each][chosen] for each in earlier}
            parts.append(_crafted(request, earlier, of_crops, bounds[chosen], asked_for))
    return Concepts(
        maps,
        vectors,
        _alone(request.forward, label, maps, vectors),
        str(label),
        request.forward.call.size,
        importance=importance[order],
        crops=bounds,
        shares=shares,
        parts=tuple(parts),
    )


def _importance(
    replay: Ask, maps: Float[Tensor, "B K *grid"], vectors: Float[Tensor, "K C"], asked_for: _Asked
) -> Float[Tensor, " K"]:
    """The total Sobol index of each concept, meaned over the images."""

    def made(images: Tensor, numbers: Tensor) -> Tensor:
        weights = asked_for.masks[numbers].to(maps)
        return torch.einsum("nk,nk...,kc->nc...", weights, maps[images], vectors)

    found = asked_of_each(replay, maps, len(asked_for.masks), made)
    return total_indices(found, asked_for.designs).mean(0).to(maps.dtype)


def _bounds(batch: int, size: tuple[int, ...], crop: int | None) -> Int[Tensor, "N bounds"]:
    """For each crop its image, and where it begins and ends along each axis."""
    side = max(round(_CROP * min(size)), 1) if crop is None else crop
    if not 0 < side <= min(size):
        raise InputError("the crop does not fit into the images.", got=crop, expected=f"1 to {min(size)}")
    starts = itertools.product(*(range(0, along - side + 1, max(int(_STRIDE * side), 1)) for along in size))
    every_start = torch.tensor(list(starts))
    which = torch.arange(batch).repeat_interleave(len(every_start))[:, None]
    placed = every_start.repeat(batch, 1)
    return torch.cat([which, placed, placed + side], 1)


def _pooled(
    forward: Forward, labels: Sequence[CallLabel], bounds: Int[Tensor, "N bounds"], batch_size: int
) -> dict[CallLabel, Float[Tensor, "N C"]]:
    """What each layer returns for each crop, meaned over places."""
    run, size = forward.run, forward.call.size
    layers = run.modules(forward.plan.layers)
    found: dict[CallLabel, list[Tensor]] = {label: [] for label in labels}
    for part in torch.split(bounds, batch_size):
        pixels = torch.cat([_enlarged(forward.call.image, row, size) for row in part.tolist()])
        images = part[:, 0]
        call = forward.call.with_rows(partial(_rows_of, images), pixels)
        tape = run.record(layers, call)
        for label in labels:
            kept = tape.activations[label.call].detach()
            fold = forward.fold_of(forward.plan, label, kept, call)
            found[label].append(fold(kept).flatten(2).mean(2))
    return {label: torch.cat(rows) for label, rows in found.items()}


def _rows_of(images: Int[Tensor, " N"], tensor: Tensor) -> Tensor:
    return tensor[images.to(tensor.device)]


def _enlarged(images: Float[Tensor, "B C *size"], bounds: list[int], size: tuple[int, ...]) -> Tensor:
    """A crop of an image, resized to the image's own size."""
    image, *ends = bounds
    axes = tuple(slice(start, end) for start, end in zip(ends[: len(size)], ends[len(size) :], strict=True))
    return arrays.resize(images[(slice(image, image + 1), slice(None), *axes)], size)


def _labels(forward: Forward) -> tuple[CallLabel, ...]:
    return forward.plan.chosen or tuple(forward.activations)


def _alone(
    forward: Forward, label: CallLabel, maps: Float[Tensor, "B K *grid"], vectors: Float[Tensor, "K C"]
) -> Float[Tensor, "K classes"]:
    """The class scores where the layer's output is, at every place, a concept as strong as at its strongest place."""
    run, fold = forward.run, forward.fold(label)
    strongest = vectors * maps.movedim(1, 0).flatten(1).amax(1)[:, None]
    kept = forward.activation(label).detach()
    first = kept[:1].expand(len(vectors), *kept.shape[1:])
    folded = fold(first)
    spread = strongest.reshape(*strongest.shape, *[1] * (folded.ndim - 2)).expand(folded.shape)
    everywhere = first + grids.unfold(fold, spread - folded, first)
    rows = run.call.with_rows(lambda tensor: tensor[:1].repeat_interleave(len(vectors), 0))
    with torch.no_grad(), replacing(run.modules(forward.plan.layers), label, everywhere):
        outputs = run.run(rows)
    return targets.class_scores(outputs).values


# what its recorder is told: which evidence a forward has to leave
_CRAFT = Method("craft", "concepts", _importance, ("activations", "replay"), "arXiv:2211.10154", "1 forward")
