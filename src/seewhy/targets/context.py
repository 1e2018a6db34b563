"""What a target may need to know besides the model's output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Encode = Callable[[Sequence[str]], Tensor]  # N prompts -> (N, D)


class Shares(NamedTuple):
    """What each token of a prompt adds to the prompt's embedding.

    Attributes:
        tokens: the T tokens, as texts.
        vectors: (T, D), what each adds.
        gap: the share of the embedding's change that they miss together.
    """

    tokens: tuple[str, ...]
    vectors: Float[Tensor, "T D"]
    gap: float


@dataclass(frozen=True)
class Context:
    """The call whose output is scored.

    Attributes:
        batch: the number of images.
        sizes: (H, W) or (D, H, W) of each image, where known.
        labels: a name per class.
        embeds: whether the output is known to be an embedding.
        encode: the model's text side.
        shares: (text side, prompt, steps) -> what each token of the prompt adds to its embedding.
        regression: whether a single output is known to be a value. It is no logit then: it has no negative side.
        num_classes: how many classes the model's head says that it has: see `declared_classes`.
        differentiable: whether gradients of the score will be taken.
        features: the text features computed so far. Pass the same dict again to compute each once.
    """

    batch: int
    sizes: Sequence[tuple[int, ...]] | None = None
    labels: Sequence[str] | None = None
    embeds: bool = False
    encode: Encode | None = None
    shares: Callable[[Encode, str, int], Shares] | None = None
    regression: bool = False
    num_classes: int | None = None
    differentiable: bool = False
    features: dict[tuple[Encode, str], Tensor] = field(default_factory=dict)

    def encoded(self, encode: Encode, prompts: Sequence[str]) -> Float[Tensor, "N D"]:
        """The text features of `prompts`; `encode` is asked only for those it has not been asked for.

        Args:
            encode: from N prompts to their embeddings (N, D).
            prompts: N texts; the same one may occur again.

        Returns:
            (N, D), without a graph.
        """
        new = [prompt for prompt in dict.fromkeys(prompts) if (encode, prompt) not in self.features]
        if new:
            with torch.no_grad():
                found = encode(new)
            self.features.update(zip([(encode, prompt) for prompt in new], found.detach(), strict=True))
        return torch.stack([self.features[encode, prompt] for prompt in prompts])
