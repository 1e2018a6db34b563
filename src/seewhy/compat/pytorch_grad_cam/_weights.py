"""What classes of one's own ask of their parent by `super()`: a method's part, for the arrays that they are handed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.compat.pytorch_grad_cam import _upstream
from seewhy.engine.tape import along
from seewhy.methods import Method, channels
from seewhy.methods.cam import gradient
from seewhy.methods.perturbation import replayed

# called by name with all that the method of that name needs, gives a weight to each channel (B, C)
FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "grad_cam": lambda gradients, **_: gradient.grad_cam_weights(gradients),
    "grad_cam_plus_plus": gradient.grad_cam_plus_plus_weights,
    "x_grad_cam": gradient.x_grad_cam_weights,
    "shapley_cam": lambda gradients, curvatures, **_: gradient.shapley_cam_weights(gradients, curvatures),
    "random_cam": gradient.random_cam_weights,
    "score_cam": _upstream.score_cam,
    "ablation_cam": replayed.ablation_cam_weights,
}


def handed(
    activations: Any, grads: Any, *, in_graph: bool, fold: Callable[[Tensor], Tensor] | None, device: torch.device
) -> dict[str, Tensor]:
    """What a method may need, by name, of a layer's arrays; or of tensors `in_graph`, which are still to be folded."""
    arrays = {"activations": activations, "gradients": grads}
    given = {need: torch.as_tensor(array) for need, array in arrays.items() if array is not None}
    if in_graph and "gradients" in given:
        given["curvatures"] = along(given["gradients"], given["activations"])
    if in_graph and fold is not None:
        given = {need: fold(tensor) for need, tensor in given.items()}
    return {need: tensor.detach().to(device) for need, tensor in given.items()}


def weights(method: Method, given: dict[str, Any], explain: Callable[[Method], object]) -> Float[Tensor, "B C"]:
    """The weights that `method`'s function gives for what is `given`; `explain` runs it with what else it needs."""
    found: list[Tensor] = []

    def weigh(**values: Any) -> Tensor:
        values |= {need: given[need] for need in given.keys() & values.keys()}
        found.append(method.function(**values))
        return channels.channel_sum(channels.spread(found[-1], values["activations"]))

    if given.keys() >= {*method.needs}:
        weigh(**{need: given[need] for need in method.needs})
    else:
        explain(replace(method, function=weigh))
    return found[0]
