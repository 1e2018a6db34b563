"""3 x 3 convolutions with a quarter of the multiplications, for the many forwards of a perturbation on a CPU.

Winograd's minimal filtering F(4 x 4, 3 x 3) as in Lavin and Gray 2016 (arXiv:1509.09308): a tile of 4 x 4 outputs is
A' [(G g G') * (B' d B)] A, of 6 x 6 inputs d and 3 x 3 weights g. Libraries for GPUs choose it by themselves; torch's
for x86 does not have it. Each value is the direct one to 1e-5 of the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from seewhy.hooks.attach import instead_of_forward

_INPUTS = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)  # B'
_WEIGHTS = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))  # 24 G
_OUTPUTS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))  # A'
_OWN = nn.Conv2d.forward, nn.Conv2d._conv_forward
_NAMED = {"same": (1, 1), "valid": (0, 0)}
_CHANNELS, _TILES = 128, 32  # with fewer, moving the tiles takes longer than the multiplications that they save


@cache
def _twice(matrix: tuple[tuple[int, ...], ...]) -> Tensor:
    """The matrix's Kronecker product with itself: what it does to rows and columns of a tile written as a vector."""
    return torch.kron(torch.tensor(matrix).float(), torch.tensor(matrix).float())


@contextmanager
def winograd(model: nn.Module) -> Iterator[None]:
    """While the block lasts, this thread's forwards of `model` take this way through the convolutions that it suits.

    These are float32, on a CPU, channels last, without a graph: others run as they are. So do those whose class or
    instance has a forward that is not torch's, those whose weights are other ones than at the first call (however a
    forward writes them), and calls of which something is not finite: here an infinity would spread over its tile.
    """
    kernels: dict[nn.Module, tuple[Tensor, Tensor]] = {}  # the weights at the first call, and what is made of them

    def quicker(module: nn.Module, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not isinstance(module, nn.Conv2d) or kwargs or len(args) != 1 or not _pays(*args):
            return own(*args, **kwargs)
        if module not in kernels:
            kernels[module] = module.weight.detach().clone(), _kernel(module.weight)
        weight, kernel = kernels[module]
        if not torch.equal(module.weight, weight):
            return own(*args)
        padding = _NAMED[module.padding] if isinstance(module.padding, str) else module.padding
        output = _convolve(args[0], kernel, module.bias, padding)
        return output if bool(output.sum().isfinite()) else own(*args)

    with instead_of_forward(filter(_fits, model.modules()), quicker):
        yield


def _fits(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv2d  # what is made of it may compute something else
        and vars(module).keys().isdisjoint(("forward", "_conv_forward"))
        and (nn.Conv2d.forward, nn.Conv2d._conv_forward) == _OWN
        and module.kernel_size == (3, 3)
        and module.stride == module.dilation == (1, 1)
        and module.groups == 1
        and min(module.in_channels, module.out_channels) >= _CHANNELS
        and module.padding_mode == "zeros"
        and isinstance(module.weight, nn.Parameter)  # weight_norm makes another one for each call
        and module.weight.dtype == torch.float32
        and module.weight.device.type == "cpu"
    )


def _pays(image: Tensor) -> bool:
    return (
        image.ndim == 4
        and image.dtype == torch.float32
        and image.is_contiguous(memory_format=torch.channels_last)
        and image.shape[0] * _tiles(image.shape[2]) * _tiles(image.shape[3]) >= _TILES
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def _tiles(side: int) -> int:
    return -(-side // 4)


def _kernel(weight: Float[Tensor, "O I 3 3"]) -> Float[Tensor, "O36 I 1 1"]:
    """G g G' for each pair of channels, its 36 entries as groups of a 1 x 1 convolution."""
    return (_twice(_WEIGHTS) / 24**2 @ weight.reshape(-1, 9).T).reshape(-1, weight.shape[1], 1, 1)


def _convolve(
    image: Float[Tensor, "N I H W"],
    kernel: Float[Tensor, "O36 I 1 1"],
    bias: Float[Tensor, " O"] | None,
    padding: tuple[int, ...],
) -> Float[Tensor, "N O h w"]:
    batch, channels = image.shape[:2]
    height, width = (side + 2 * pad - 2 for side, pad in zip(image.shape[2:], padding, strict=True))
    rows, columns = _tiles(height), _tiles(width)
    (above, left), (high, wide) = padding, image.shape[2:]
    edges = (0, 0, left, 4 * columns + 2 - wide - left, above, 4 * rows + 2 - high - above)
    cut = F.pad(image.permute(0, 2, 3, 1), edges).unfold(1, 6, 4).unfold(2, 6, 4)  # (N, rows, columns, I, 6, 6)
    tiles = cut.permute(0, 1, 2, 4, 5, 3).reshape(-1, 36, channels)
    entries = (_twice(_INPUTS) @ tiles).reshape(1, -1, 1, 36 * channels).permute(0, 3, 1, 2)  # channels last
    products = F.conv2d(entries, kernel, groups=36).permute(0, 2, 3, 1).reshape(len(tiles), 36, -1)
    made = _twice(_OUTPUTS) @ products
    joined = made.reshape(batch, rows, columns, 4, 4, -1).permute(0, 1, 3, 2, 4, 5)
    output = joined.reshape(batch, 4 * rows, 4 * columns, -1)[:, :height, :width].contiguous()
    if bias is not None:
        output += bias
    return output.permute(0, 3, 1, 2)
