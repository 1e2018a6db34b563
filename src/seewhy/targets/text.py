"""Scores of a model that gives embeddings: the likeness to another embedding, or to a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import TargetError, TargetTypeError
from seewhy.targets.context import Context, Encode
from seewhy.targets.outputs import embedding_tensor


@dataclass(frozen=True)
class Similarity:
    """The cosine between a model's embedding of each image and `embedding`.

    embedding: (D,) for all images, (B, D) for one per image, or (B, T, D). against: (D,), or (A, D), whose mean cosine
    is taken off. Raises `TargetError` for other shapes, `OutputError` where the output holds no embedding of D numbers.
    prompt: what the embedding is of, where that is one text for all images.
    """

    embedding: Any
    against: Any = None
    prompt: str | None = None

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        wanted = torch.as_tensor(self.embedding)
        given = embedding_tensor(outputs, wanted.shape[-1])
        wanted = wanted.to(given)
        scores = F.cosine_similarity(given[:, None] if wanted.ndim == 3 else given, wanted, -1)
        if self.against is None:
            return scores
        others = torch.as_tensor(self.against).to(given)
        others = others if others.ndim > 1 else others[None]
        mean = F.cosine_similarity(given[:, None], others, -1).mean(-1)
        return scores - mean.reshape(-1, *[1] * (scores.ndim - 1))

    def resolved(self, outputs: Any, context: Context) -> Similarity:
        """With an embedding per image."""
        wanted = torch.as_tensor(self.embedding)
        given = embedding_tensor(outputs, wanted.shape[-1])
        if wanted.ndim not in (1, 2, 3) or (wanted.ndim > 1 and wanted.shape[0] != context.batch):
            raise TargetError(
                "the embeddings to compare with do not fit the batch.",
                got=f"shape {tuple(wanted.shape)} for {context.batch} image{'s'[: context.batch != 1]}",
                expected=f"({given.shape[1]},), ({context.batch}, {given.shape[1]}), or one row of T per image",
            )
        wanted = wanted.detach().to(given)
        wanted = wanted.expand(context.batch, -1) if wanted.ndim == 1 else wanted
        if self.against is None:
            return replace(self, embedding=wanted)
        others = torch.as_tensor(self.against).detach().to(given)
        others = others if others.ndim > 1 else others[None]
        return replace(self, embedding=wanted, against=others.expand(context.batch, *others.shape[-2:]))


@dataclass(frozen=True)
class Text:
    """The likeness of each image to a prompt: the cosine of the model's embeddings of both.

    prompt: one for all images, or a list with one per image. against: one prompt or several, whose mean cosine is taken
    off: what speaks for the one rather than the others. encode: from N prompts to their embeddings (N, D); models from
    `seewhy.load` that have a text side bring it. Raises `TargetError` where there is none.
    """

    prompt: str | Sequence[str]
    against: str | Sequence[str] | None = None
    encode: Encode | None = None

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        return self._similarity(Context(batch=0))(outputs)

    def resolved(self, outputs: Any, context: Context) -> Similarity:
        return self._similarity(context).resolved(outputs, context)

    def _similarity(self, context: Context) -> Similarity:
        encode = self.encode or context.encode
        if encode is None:
            raise TargetError(
                "a prompt needs a text encoder, and this model brings none.",
                got=repr(self.prompt),
                expected="a model of seewhy.load with a text side, such as open_clip:RN50 or a transformers CLIP",
                do="pass Text(prompt, encode=...), a function from a list of prompts to their embeddings (N, D)",
            )
        wanted = context.encoded(encode, _prompts(self.prompt))
        against = None if self.against is None else context.encoded(encode, _prompts(self.against))
        if isinstance(self.prompt, str):
            return Similarity(wanted[0], against, self.prompt)
        return Similarity(wanted, against)


def without_redundancy(target: Any, outputs: Any, *, scale: float = 2.0) -> Any:
    """A resolved `Similarity` against others as one to what is its own; any other `target` as it is.

    Feature surgery (Li et al. 2023, arXiv:2304.05653): with f_j the embeddings of length 1, its own f_0 among them, and
    w_j the softmax of `scale` times their cosines with the whole image over its mean, f_0 becomes w_0 f_0 -
    mean_j w_j f_j. The score is the cosine with that; the paper's is the product, at all places as many times as large.
    """
    if not isinstance(target, Similarity) or target.against is None:
        return target
    own, others = target.embedding, target.against
    rows = own if own.ndim == 3 else own[:, None]
    together = torch.cat([rows[:, :, None], others[:, None].expand(-1, rows.shape[1], -1, -1)], 2)
    features = F.normalize(together, dim=-1)
    image = F.normalize(embedding_tensor(outputs, own.shape[-1]).detach(), dim=-1)
    likely = (scale * torch.einsum("bd,btjd->btj", image, features)).softmax(-1)
    weighted = (likely / likely.mean(-1, keepdim=True))[..., None] * features
    return Similarity((weighted[:, :, 0] - weighted.mean(2)).reshape(own.shape))


def _prompts(given: str | Sequence[str]) -> list[str]:
    prompts = [given] if isinstance(given, str) else list(given)
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise TargetTypeError("a prompt is a text.", got=repr(given), expected="a str or a list of them")
    return prompts
