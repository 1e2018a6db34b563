"""The bias of each layer times the gradient at its output, for FullGrad."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jaxtyping import Float
from torch import Tensor, nn

from seewhy._torch import BatchNorm, Convolution
from seewhy.evidence._forward import Forward, at_least_float32
from seewhy.evidence._provider import provides
from seewhy.evidence._request import Request
from seewhy.hooks.offloaded import in_memory


def _layers(model: nn.Module) -> Mapping[str, nn.Module]:
    return {name: model.get_submodule(name) for name in biases(model)}


def _biased(forward: Forward) -> list[tuple[Tensor, Tensor]]:
    """The outputs with places of the layers that have a bias, each with that bias."""
    known = biases(forward.run.model)
    dimensions = 2 + len(forward.call.space)
    return [
        (output, known[label.name])
        for label, output in forward.tape.activations.items()
        if label.name in known and output.ndim == dimensions
    ]


def _outputs(forward: Forward) -> Iterable[Tensor]:
    return [output for output, _ in _biased(forward)]


@provides("bias_gradients", start="image", layers=_layers, leaves=_outputs)
def bias_gradients(request: Request) -> list[Float[Tensor, "B C *grid"]]:
    """For each layer with a bias, that bias times the gradient of the score at the layer's output."""
    return [
        at_least_float32(request.slope(output).detach()) * at_least_float32(bias).reshape(-1, *[1] * (output.ndim - 2))
        for output, bias in request.forward.once(_biased)
    ]


def biases(model: nn.Module) -> dict[str, Float[Tensor, " C"]]:
    """What each convolution and batch normalisation adds to its output's channels, by the layer's name.

    In eval mode a batch normalisation is z * w / s + (b - m * w / s), with the running mean m and deviation s.
    """
    added = {}
    for name, module in model.named_modules():
        if isinstance(module, Convolution | BatchNorm):
            with in_memory(module):
                bias = _added(module)
            if bias is not None:
                added[name] = bias
    return added


def _added(module: nn.Module) -> Float[Tensor, " C"] | None:
    if isinstance(module, Convolution):
        return None if module.bias is None else module.bias.detach()
    assert isinstance(module, BatchNorm)
    if module.running_mean is None or module.running_var is None:
        return None
    shift = -module.running_mean / (module.running_var + module.eps).sqrt()
    return shift if module.weight is None else (shift * module.weight + module.bias).detach()
