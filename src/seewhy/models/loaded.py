"""A model with what it takes to use it on photographs: its preprocessing and the names of its classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from seewhy._types import Frame
from seewhy.errors import InputError, ModelError
from seewhy.images import photo
from seewhy.images.letterbox import Letterbox
from seewhy.images.preprocess import Preprocess


@dataclass(frozen=True)
class TextSide:
    """The text side of a model of images and texts.

    Attributes:
        embed: from N prompts to their embeddings (N, D).
        decode: from a token's number to its text.
    """

    embed: Callable[[Sequence[str]], Tensor]
    decode: Callable[[int], str]

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """The embeddings of prompts."""
        return self.embed(prompts)


@dataclass(frozen=True, eq=False, repr=False)
class Loaded:
    """A model with its preprocessing and the names of its classes.

    `seewhy.load` makes one. For a model of your own: `Loaded(model.eval(), Preprocess(), labels=None, name="mine")`.

    Attributes:
        module: the model, in eval mode.
        preprocess: how a photograph becomes its input.
        labels: a name per class, where they are known.
        name: what the model is called.
        embed_text: from N prompts to embeddings (N, D), for a model with a text side. The module then gives the
            embedding of an image.
        processor: of a model that answers prompts about pictures, what makes its inputs: see `ask`.
    """

    module: nn.Module
    preprocess: Preprocess | Letterbox
    labels: tuple[str, ...] | None
    name: str
    embed_text: Callable[[Sequence[str]], Tensor] | None = None
    processor: Any = None

    def __repr__(self) -> str:
        """One line: the module itself and a thousand labels would fill a page."""
        labels = "no labels" if self.labels is None else f"{len(self.labels)} labels"
        return f"Loaded({self.name!r}, {type(self.module).__name__}, {labels}, {self.preprocess})"

    def prepare(
        self, photos: Sequence[photo.Photo | str | Path]
    ) -> tuple[Float[Tensor, "B C H W"], tuple[Image.Image, ...], tuple[Frame, ...]]:
        """The model's inputs for photographs.

        Args:
            photos: B photographs in any form that `seewhy.images.photo.opened` takes: PIL images, file names, arrays.

        Returns:
            The inputs (B, C, H, W), on the model's device and in its precision; the photographs, upright and RGB; and
            for each the rectangle (x0, y0, x1, y1), in pixels, that its input shows.

        Raises:
            InputError: for no photographs, a file that is no picture, and inputs that differ in shape.
            InputTypeError: for what is no photograph.
        """
        opened = tuple(photo.opened(each) for each in photos)
        if not opened:
            raise InputError("there are no photographs.", got="an empty list")
        weights = next((tensor for tensor in self.module.parameters() if tensor.is_floating_point()), torch.empty(0))
        preprocess = self.preprocess
        seen = [preprocess(each) for each in opened]
        if len({image.shape for image in seen}) > 1 and isinstance(preprocess, Letterbox):
            preprocess = preprocess.of_one_size()
            seen = [preprocess(each) for each in opened]
        if len({image.shape for image in seen}) > 1:
            raise InputError(
                "this model sees photographs whole, and these differ in shape.",
                got=", ".join(f"{image.shape[1]} x {image.shape[2]}" for image in seen[:5]),
                do="explain them one at a time",
            )
        inputs = torch.stack(seen).to(weights)
        return inputs, opened, tuple(preprocess.frame(each.size) for each in opened)

    def ask(self, photos: Any, prompt: str) -> dict[str, Any]:
        """A prompt about photographs as the model takes it, in its own chat format where it has one.

        Args:
            photos: one photograph, or several that the prompt is about, in any form that `prepare` takes.
            prompt: the question, without the tokens that stand for the photographs.

        Returns:
            What the processor makes of them, on the model's device.

        Raises:
            ModelError: for a model that does not answer prompts.
        """
        if self.processor is None:
            raise ModelError(
                "the model does not answer prompts about pictures.",
                got=self.name,
                expected="a model that generates text, such as transformers:FOLDER of a LLaVA",
                do="explain its classes: leave the prompt out",
            )
        opened = [photo.opened(each) for each in (photos if isinstance(photos, list | tuple) else [photos])]
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image"} for _ in opened] + [{"type": "text", "text": prompt}]
            text = self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True
            )
        else:
            text = " ".join([*[getattr(self.processor, "image_token", "")] * len(opened), prompt]).strip()
        made = self.processor(images=opened, text=text, return_tensors="pt")
        place = next(self.module.parameters())
        return {
            key: value.to(place.device, place.dtype if value.is_floating_point() else None)
            if isinstance(value, Tensor)
            else value
            for key, value in made.items()
        }

    def to(self, device: torch.device | str) -> Loaded:
        """The same on `device`; the module itself moves.

        Args:
            device: such as "cuda" or "cpu".

        Returns:
            The model there.

        Raises:
            ModelError: if the device cannot be used.
        """
        return dataclasses.replace(self, module=self.module.to(usable(device)))


def are_photos(inputs: object) -> bool:
    """Whether a caller's inputs are photographs, a PIL image, a file name or a list of them, and not tensors."""
    first = inputs[0] if isinstance(inputs, list | tuple) and inputs else inputs
    return isinstance(first, str | Path | Image.Image)


def own_labels(module: nn.Module) -> tuple[str, ...] | None:
    """The names of the classes that a model of transformers carries in its `config`, by index; None for others."""
    names = getattr(getattr(module, "config", None), "id2label", None)
    if not isinstance(names, Mapping) or sorted(names) != list(range(len(names))):
        return None
    return tuple(str(names[index]) for index in range(len(names)))


def usable(device: torch.device | str) -> torch.device:
    """`device`, after a tensor could be made on it.

    Raises:
        ModelError: if none could, with the reason.
    """
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
