"""An exported file, run: explanations without the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seewhy import targets
from seewhy.errors import InputError, MissingExtra, TargetError
from seewhy.exporting._card import INPUT, KEY, PREDICTED, Card
from seewhy.hooks.nested import rebuild
from seewhy.models.loaded import Loaded, are_photos
from seewhy.results import Explanation
from seewhy.results.checks import warn_of_blanks

Run = Callable[..., list[Tensor]]  # (images[, targets]) -> what the program returns, in order


class Program:
    """An exported model that explains itself.

        program = seewhy.export.load("model.onnx")
        program("cat.jpg").save("why.png")

    Args:
        card: what the file says of itself: method, layers, target, labels, preprocessing, versions, the weights' hash.
            It is kept as an attribute.
        run: runs the program: (images[, targets]) -> its tensors, in the order of `card.names`.
    """

    def __init__(self, card: Card, run: Run) -> None:
        self.card = card
        self._run = run

    def __call__(self, inputs: Any, target: Any = None) -> Explanation:
        """Explain a batch.

        Args:
            inputs: a tensor (B, C, *space), as the model took it; or, where the file has the preprocessing, a
                photograph or a list of them (PIL images or file names).
            target: the class of each image, an index, a label, or a list of either, for a program of
                `target="input"`; all others have their own.

        Returns:
            An explanation, on the CPU, like that of `seewhy.explain`.

        Raises:
            InputError: for images of another size or number than the program takes.
            TargetError: for a target where the program has its own, and for none where it has not.
        """
        photos = frames = None
        if are_photos(inputs):
            inputs, photos, frames = self._loaded().prepare(inputs if isinstance(inputs, list | tuple) else [inputs])
        card = self.card
        classes = self._classes(target, len(inputs))
        found = self.run(inputs, classes)
        outputs = rebuild(card.layout, found.__getitem__, str)
        asked = self._target(outputs, classes, len(inputs))
        explanation = Explanation(
            maps={layer: found[f"maps.{layer}"] for layer in card.layers},
            scores=found["scores"],
            outputs=outputs,
            targets=asked,
            method=card.method,
            size=card.size,
            fuse=card.fuse,
            probabilities=None if isinstance(asked, str) else targets.probabilities(asked, outputs),
            labels=card.labels,
            frames=frames,
            placements=card.placements,
            photos=photos,
            note=card.note,
        )
        warn_of_blanks(explanation)
        return explanation

    def run(self, images: Float[Tensor, "B C *space"], classes: Int[Tensor, " B"] | None = None) -> dict[str, Tensor]:
        """What the program returns, by name.

        Args:
            images: as the model took them.
            classes: an index for each image, for a program of `target="input"`.

        Returns:
            The model's outputs ("outputs", or "outputs.out" and so on), "scores" (B,), "heatmap" (B, *size) in [0, 1],
            and of each layer the signed map on its grid, "maps.layer4".

        Raises:
            InputError: for images of another size or number than the program takes.
        """
        card = self.card
        if not isinstance(images, Tensor) or images.shape[2:] != card.size or card.batch not in (None, len(images)):
            many = "B" if card.batch is None else str(card.batch)
            raise InputError(
                "the program does not take these images.",
                got=f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__,
                expected=f"a tensor ({many}, C, {', '.join(map(str, card.size))})",
                do="export with an example of this size" + ("" if card.batch is None else " and dynamic_batch=True"),
            )
        given = [images.detach().cpu()] + ([] if classes is None else [classes])
        return dict(zip(card.names, self._run(*given), strict=True))

    def _loaded(self) -> Loaded:
        if self.card.preprocess is None:
            raise InputError(
                "the file does not say how a photograph becomes an input.",
                got="a program that was exported from a bare module",
                do="pass tensors, or export what seewhy.load returned",
            )
        return Loaded(nn.Module(), self.card.preprocess, self.card.labels, self.card.model)

    def _classes(self, target: Any, batch: int) -> Int[Tensor, " B"] | None:
        """The class of each image, where that is an input of the program."""
        if (target is None) == (self.card.target == INPUT):
            raise TargetError(
                "the program takes the classes to explain." if target is None else "the program has its own target.",
                got=f"target={target!r}",
                expected="a class for each image" if target is None else f"no target: it explains {self.card.target}",
                do=None if target is None else 'export with target="input"',
            )
        if target is None:
            return None
        index = targets.per_image(targets.as_indices(target, self.card.labels), batch)
        if index.ndim != 1:
            raise TargetError("the program takes one class for each image.", got=f"shape {tuple(index.shape)}")
        return index.contiguous()

    def _target(self, outputs: Any, classes: Tensor | None, batch: int) -> Any:
        """What the maps are about, as `Explanation.targets` has it."""
        card = self.card
        kind: Any = card.kind
        if classes is not None:
            return targets.Category(classes, kind)
        if card.target == PREDICTED:
            return targets.Category(targets.class_scores(outputs, kind).predicted, kind)
        if card.index is not None:
            return targets.Category(torch.full((batch,), card.index), kind)
        return card.target


def load(path: str | Path) -> Program:
    """The program in a file that `seewhy.export` wrote, to run in ONNX Runtime (.onnx) or torch (.pt2).

    Args:
        path: the file.

    Returns:
        The program; call it on images for an explanation.

    Raises:
        InputError: if the file is none that `seewhy.export` wrote.
        MissingExtra: if a .onnx file is given and ONNX Runtime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    return _onnx(path) if path.suffix == ".onnx" else _torch(path)


def _onnx(path: Path) -> Program:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra.of("onnxruntime", "export") from error
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own errors have no common base but this
        raise InputError(f"{path}: ONNX Runtime cannot read it.", got=str(error).splitlines()[0]) from error
    card = Card.read(session.get_modelmeta().custom_metadata_map.get(KEY), path)
    names = [entry.name for entry in session.get_inputs()]

    def run(*given: Tensor) -> list[Tensor]:
        found = session.run(list(card.names), dict(zip(names, (tensor.numpy() for tensor in given), strict=True)))
        return [torch.from_numpy(array) for array in found]

    return Program(card, run)


def _torch(path: Path) -> Program:
    if not is_zipfile(path):
        raise InputError(f"{path}: torch cannot read it.", got="a file that is no archive", expected="a .pt2 file")
    said: dict[str, Any] = {KEY: ""}
    try:
        module = torch.export.load(path, extra_files=said).module()
    except (RuntimeError, ValueError, AssertionError, OSError) as error:
        raise InputError(f"{path}: torch cannot read it.", got=str(error).splitlines()[0]) from error
    card = Card.read(said[KEY] or None, path)

    @torch.no_grad()
    def run(*given: Tensor) -> list[Tensor]:
        return list(module(*given))

    return Program(card, run)
