"""The bias that each layer adds, for FullGrad."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from seewhy._torch import BatchNorm, Convolution


def biases(model: nn.Module) -> dict[str, Float[Tensor, " C"]]:
    """What each convolution and batch normalisation adds to its output's channels, by the layer's name.

    In eval mode a batch normalisation is z * w / s + (b - m * w / s), with the running mean m and deviation s.
    """
    added = {}
    for name, module in model.named_modules():
        if isinstance(module, Convolution) and module.bias is not None:
            added[name] = module.bias.detach()
        elif isinstance(module, BatchNorm) and module.running_mean is not None and module.running_var is not None:
            shift = -module.running_mean / (module.running_var + module.eps).sqrt()
            added[name] = shift if module.weight is None else (shift * module.weight + module.bias).detach()
    return added
