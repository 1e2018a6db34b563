"""What a model sees, as a few concepts of one layer."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy import targets
from seewhy._types import CallLabel
from seewhy.engine.tape import replacing
from seewhy.errors import LayerError
from seewhy.evidence import Forward
from seewhy.geometry import grid as grids
from seewhy.methods.cam.decomposition import factorize
from seewhy.results import Concepts


def concepts_of(forward: Forward, count: int) -> Concepts:
    """The activations of the one layer that is looked at, as `count` concepts: see `Explainer.concepts`."""
    labels = forward.plan.chosen or tuple(forward.activations)
    if len(labels) != 1:
        raise LayerError("concepts are those of one layer.", got=", ".join(map(str, labels)), do="layers=")
    (label,) = labels
    maps, vectors = factorize(forward.fold(label)(forward.activation(label).detach()), count)
    strongest = vectors * maps.movedim(1, 0).flatten(1).amax(1)[:, None]
    return Concepts(maps, vectors, _scores_of(forward, label, strongest), str(label), forward.call.size)


def _scores_of(forward: Forward, label: CallLabel, vectors: Float[Tensor, "K C"]) -> Float[Tensor, "K classes"]:
    """The class scores where the layer's output is, at every place, one of `vectors`."""
    run, fold = forward.run, forward.fold(label)
    kept = forward.activation(label).detach()
    first = kept[:1].expand(len(vectors), *kept.shape[1:])
    folded = fold(first)
    spread = vectors.reshape(*vectors.shape, *[1] * (folded.ndim - 2)).expand(folded.shape)
    everywhere = first + grids.unfold(fold, spread - folded, first)
    rows = run.call.with_rows(lambda tensor: tensor[:1].repeat_interleave(len(vectors), 0))
    with torch.no_grad(), replacing(run.modules(forward.plan.layers), label, everywhere):
        outputs = run.run(rows)
    return targets.class_scores(outputs).values
