"""Where in a model's output the wanted tensor is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from seewhy.errors import InputTypeError, OutputError
from seewhy.hooks.nested import children, described, tensors

Output = int | str | Callable[[Any], Any] | None  # which part of what a model returns

_SCORES = ("logits", "out", "scores", "pred", "prediction", "pred_logits", "logits_per_image")
_EMBEDDINGS = ("image_embeds", "image_features", "embeddings", "embedding", "pooler_output")


def select(outputs: Any, output: Output) -> Any:
    """The part of a model's output that holds what is to be explained.

    Args:
        outputs: what the model returned.
        output: its place in a tuple or list, its key or field in anything else, or a function that takes it out. None
            is all of it.

    Returns:
        The part, as it stands in the output.

    Raises:
        OutputError: if there is no such part.
        InputTypeError: if `output` is nothing of these.

    Examples:
        >>> select(("main", "auxiliary"), 0)
        'main'
        >>> select({"logits": "main"}, "logits")
        'main'
        >>> select({"heads": ["main", "auxiliary"]}, lambda outputs: outputs["heads"][1])
        'auxiliary'
    """
    if output is None:
        return outputs
    if callable(output):
        return output(outputs)
    if isinstance(output, bool) or not isinstance(output, int | str):
        raise InputTypeError(
            "output= does not say which part of the model's output is meant.",
            got=type(output).__name__,
            expected="an int, a str, or a function of the output",
        )
    parts = _parts(outputs)
    place = (
        output + len(outputs)
        if isinstance(output, int) and output < 0 and isinstance(outputs, tuple | list)
        else output
    )
    if place not in parts:
        raise OutputError(
            f"the model's output has no part {output!r}.",
            got=described(outputs),
            expected="output=" + " or ".join(map(repr, parts)) if parts else "no output=: there is one part only",
        )
    return parts[place]


def _parts(outputs: Any) -> dict[Any, Any]:
    """The parts of a container or object by place, key or field; none of a tensor."""
    parts = dict(children(outputs)) or dict(getattr(outputs, "__dict__", {}))
    return parts | dict(zip(getattr(outputs, "_fields", ()), parts.values(), strict=False))  # of a named tuple


def scores_tensor(outputs: Any) -> Tensor:
    """The tensor of class scores in a model's output, as it stands there.

    Args:
        outputs: a tensor, or a container with one tensor of floats or with one called "logits", "out" or the like.

    Returns:
        That tensor, of whatever shape.

    Raises:
        OutputError: if it cannot be told which tensor holds them.
    """
    if isinstance(outputs, Tensor) and outputs.ndim > 0:
        return outputs
    if found := tensors_called(outputs, _SCORES):
        return found[0]
    floats: dict[Any, Tensor] = {key: entry for key, entry in children(outputs) if _is_per_image(entry)}
    if len(floats) == 1 and not tensors_called(outputs, _EMBEDDINGS):
        return next(iter(floats.values()))
    key = next(iter(floats), "scores")
    function = f"pass a function of the output as target, such as lambda output: output[{key!r}][:, 3]"
    raise OutputError(
        "the class scores were not found in the model's output.",
        got=described(outputs),
        expected="a tensor, a container with one tensor, or an entry called " + ", ".join(map(repr, _SCORES)),
        do=advice(outputs, f"{function}, or say which part holds them: output={key!r}" if floats else function),
    )


def answers(outputs: Any) -> list[Tensor]:
    """What a model says rather than why: its scores or masks.

    Args:
        outputs: what the model returned.

    Returns:
        The tensors called scores or masks; all tensors of the output where none is called so.
    """
    return tensors_called(outputs, (*_SCORES, "masks_queries_logits")) or list(tensors(outputs))


def embedding_tensor(outputs: Any, width: int) -> Float[Tensor, "B D"]:
    """The embedding of each image in a model's output.

    Args:
        outputs: what the model returned.
        width: D, how many numbers an embedding has.

    Raises:
        OutputError: if there is none of this width.
    """
    entries = [outputs] if isinstance(outputs, Tensor) else tensors_called(outputs, _EMBEDDINGS)
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


def tensors_called(outputs: Any, names: Sequence[str]) -> list[Tensor]:
    """The tensors called one of `names` in a mapping, dataclass, named tuple or the like, in that order."""
    entries = _parts(outputs)
    return [found for name in names if isinstance(found := entries.get(name), Tensor)]


def _is_per_image(entry: Any) -> bool:
    """Whether it may hold something of each image: a loss does not."""
    return isinstance(entry, Tensor) and entry.is_floating_point() and entry.ndim > 0


def is_detections(outputs: Any) -> bool:
    """Whether `outputs` are a mapping per image with its boxes, as torchvision's detectors return."""
    return isinstance(outputs, list) and all(isinstance(entry, Mapping) and "boxes" in entry for entry in outputs)


def advice(outputs: Any, otherwise: str) -> str:
    """What to pass as target for the kinds of output that hold no class scores, and `otherwise` for any other."""
    if is_detections(outputs) or tensors_called(outputs, ("pred_boxes",)):
        return "pass Box(...) as target: the boxes of a detector are explained one by one"
    if tensors_called(outputs, ("masks_queries_logits",)):
        return "pass Region(category) or Pixel(category, row, column) as target"
    if tensors_called(outputs, _EMBEDDINGS):
        return 'pass Similarity(embedding) as target, or Text("...") for a model with a text side'
    return otherwise
