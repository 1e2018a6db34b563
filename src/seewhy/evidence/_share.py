"""What each token of a prompt adds to the prompt's embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from seewhy.errors import TargetError
from seewhy.hooks.attach import after_forward
from seewhy.methods.attribution.path import gauss_legendre
from seewhy.targets import Encode, Shares


def shares(model: nn.Module, batch_size: int, encode: Encode, prompt: str, steps: int) -> Shares:
    """The part that each token of a prompt has in the prompt's embedding, scaled to length 1.

    The text side of Möller et al.'s attribution to pairs of features (arXiv:2408.14153, section 3). Let h be the text
    tower with its embedding scaled to length 1, b the vectors that it reads, one for each token, and r the same with
    zeros for the tokens that the empty prompt does not have. The part of a token t is the integral over s from 0 to 1
    of the directional derivative of h at r + s (b - r) along what b - r holds of t. The parts add up to h(b) - h(r):
    `Shares.gap` is the share of that which Gauss and Legendre's rule misses. Derivatives are in forward mode, which
    takes steps forwards for each token, and not a backward pass for each number of the embedding.

    Args:
        model: holds the text tower.
        batch_size: how many prompts run at once.
        encode: from N prompts to their embeddings (N, D), by the model.
        prompt: the prompt.
        steps: points of the integral.

    Raises:
        TargetError: if no module of the model reads the prompt token by token, or there is nothing in it.
    """
    read = _read(model, encode, prompt)
    telling = {name: found for name, found in read.items() if not _counts(found[0])}
    if not telling:
        raise TargetError(
            "no module of this model reads the prompt token by token.",
            got=type(model).__name__,
            expected="a model of two towers whose text side has an nn.Embedding: CLIP, SigLIP, open_clip",
            do="Text(prompt) without interaction; for a model that answers prompts, seewhy.Token(...)",
        )
    # the table of the words is the largest
    name = max(telling, key=lambda name: len(_tables(model)[name].weight))
    ids, vectors = telling[name]
    own = ~torch.isin(ids, _read(model, encode, "")[name][0])
    places = own.nonzero()[:, 0]
    if not len(places):
        raise TargetError("the prompt has no tokens of its own.", got=repr(prompt), expected="at least one word")
    embedding = model.get_submodule(name)

    def embedded(rows: Float[Tensor, "N L C"]) -> Float[Tensor, "N D"]:
        with after_forward({name: embedding}, lambda *_: rows):
            return F.normalize(encode([prompt] * len(rows)).double(), dim=-1)

    nothing = vectors * ~own[:, None]
    nodes, weights = gauss_legendre(steps)
    points = nothing + nodes.to(vectors)[:, None, None] * (vectors - nothing)
    along = torch.zeros(len(places), *vectors.shape).to(vectors)
    along[range(len(places)), places] = vectors[places]
    pairs = torch.cartesian_prod(torch.arange(len(places)), torch.arange(steps))
    slopes = []
    # fused attention has no derivative in forward mode, nor have the fast paths that torch takes without a graph
    with sdpa_kernel(SDPBackend.MATH), torch.enable_grad(), forward_ad.dual_level():
        for token, step in (part.unbind(1) for part in torch.split(pairs, batch_size)):
            rows = forward_ad.make_dual(points[step].requires_grad_(), along[token])  # type: ignore[no-untyped-call]
            slope = forward_ad.unpack_dual(embedded(rows)).tangent  # type: ignore[no-untyped-call]
            assert slope is not None
            slopes.append(slope.detach())
    found = (torch.cat(slopes).reshape(len(places), steps, -1) * weights.to(slopes[0])[:, None]).sum(1)
    with torch.no_grad():
        end, start = embedded(torch.stack([vectors, nothing]))
    gap = (found.sum(0) - (end - start)).norm() / (end - start).norm()
    decode = getattr(encode, "decode", str)
    return Shares(tuple(decode(int(ids[place])) for place in places), found, float(gap))


def _read(model: nn.Module, encode: Encode, prompt: str) -> dict[str, tuple[Int[Tensor, " L"], Float[Tensor, "L C"]]]:
    """What the tables of a model's embeddings read and gave for a prompt, by their names."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str, passed: tuple[object, ...], output: Tensor) -> None:
        ids = passed[0]
        if isinstance(ids, Tensor) and ids.ndim == 2 and len(ids) == 1:
            found.setdefault(name, (ids[0].clone(), output[0].detach().clone()))

    with torch.no_grad(), after_forward(_tables(model), keep):
        encode([prompt])
    return found


def _tables(model: nn.Module) -> dict[str, nn.Embedding]:
    """The tables of embeddings in a model, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Embedding)}


def _counts(ids: Int[Tensor, " L"]) -> bool:
    """Whether these are numbers of positions, or of one kind of token, and not of words."""
    return bool((ids.diff() == 1).all() or (ids.diff() == 0).all())
