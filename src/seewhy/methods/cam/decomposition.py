"""What a layer saw, whatever the class: its activations taken apart without a gradient.

Everywhere `activations` A are (B, C, *space); the result is (B, *space), signed. A component's sign is arbitrary: here
it is the one that agrees with how long the places' vectors of channels are: what stands out in a layer is positive.
Their sums would not do: behind a LayerNorm they are 0, and rounding would decide.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import InputError
from seewhy.methods import channels
from seewhy.methods.registry import method

Layer = Float[Tensor, "B C *space"]
Map = Float[Tensor, "B *space"]
Kernel = Literal["sigmoid", "linear", "poly", "rbf", "cosine"]


@method(
    "eigen_cam",
    needs=("activations",),
    source="arXiv:2008.00299",
    checked=(
        "numpy's singular vectors in float64: the same to 1e-8. grad-cam 1.5.7 centres the activations first, and "
        "that is centred=True: the same to 1e-3, up to a sign that grad-cam leaves to chance."
    ),
)
def eigen_cam(activations: Layer, *, centred: bool = False) -> Map:
    """Places projected on the activations' first right singular vector (Muhammad and Yeasin 2020).

    It shows what is strongest in the layer, whatever the class. In layers with signs, those of transformers and
    ConvNeXt, the strongest is often plain background: there the map is below chance.

    centred: of the activations less their mean over places, as grad-cam takes them; the paper does not.
    """
    places = channels.places(activations)
    rows = places - places.mean(1, keepdim=True) if centred else places
    return channels.like(activations, channels.agreeing(channels.projected(rows), places.norm(dim=-1)))


@method(
    "kpca_cam",
    needs=("activations",),
    source="arXiv:2410.00267",
    checked=(
        "The kernel's eigenvectors in float64: the same to 1e-8. grad-cam 1.5.7: the same to 1e-3, up to its sign."
    ),
)
def kpca_cam(activations: Layer, *, kernel: Kernel = "sigmoid", gamma: float | None = None) -> Map:
    """The first kernel principal component of the places, by default of tanh(x.y / C + 1) (Karmani et al. 2024).

    x and y are two places' activations less their mean over places; the kernel matrix is centred in turn. Kernels are
    "sigmoid" tanh(gamma x.y + 1), "poly" (gamma x.y + 1)^3, "rbf" exp(-gamma |x - y|^2), "linear" x.y and "cosine",
    with gamma 1 / C unless given. Below chance where `eigen_cam` is, for the same reason.
    """
    places = channels.places(activations)
    centred = places - places.mean(1, keepdim=True)
    found = _kernel(centred @ centred.mT, kernel, 1 / places.shape[-1] if gamma is None else gamma)
    rows, columns = found.mean(1, keepdim=True), found.mean(2, keepdim=True)
    projection = channels.leading(found - rows - columns + rows.mean(2, keepdim=True))
    return channels.like(activations, channels.agreeing(projection, places.norm(dim=-1)))


def _kernel(
    products: Float[Tensor, "B places places"], kernel: Kernel, gamma: float
) -> Float[Tensor, "B places places"]:
    """The kernel of each pair of places, from their inner products x.y."""
    if kernel == "sigmoid":
        return (gamma * products + 1).tanh()
    if kernel == "linear":
        return products
    if kernel == "poly":
        return (gamma * products + 1) ** 3
    squares = products.diagonal(dim1=-2, dim2=-1)
    if kernel == "rbf":
        return (-gamma * (squares[:, :, None] + squares[:, None] - 2 * products)).exp()
    if kernel == "cosine":
        lengths = squares.sqrt()
        lengths = torch.where(lengths > 0, lengths, 1)
        return products / (lengths[:, :, None] * lengths[:, None])
    raise InputError("unknown kernel.", got=repr(kernel), expected=", ".join(map(repr, get_args(Kernel))))


@method(
    "fem",
    needs=("activations",),
    source="hal-02963298",
    checked=(
        "The paper's formula in float64: the same to 1e-8. grad-cam 1.5.7 weights activations by shares instead: "
        "on its own example it has 0.5, 0, 0.5, 2 where the paper has 0, 0, 0, 3."
    ),
)
def fem(activations: Layer, *, k: float = 2.0) -> Map:
    """Where a channel stands k deviations above its mean, channels weighted by that mean (Fuad et al. 2020).

    sum_c mean_c [A_c >= mean_c + k deviation_c]. grad-cam weights the activations themselves by the share of such
    places instead. No place of a grid of n is further above than sqrt(n - 1) deviations.
    """
    exact = activations.double()
    space = tuple(range(2, activations.ndim))
    mean = exact.mean(space, keepdim=True)
    deviation = exact.std(space, keepdim=True, correction=0)
    return (mean * (exact >= mean + k * deviation)).sum(1).to(activations.dtype)


@method(
    "lafam",
    needs=("activations",),
    source="arXiv:2407.06059",
    checked="The mean over channels in float64: the same to 1e-8.",
)
def lafam(activations: Layer) -> Map:
    """The mean of the activations over channels (Karjauv and Albayrak 2024)."""
    return activations.mean(1)


def factorize(
    activations: Layer, count: int, *, rounds: int = 200
) -> tuple[Float[Tensor, "B K *space"], Float[Tensor, "K C"]]:
    """Deep feature factorization: maps H >= 0 of `count` concepts and their channels W >= 0, A ~ H W (Collins 2018).

    All images are factorized together, so that a concept is the same in each (arXiv:1806.10206). The factorization is
    that of least squares, started from the singular vectors (Boutsidis and Gallopoulos 2008) and improved concept by
    concept (Cichocki and Phan 2009), in float64. Negative activations count as 0. Concepts come in the order of how
    much of the activations they make up.
    """
    rows = activations.movedim(1, -1).flatten(0, -2).double().clamp(min=0)
    maps, channels = _from_singular_vectors(rows, count)
    for _ in range(rounds):
        maps = _improved(maps, rows @ channels.mT, channels @ channels.mT)
        channels = _improved(channels.mT, rows.mT @ maps, maps.mT @ maps).mT
    lengths = channels.norm(dim=1).clamp(min=torch.finfo(rows.dtype).tiny)
    maps, channels = maps * lengths, channels / lengths[:, None]
    order = (maps.sum(0) * channels.sum(1)).argsort(descending=True)
    space = (activations.shape[0], *activations.shape[2:], count)
    return maps[:, order].reshape(space).movedim(-1, 1).to(activations.dtype), channels[order].to(activations.dtype)


def coefficients(
    activations: Layer, vectors: Float[Tensor, "K C"], *, rounds: int = 200
) -> Float[Tensor, "B K *space"]:
    """How much of each concept is where, from 0 up: H with |A - H W| least for given W, by the steps of `factorize`."""
    rows = activations.movedim(1, -1).flatten(0, -2).double().clamp(min=0)
    channels = vectors.double()
    product, gram = rows @ channels.mT, channels @ channels.mT
    maps = torch.zeros_like(product)
    for _ in range(rounds):
        maps = _improved(maps, product, gram)
    space = (activations.shape[0], *activations.shape[2:], len(vectors))
    return maps.reshape(space).movedim(-1, 1).to(activations.dtype)


def _improved(factor: Tensor, product: Tensor, gram: Tensor) -> Tensor:
    """Each column of the (n, K) `factor` in turn at its best while the others stay, and not below 0."""
    columns = list(factor.unbind(1))
    for k, size in enumerate(gram.diagonal()):
        rest = torch.stack(columns, 1) @ gram[:, k] - columns[k] * size
        best = (product[:, k] - rest) / torch.where(size > 0, size, 1)
        columns[k] = torch.where(size > 0, best.clamp(min=0), columns[k])
    return torch.stack(columns, 1)


def _from_singular_vectors(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The half of each singular pair, positive or negative on both sides, that has more in it."""
    left, values, right = torch.linalg.svd(rows, full_matrices=False)
    maps, channels = [], []
    for u, value, v in zip(left.unbind(1), values, right.unbind(0), strict=True):
        halves = [(u.clamp(min=0), v.clamp(min=0)), ((-u).clamp(min=0), (-v).clamp(min=0))]
        a, b = max(halves, key=lambda pair: float(pair[0].norm() * pair[1].norm()))
        scale = (value * a.norm() * b.norm()).sqrt()
        maps.append(scale * a / a.norm().clamp(min=1e-300))
        channels.append(scale * b / b.norm().clamp(min=1e-300))
    return torch.stack(maps[:count], 1), torch.stack(channels[:count])
