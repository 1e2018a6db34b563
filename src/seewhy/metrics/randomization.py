"""Does a map depend on what the model has learned, and on the class."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from seewhy.errors import InputError
from seewhy.metrics._inputs import Images, Maps, check, drawing
from seewhy.metrics._similarity import rank_correlation

Similarity = Callable[[Tensor, Tensor], Tensor]


class Randomization(NamedTuple):
    """How like the maps still are after more and more layers were drawn anew.

    Attributes:
        layers: the layer that was drawn in each step.
        similarities: (L, B) the maps of each step to those of the model as it was.
    """

    layers: tuple[str, ...]
    similarities: Float[Tensor, "L B"]


def parameter_randomization(
    explain: Callable[[nn.Module, Tensor], Tensor],
    model: nn.Module,
    images: Images,
    *,
    order: Literal["top_down", "bottom_up", "independent"] = "top_down",
    layers: Sequence[str] | None = None,
    similarity: Similarity = rank_correlation,
    generator: Generator | None = None,
) -> Randomization:
    """How like the maps are to those of models whose layers are drawn anew, one after the other.

    Adebayo et al. 2018 (arXiv:1810.03292), section 3: a map that stays the same does not show what was learned. Lower
    is better. The parameters of a layer are drawn from the normal distribution with their own mean and deviation;
    parameters that are all equal and buffers stay. This happens in a copy of the model.

    Args:
        explain: (model, images) -> maps (B, H, W). The model is a copy, in the mode of `model`.
        model: what is explained. It is not changed.
        images: (B, C, H, W) or (B, C, D, H, W), as the model takes them.
        order: "top_down" from the output on, each step keeps what was drawn before (cascading); "bottom_up" from the
            input on; "independent" one layer at a time, the others as they were.
        layers: names of modules whose own parameters are drawn; by default all that have any.
        similarity: (maps, maps) -> (B,).
        generator: draws the parameters; None draws the same in every call.

    Returns:
        The layers, and the similarities. With `rank_correlation` NaN where a map is constant.

    Raises:
        InputError: if maps and images differ in size, a map is not finite, or there is no such layer or order.
    """
    if order not in ("top_down", "bottom_up", "independent"):
        raise InputError("there is no such order.", got=order, expected='"top_down", "bottom_up" or "independent"')
    draws = drawing(generator)
    with_parameters = [name for name, module in model.named_modules() if any(True for _ in _own(module))]
    missing = [name for name in layers or () if name not in with_parameters]
    if missing or not with_parameters:
        raise InputError(
            "there are no parameters to draw.",
            got=missing or type(model).__name__,
            expected=f"names among {with_parameters}",
        )
    names = [name for name in with_parameters if layers is None or name in layers]
    names = names[::-1] if order == "top_down" else names
    drawn = copy.deepcopy(model)
    before = check(images, explain(drawn, images).detach())
    found = []
    for name in names:
        layer = drawn.get_submodule(name)
        kept = [parameter.detach().clone() for parameter in _own(layer)]
        for parameter in _own(layer):
            _draw(parameter, draws)
        found.append(similarity(before, check(images, explain(drawn, images).detach())))
        if order == "independent":
            with torch.no_grad():
                for parameter, values in zip(_own(layer), kept, strict=True):
                    parameter.copy_(values)
    return Randomization(tuple(names), torch.stack(found))


def random_logit(
    explain: Callable[[Tensor, Tensor], Tensor],
    images: Images,
    target: Int[Tensor, " targets"],
    *,
    classes: int,
    maps: Maps | None = None,
    similarity: Similarity = rank_correlation,
    generator: Generator | None = None,
) -> Float[Tensor, " B"]:
    """How like the map of a class is to that of another class.

    Sixt et al. 2020 (arXiv:1912.09818), section 5: a map that is the same for all classes explains none. Lower is
    better.

    Args:
        explain: (images, target) -> maps (B, H, W), with the target (B,).
        images: (B, C, H, W) or (B, C, D, H, W), as the model takes them.
        target: (B,) the classes that are explained.
        classes: how many there are. The other class is that many further on as is drawn, for all images.
        maps: those of `target`, if they are known.
        similarity: (maps, maps) -> (B,).
        generator: draws the other class; None draws the same in every call.

    Returns:
        (B,) With `rank_correlation` in [-1, 1], NaN where a map is constant.

    Raises:
        InputError: if maps and images differ in size, a map is not finite, or a target is no class.
    """
    if target.shape != images.shape[:1] or bool(((target < 0) | (target >= classes)).any()) or classes < 2:
        raise InputError("the targets do not fit.", got=target, expected=f"{len(images)} numbers below {classes}")
    draws = drawing(generator)
    further = torch.randint(1, classes, (), generator=draws, device=draws.device).to(target.device)
    own = check(images, explain(images, target).detach() if maps is None else maps)
    return similarity(own, check(images, explain(images, (target + further) % classes).detach()))


def _own(module: nn.Module) -> Iterator[nn.Parameter]:
    return module.parameters(recurse=False)


def _draw(parameter: nn.Parameter, generator: Generator) -> None:
    """From the normal distribution with the parameter's own mean and deviation; as it is if all of it is equal."""
    values = parameter.detach()
    drawn = torch.randn(values.shape, generator=generator, device=generator.device).to(values)
    with torch.no_grad():
        parameter.copy_(values.mean() + values.std(correction=0) * drawn)
