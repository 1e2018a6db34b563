"""What takes part in an evaluation: methods by name and layer, callables, and the floor that all have to beat."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from seewhy import methods
from seewhy.errors import InputError, InputTypeError, MapWarning, SeewhyError
from seewhy.explainer import Explainer
from seewhy.hooks.select import Layers
from seewhy.images import arrays
from seewhy.methods import Attribution, Method
from seewhy.methods.default import DEFAULT
from seewhy.models.loaded import Loaded
from seewhy.results import Explanation

Competitor = str | Method | Attribution

FLOOR = ("random", "centre")  # a map of noise, and a Gaussian in the middle: what a map has to be better than


class Maps(NamedTuple):
    """The maps of one competitor, and what making them took.

    Attributes:
        maps: (B, *size), signed; NaN where there is none.
        seconds: for the batch.
        problem: why there are no maps; "" if there are.
    """

    maps: Float[Tensor, "B *size"]
    seconds: float
    problem: str = ""


def name_of(competitor: Competitor) -> str:
    """What a competitor is called in tables: "grad_cam", "layer_cam@layer3", or a function's name."""
    return competitor if isinstance(competitor, str) else methods.get(competitor).name


def drawn(
    model: nn.Module | Loaded,
    inputs: Any,
    target: Any,
    competitor: Competitor,
    *,
    layers: Layers | None,
    batch_size: int,
    generator: Generator | None,
) -> Maps:
    """The maps of one competitor, at the images' size.

    Args:
        model: what is explained.
        inputs: a batch.
        target: what is explained of it.
        competitor: "method", "method@layer", "default", "auto", a `Method`, or a callable (model, inputs, target) ->
            (B, *size).
        layers: where methods without a layer of their own look.
        batch_size: how many changed rows a perturbation method runs at once.
        generator: of the methods that draw.

    Raises:
        MethodError: if the competitor is none of these.
        InputTypeError: if a callable returns no tensor.
    """
    start = time.perf_counter()
    name, _, layer = competitor.partition("@") if isinstance(competitor, str) else (competitor, "", "")
    chosen = name in (DEFAULT, "auto") and not layer
    method = name if chosen else methods.get(name)
    where = (layer or layers) if isinstance(method, Method) and method.layered else None
    explainer = Explainer(model, method, layers=where, batch_size=batch_size, generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MapWarning)  # a blank map gets its NaN in the table
        found = shown(explainer(inputs, target))
    return Maps(found, time.perf_counter() - start)


def shown(explanation: Explanation) -> Float[Tensor, "B *size"]:
    """The map of an explanation: signed where it is of one layer, as scaled and fused where it is of several."""
    return explanation.scaled("none") if len(explanation.maps) == 1 else explanation.heatmap


def attempted(competitor: Competitor, make: Callable[[], Maps], like: Float[Tensor, "B *size"]) -> Maps:
    """The maps, or NaN and the reason where a method refuses this model."""
    try:
        return make()
    except InputTypeError:
        raise
    except SeewhyError as error:
        return Maps(torch.full_like(like, torch.nan), 0.0, f"{name_of(competitor)}: {str(error).splitlines()[0]}")


def floor(like: Float[Tensor, "B *size"], generator: Generator) -> dict[str, Maps]:
    """A smooth random map, and a Gaussian in the middle of the image."""
    size = tuple(like.shape[1:])
    coarse = [max(2, side // 16) for side in size]
    noise = torch.rand((len(like), *coarse), generator=generator, device=generator.device).to(like)
    bumps = torch.ones(1, device=like.device, dtype=like.dtype)
    for side in size:
        along = torch.linspace(-2, 2, side, device=like.device, dtype=like.dtype)
        bumps = bumps[..., None] * (-(along**2) / 2).exp()
    centre = bumps.reshape(1, *size).expand(len(like), *size)
    return {"random": Maps(arrays.resize(noise, size), 0.0), "centre": Maps(centre.clone(), 0.0)}


def given(maps: Mapping[str, Tensor], like: Float[Tensor, "B *size"]) -> dict[str, Maps]:
    """Maps that the caller made.

    Raises:
        InputError: if there is not one of the images' size for each image.
    """
    for name, found in maps.items():
        if found.shape != like.shape:
            raise InputError(
                f"the maps {name!r} do not fit the images.",
                got=tuple(found.shape),
                expected=tuple(like.shape),
                do="resize the maps to the images",
            )
    return {name: Maps(found.detach().to(like), 0.0) for name, found in maps.items()}


def unique(competitors: Sequence[Competitor]) -> dict[str, Competitor]:
    """Competitors by their names; two of one name are numbered."""
    found: dict[str, Competitor] = {}
    for competitor in competitors:
        name, number = name_of(competitor), 2
        while name in found:
            name, number = f"{name_of(competitor)} ({number})", number + 1
        found[name] = competitor
    return found
