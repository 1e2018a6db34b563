"""A model with what it takes to use it on photographs: its preprocessing and the names of its classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from seewhy._types import Frame
from seewhy.errors import InputError, ModelError
from seewhy.images import photo
from seewhy.images.preprocess import Preprocess


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model in eval mode, its preprocessing, a name per class where they are known, and what it is called.

    embed_text: its text side, if it has one, from N prompts to embeddings (N, D). The module then gives an embedding.
    """

    module: nn.Module
    preprocess: Preprocess
    labels: tuple[str, ...] | None
    name: str
    embed_text: Callable[[Sequence[str]], Tensor] | None = None

    def prepare(
        self, photos: Sequence[Any]
    ) -> tuple[Float[Tensor, "B 3 H W"], tuple[Image.Image, ...], tuple[Frame, ...]]:
        """The inputs of `photos` (PIL images or file names) on the model's device and in its precision.

        Also the photographs themselves, upright and RGB, and the rectangle of each that its input shows. Raises
        `InputError` for a file that is no picture, `InputTypeError` for what is neither a picture nor a file name.
        """
        opened = tuple(photo.opened(each) for each in photos)
        if not opened:
            raise InputError("there are no photographs.", got="an empty list")
        weights = next((tensor for tensor in self.module.parameters() if tensor.is_floating_point()), torch.empty(0))
        seen = [self.preprocess(each) for each in opened]
        if len({image.shape for image in seen}) > 1:
            raise InputError(
                "this model sees photographs whole, and these differ in shape.",
                got=", ".join(f"{image.shape[1]} x {image.shape[2]}" for image in seen[:5]),
                do="explain them one at a time",
            )
        inputs = torch.stack(seen).to(weights)
        return inputs, opened, tuple(self.preprocess.frame(each.size) for each in opened)

    def to(self, device: torch.device | str) -> Loaded:
        """The same on `device`; the module itself moves. Raises `ModelError` if the device cannot be used."""
        return dataclasses.replace(self, module=self.module.to(usable(device)))


def own_labels(module: nn.Module) -> tuple[str, ...] | None:
    """The names of the classes that a model of transformers carries in its `config`, by index."""
    names = getattr(getattr(module, "config", None), "id2label", None)
    if not isinstance(names, Mapping) or sorted(names) != list(range(len(names))):
        return None
    return tuple(str(names[index]) for index in range(len(names)))


def usable(device: torch.device | str) -> torch.device:
    """`device`, once a tensor could be made on it. Raises `ModelError` with the reason if not."""
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:  # each back end has its own
        raise ModelError(
            f"the device {str(device)!r} cannot be used here.",
            got=str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
            do='pass device="cpu"',
        ) from error
    if found.type == "meta":
        raise ModelError("the device 'meta' holds no values to compute with.", do='pass device="cpu"')
    return found
