"""Where in a model's output the wanted tensor is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from seewhy.errors import OutputError
from seewhy.hooks.nested import children, described, tensors

_SCORES = ("logits", "out", "scores", "pred", "prediction", "pred_logits", "logits_per_image")
_EMBEDDINGS = ("image_embeds", "image_features", "embeddings", "embedding", "pooler_output")


def scores_tensor(outputs: Any) -> Tensor:
    """The tensor of class scores in a model's output, as it stands there. Raises `OutputError` if it cannot be told."""
    if isinstance(outputs, Tensor) and outputs.ndim > 0:
        return outputs
    if found := named(outputs, _SCORES):
        return found[0]
    floats = [entry for _, entry in children(outputs) if isinstance(entry, Tensor) and entry.is_floating_point()]
    if len(floats) == 1 and not named(outputs, _EMBEDDINGS):
        return floats[0]
    raise OutputError(
        "the class scores were not found in the model's output.",
        got=described(outputs),
        expected="a tensor, a container with one tensor, or an entry called " + ", ".join(map(repr, _SCORES)),
        do=advice(outputs, "pass a function of the output as target, such as lambda output: output['scores'][:, 3]"),
    )


def answers(outputs: Any) -> list[Tensor]:
    """What a model says rather than why: the tensors called scores or masks in its output, or all where none is."""
    return named(outputs, (*_SCORES, "masks_queries_logits")) or list(tensors(outputs))


def embedding_tensor(outputs: Any, width: int) -> Float[Tensor, "B D"]:
    """The embedding of each image in a model's output, `width` numbers of it. Raises `OutputError` if there is none."""
    entries = [outputs] if isinstance(outputs, Tensor) else named(outputs, _EMBEDDINGS)
    entries = entries or [entry for _, entry in children(outputs) if isinstance(entry, Tensor)]
    fitting = [flat for entry in entries if entry.ndim > 1 and (flat := entry.flatten(1)).shape[1] == width]
    if not fitting:
        raise OutputError(
            "no embedding of this width was found in the model's output.",
            got=described(outputs),
            expected=f"one of shape (B, {width}), as the embedding to compare with has it",
            do="pass an embedding of the same model, or a function of the output as target",
        )
    return fitting[0]


def named(outputs: Any, names: Sequence[str]) -> list[Tensor]:
    """The tensors called one of `names` in a mapping, dataclass or the like, in that order."""
    if isinstance(outputs, tuple | list) and not isinstance(outputs, Mapping):
        return []
    entries = dict(children(outputs))
    return [found for name in names if isinstance(found := entries.get(name), Tensor)]


def is_detections(outputs: Any) -> bool:
    """Whether `outputs` are a mapping per image with its boxes, as torchvision's detectors return."""
    return isinstance(outputs, list) and all(isinstance(entry, Mapping) and "boxes" in entry for entry in outputs)


def advice(outputs: Any, otherwise: str) -> str:
    """What to pass as target for the kinds of output that hold no class scores, and `otherwise` for any other."""
    if is_detections(outputs) or named(outputs, ("pred_boxes",)):
        return "pass Box(...) as target: the boxes of a detector are explained one by one"
    if named(outputs, ("masks_queries_logits",)):
        return "pass Region(category) or Pixel(category, row, column) as target"
    if named(outputs, _EMBEDDINGS):
        return 'pass Similarity(embedding) as target, or Text("...") for a model with a text side'
    return otherwise
