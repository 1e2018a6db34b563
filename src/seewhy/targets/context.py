"""What a target may need to know besides the model's output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

Encode = Callable[[Sequence[str]], Tensor]  # N prompts -> (N, D)


@dataclass(frozen=True)
class Context:
    """The call whose output is scored.

    batch: how many images. sizes: each one's (H, W) or (D, H, W), where known. labels: a name per class.
    embeds: whether the output is known to be an embedding. encode: the model's text side.
    features: the text features computed so far; pass the same one again to compute each once.
    """

    batch: int
    sizes: Sequence[tuple[int, ...]] | None = None
    labels: Sequence[str] | None = None
    embeds: bool = False
    encode: Encode | None = None
    features: dict[tuple[Encode, str], Tensor] = field(default_factory=dict)

    def encoded(self, encode: Encode, prompts: Sequence[str]) -> Float[Tensor, "N D"]:
        """The text features of `prompts`; `encode` is asked only for those it has not been asked for."""
        new = [prompt for prompt in dict.fromkeys(prompts) if (encode, prompt) not in self.features]
        if new:
            with torch.no_grad():
                found = encode(new)
            self.features.update(zip([(encode, prompt) for prompt in new], found.detach(), strict=True))
        return torch.stack([self.features[encode, prompt] for prompt in prompts])
