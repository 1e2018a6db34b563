"""How the channels of a layer become one map."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

_LARGE = 1024  # rows of a matrix, of which all eigenvectors take long
_CLOSE = 1e-9  # of its eigenvalue, by which an eigenvector may be off

Reduce = Callable[[Tensor], Tensor]  # (B, C, *space) -> (B, *space)


def spread(weights: Float[Tensor, "B C"], layer: Float[Tensor, "B C *space"]) -> Float[Tensor, "B C *space"]:
    """Each channel of a layer times its weight."""
    return weights.reshape(*weights.shape, *[1] * (layer.ndim - 2)) * layer


def over_space(layer: Float[Tensor, "B C *space"]) -> Float[Tensor, "B C"]:
    """The sum over all places."""
    return layer.flatten(2).sum(-1)


def channel_sum(weighted: Float[Tensor, "B C *space"]) -> Float[Tensor, "B *space"]:
    """The evidence of all channels together."""
    return weighted.sum(1)


def principal_component(weighted: Float[Tensor, "B C *space"]) -> Float[Tensor, "B *space"]:
    """Positions projected on their first principal component over channels (Muhammad and Yeasin, arXiv:2008.00299).

    A component's sign is arbitrary; here it is the one that agrees with the sum over channels.
    """
    rows = places(weighted)
    return like(weighted, agreeing(projected(rows - rows.mean(1, keepdim=True)), rows.sum(-1)))


def projected(rows: Float[Tensor, "B places C"]) -> Float[Tensor, "B places"]:
    """Each place's coordinate along the first right singular vector, from the smaller of the two Gram matrices."""
    if rows.shape[1] <= rows.shape[2]:
        return leading(rows @ rows.mT)
    _, vectors = eigenpairs(rows.mT @ rows)
    projection: Tensor = (rows @ vectors[..., -1:]).squeeze(-1)
    return projection


def places(layer: Float[Tensor, "B C *space"]) -> Float[Tensor, "B places C"]:
    """A row of channels for each place, in float64."""
    return layer.flatten(2).mT.double()


def like(layer: Float[Tensor, "B C *space"], flat: Float[Tensor, "B places"]) -> Float[Tensor, "B *space"]:
    """Values by place as a map of the layer's grid and type."""
    return flat.to(layer.dtype).reshape(layer.shape[0], *layer.shape[2:])


def leading(gram: Float[Tensor, "B places places"]) -> Float[Tensor, "B places"]:
    """The first eigenvector of a symmetric matrix times the root of its eigenvalue: the places' first coordinate.

    Of a large matrix only that one is looked for, which takes a thirtieth of the time.
    """
    value, first = _largest(gram) if gram.shape[-1] > _LARGE else (None, None)
    if value is None or first is None:
        values, vectors = eigenpairs(gram)
        value, first = values[:, -1:], vectors[..., -1]
    found: Tensor = first * value.clamp(min=0).sqrt()
    return found


def _largest(
    symmetric: Float[Tensor, "B n n"],
) -> tuple[Float[Tensor, "B 1"], Float[Tensor, "B n"]] | tuple[None, None]:
    """The largest eigenvalue of each matrix and its eigenvector; nothing where they are not found to `_CLOSE`."""
    if not bool(symmetric.isfinite().all()):
        return None, None
    start = torch.randn(*symmetric.shape[:2], 1, dtype=symmetric.dtype, generator=torch.Generator().manual_seed(0))
    values, vectors = torch.lobpcg(symmetric, X=start.to(symmetric.device), largest=True, niter=500, tol=_CLOSE)
    off = (symmetric @ vectors - values[..., None, :] * vectors).norm(dim=1)
    found = bool((off <= 10 * _CLOSE * values.abs()).all())
    return (values, vectors[..., 0]) if found else (None, None)


def eigenpairs(symmetric: Float[Tensor, "B n n"]) -> tuple[Float[Tensor, "B n"], Float[Tensor, "B n n"]]:
    """The eigenvalues of each matrix, smallest first, and its eigenvectors in columns.

    NaN where a matrix is not finite: by itself the routine would refuse the whole batch for it.
    """
    finite = symmetric.isfinite().all(-1).all(-1)
    values, vectors = torch.linalg.eigh(torch.where(finite[:, None, None], symmetric, 0))
    return torch.where(finite[:, None], values, torch.nan), torch.where(finite[:, None, None], vectors, torch.nan)


def agreeing(projection: Float[Tensor, "B places"], with_: Float[Tensor, "B places"]) -> Float[Tensor, "B places"]:
    """`projection` with the sign that makes its product with another map positive."""
    return torch.where((projection * with_).sum(-1, keepdim=True) < 0, -projection, projection)
