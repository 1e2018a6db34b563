"""The score that metrics ask about: of what is explained, for changed images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy import targets
from seewhy.engine.session import session
from seewhy.errors import TargetError
from seewhy.hooks.nested import rebuild
from seewhy.models.loaded import Loaded, own_labels

Of = Literal["probability", "logit"]


@dataclass(frozen=True)
class Asked:
    """What is explained of a batch, made definite, and how to score changed images.

    Attributes:
        target: definite: the same whatever is done to the images.
        images: (B, C, *size), as the model takes them.
        score: (N, C, *size) -> (N,). Row n was made of image n % B, or of the image that a second argument says.
    """

    target: targets.Target
    images: Float[Tensor, "B C *size"]
    score: Callable[..., Tensor]


@contextmanager
def asking(model: nn.Module | Loaded, inputs: Any, target: Any, *, of: Of, on: str = "") -> Iterator[Asked]:
    """While the block lasts, the model can be asked for scores of changed images; it is left as it was found.

    Args:
        model: what is explained.
        inputs: a batch.
        target: what is explained of it.
        of: the probability of the class explained, or its logit. Targets that are no classes have one score.
        on: for a model of several images the name of the one that is changed: see `Explanation.input`.

    Raises:
        TargetError: for several targets of each image.
    """
    module = model.module if isinstance(model, Loaded) else model
    labels = (model.labels if isinstance(model, Loaded) else None) or own_labels(module)
    with session(module, inputs) as run, torch.no_grad():
        call = replace(run.call, which=run.call.names(run.model).index(on)) if on else run.call
        outputs = rebuild(run.run(), Tensor.detach)
        context = targets.Context(
            call.batch, call.sizes, labels, encode=model.embed_text if isinstance(model, Loaded) else None
        )
        definite = targets.resolve(target, outputs, context)
        scores = targets.checked(definite(outputs), call.batch)
        if scores.ndim != 1:
            raise TargetError(
                "metrics need one target per image.", got=f"{scores.shape[1]} of each", do="evaluate them one at a time"
            )
        scored = _probability(definite) if of == "probability" else definite

        def score(images: Tensor, numbers: Tensor | None = None) -> Tensor:
            rows = torch.arange(len(images), device=images.device) % call.batch if numbers is None else numbers
            changed = call.with_rows(lambda tensor: tensor[rows.to(tensor.device)], images)
            with torch.no_grad():
                return targets.for_rows(scored, changed.run(run.model), rows, outputs, call.batch)

        yield Asked(definite, call.image, score)


def prepare(model: nn.Module | Loaded, inputs: Any) -> Any:
    """What the model is called with: photographs are preprocessed by a model that came with its preprocessing."""
    if not isinstance(model, Loaded) or isinstance(inputs, Tensor | dict):
        return inputs
    return model.prepare(inputs if isinstance(inputs, list | tuple) else [inputs])[0]


def _probability(target: targets.Target) -> targets.Target:
    """The probability of the class that a definite target is about; the target itself where it is about no class."""
    if isinstance(target, targets.Category):
        return targets.Probability(target.index, kind=target.kind)
    return target
