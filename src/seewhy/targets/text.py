"""Scores of a model that gives embeddings: the likeness to another embedding, or to a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import TargetError, TargetTypeError, warn
from seewhy.targets.base import BaseTarget
from seewhy.targets.context import Context, Encode
from seewhy.targets.outputs import embedding_tensor

_GAP = 0.05  # of what the tokens add to a prompt's embedding


@dataclass(frozen=True)
class Similarity(BaseTarget):
    """The cosine between a model's embedding of each image and another embedding.

    Args:
        embedding: (D,) for all images, (B, D) for one per image, or (B, T, D).
        against: (D,) or (A, D). Their mean cosine is taken off.
        prompt: the text that the embedding is of, where that is one for all images.

    Raises:
        TargetError: on the call, for embeddings of another shape.
        OutputError: on the call, if the output holds no embedding of D numbers.

    Examples:
        >>> import torch
        >>> Similarity([1.0, 0.0])(torch.tensor([[3.0, 4.0]]))
        tensor([0.6000])
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

    def describe(self, labels: Sequence[str] | None = None, image: int = 0, number: int | None = None) -> str:  # noqa: ARG002
        return self.prompt or ""


@dataclass(frozen=True)
class Text(BaseTarget):
    """The likeness of each image to a prompt: the cosine of the model's embeddings of both.

    Args:
        prompt: one for all images, or a list with one per image.
        against: one prompt or several. Their mean cosine is taken off: what is left speaks for the one rather than
            the others.
        encode: from N prompts to their embeddings (N, D). Models of `seewhy.load` that have a text side bring it.
        interaction: whether each token of the prompt is a target of its own: see `Interaction`.
        steps: points of the integral by which the tokens' parts in the prompt are found.

    Raises:
        TargetError: on the call, if there is no text side; for an interaction if the text side is not one of the
            model's, and where there are several prompts.
        TargetTypeError: on the call, for a prompt that is no text.

    Examples:
        >>> import torch
        >>> embeddings = {"a cat": torch.tensor([1.0, 0.0]), "a dog": torch.tensor([0.0, 1.0])}
        >>> encode = lambda prompts: torch.stack([embeddings[prompt] for prompt in prompts])
        >>> Text("a cat", against="a dog", encode=encode)(torch.tensor([[4.0, 3.0]]))
        tensor([0.2000])
    """

    prompt: str | Sequence[str]
    against: str | Sequence[str] | None = None
    encode: Encode | None = None
    interaction: bool = False
    steps: int = 16

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        return self._similarity(Context(batch=0))(outputs)

    def resolved(self, outputs: Any, context: Context) -> Similarity | Interaction:
        if self.interaction:
            return self._interaction(context)
        return self._similarity(context).resolved(outputs, context)

    def _interaction(self, context: Context) -> Interaction:
        """For every image the tokens' parts in the prompt.

        Warns:
            MapWarning: if they miss more than a twentieth of what they should add up to.
        """
        if not isinstance(self.prompt, str) or self.against is not None:
            raise TargetError(
                "interaction is of the tokens of one prompt.",
                got=repr(self.prompt) + ("" if self.against is None else f" against {self.against!r}"),
                do="pass one prompt for all images, and none against it",
            )
        encode = self._encode(context)
        if context.shares is None:
            raise TargetError("the tokens of a prompt are told apart by seewhy.explain.", got="a target on its own")
        found = context.shares(encode, self.prompt, self.steps)
        if found.gap > _GAP:
            warn(
                f"the tokens of {self.prompt!r} miss {found.gap:.0%} of what they add to its embedding: "
                f"more steps than {self.steps} find it."
            )
        return Interaction(found.vectors.expand(context.batch, -1, -1), found.tokens, self.prompt)

    def _encode(self, context: Context) -> Encode:
        encode = self.encode or context.encode
        if encode is None:
            raise TargetError(
                "a prompt needs a text encoder, and this model brings none.",
                got=repr(self.prompt),
                expected="a model of seewhy.load with a text side, such as open_clip:RN50 or a transformers CLIP",
                do="pass Text(prompt, encode=...), a function from a list of prompts to their embeddings (N, D)",
            )
        return encode

    def _similarity(self, context: Context) -> Similarity:
        encode = self._encode(context)
        wanted = context.encoded(encode, _prompts(self.prompt))
        against = None if self.against is None else context.encoded(encode, _prompts(self.against))
        if isinstance(self.prompt, str):
            return Similarity(wanted[0], against, self.prompt)
        return Similarity(wanted, against)


@dataclass(frozen=True)
class Interaction(BaseTarget):
    """What each of T tokens of a prompt adds to the prompt's likeness to each image. `Text(..., interaction=True)`.

    Second order attribution (Möller et al. 2024, arXiv:2408.14153, section 3). The cosine of two towers is
    f(a, b) = g(a) . h(b), of embeddings scaled to length 1, so the attribution to a pair of features, one of each side,
    is the product of what the two say of the embedding: A_ij = (a_i - r_i) J^g_i . J^h_j (b_j - q_j), where J is the
    mean of a tower's Jacobian on the way from its reference, r or q. Summed over a token's features the right side is
    a vector v_t, and the map of the score g(a) . v_t is the attribution to pairs of places and this token. So any
    method makes it: `hires_cam` at a layer takes J^g at the image alone, `integrated_gradients` on the input takes the
    mean. The T scores add up to f(a, b) - f(a, q), and the maps of a method that is linear in the gradient to that of
    the whole prompt. The authors' code leaves the embeddings' lengths out of J and divides by them afterwards.

    Attributes:
        vectors: (B, T, D), what each token adds to the prompt's embedding.
        tokens: the tokens, as texts.
        prompt: all of it.
    """

    vectors: Float[Tensor, "B T D"]
    tokens: tuple[str, ...]
    prompt: str

    def __call__(self, outputs: Any) -> Float[Tensor, "B T"]:
        given = F.normalize(embedding_tensor(outputs, self.vectors.shape[-1]), dim=-1)
        return torch.einsum("bd,btd->bt", given, self.vectors.to(given))

    def describe(self, labels: Sequence[str] | None = None, image: int = 0, number: int | None = None) -> str:  # noqa: ARG002
        return self.prompt if number is None else self.tokens[number]


def without_redundancy(target: Any, outputs: Any, *, scale: float = 2.0) -> Any:
    """A similarity against others, as one to the part of the embedding that the others do not share.

    Feature surgery (Li et al. 2023, arXiv:2304.05653). Let f_j be the embeddings scaled to length 1, f_0 the target's
    own, and w_j the softmax of `scale` times their cosines with the whole image, over its mean. Then f_0 becomes w_0
    f_0 - mean_j w_j f_j. The score is the cosine with that. The paper's is the product: a multiple of it, with the same
    factor at all places.

    Args:
        target: resolved. Anything but a `Similarity` against others is returned as it is.
        outputs: what the model returned.
        scale: how strongly likely embeddings count.

    Returns:
        A `Similarity` to the part that is left, against nothing.
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
