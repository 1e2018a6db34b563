"""A model and its explanation as one file."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from seewhy import targets
from seewhy.engine.session import session
from seewhy.errors import InputError, MethodError, MissingExtra, ModelError
from seewhy.explainer import Explainer
from seewhy.exporting import _program
from seewhy.exporting._card import INPUT, KEY, PREDICTED, Card
from seewhy.exporting._forms import FORMS
from seewhy.exporting._program import Program
from seewhy.exporting._trace import Traced, traced
from seewhy.hooks.select import Layers
from seewhy.images.files import written_whole
from seewhy.images.preprocess import Preprocess
from seewhy.methods import Method
from seewhy.models.fingerprint import weights_hash
from seewhy.models.loaded import Loaded

Format = Literal["onnx", "torch"]

_ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}
_MOST = 2**31 - 2**26  # bytes of weights: what protobuf, which .onnx files are written in, holds in one file
_CLOSE = 1e-3  # of the largest value: how far what was written may lie from what the library computes
_LIBRARIES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch": ()}


class Export:
    """`seewhy.export(...)` writes a program that explains itself; `seewhy.export.load(path)` runs it."""

    def __call__(
        self,
        model: nn.Module | Loaded,
        example: Any,
        path: str | Path,
        *,
        method: str | Method = "grad_cam",
        layers: Layers | None = None,
        target: Any = PREDICTED,
        format: Format = "onnx",  # noqa: A002
        dynamic_batch: bool = True,
    ) -> Path:
        """Write a model and its explanation as one program: the model's outputs, `scores` and `heatmap`.

            seewhy.export(model, images, "model.onnx")
            seewhy.export.load("model.onnx")(images).save("why.png")

        The computation of `seewhy.explain` on the example is traced, in eval mode, as operations with no Python left;
        layer and grid are those that it found. Inputs are `images` (B, C, *space) and, with target="input", `targets`
        (B,), class indices. Outputs are the model's own, `scores` (B,), `heatmap` (B, *size) in [0, 1], and of each
        layer the signed map on its grid, "maps.layer4" say. The file also says: method, layer, target, labels,
        preprocessing, versions, and the hash of the weights.

        What was written is run on the example before it takes its name.

        Args:
            model: any module, or what `seewhy.load` returned.
            example: inputs of the size that the program will take, as for `seewhy.explain`: a tensor, or photographs.
            path: ends in .onnx, for format="torch" in .pt2.
            method: of one forward, and of gradients of it or of what follows a layer (`recipro_cam`); what asks the
                whole model again and again cannot be a program.
            layers: where to look; None chooses as `seewhy.explain` does.
            target: "predicted", the class with the highest score; "input", classes that are handed in; or one for all
                images, as for `seewhy.explain`.
            format: "onnx", or "torch" for a `torch.export` archive.
            dynamic_batch: whether it takes any number of images, and not only as many as the example has.

        Returns:
            The path.

        Raises:
            MethodError: for a method that cannot be a program.
            ModelError: for an operation that ONNX does not have, named, and for weights that are too large for a file.
            InputError: for an ending that does not fit the format, and a model of several inputs.
            TargetError: for a target that differs from image to image.
            MissingExtra: where the libraries of `seewhy[export]` are not installed.
        """
        path = Path(path)
        _check(path, format)
        explainer = Explainer(model, method, layers=layers)
        if len(explainer.methods) != 1:
            raise MethodError("a program has one method.", got=method, do='method="grad_cam"')
        inputs, _, _ = explainer.prepared(example)
        forms = FORMS if format == "onnx" else {}
        with session(explainer.model, inputs) as run:
            made = traced(explainer, run, target, dynamic_batch=dynamic_batch, forms=forms)
        card = _card(explainer, made, target, dynamic=dynamic_batch)
        program = _exported(made, dynamic=dynamic_batch)
        with written_whole(path) as aside:
            if format == "torch":
                torch.export.save(program, aside, extra_files={KEY: card.json()})
            else:
                _write_onnx(program, card, made, aside)
            _check_agreement(_program.load(aside), made)
        return path

    @staticmethod
    def load(path: str | Path) -> Program:
        """The program in a file that `seewhy.export` wrote: see `seewhy.exporting.load`.

        Args:
            path: the file.

        Returns:
            The program; call it on images for an explanation.

        Raises:
            InputError: if the file is none that `seewhy.export` wrote.
            MissingExtra: if a .onnx file is given and ONNX Runtime is not installed.
        """
        return _program.load(path)


def _check(path: Path, format_: str) -> None:
    if format_ not in _ENDINGS:
        raise InputError("unknown format.", got=repr(format_), expected='"onnx" or "torch"')
    if path.suffix != _ENDINGS[format_]:
        fitting = [known for known, ending in _ENDINGS.items() if ending == path.suffix]
        raise InputError(
            "the file's ending does not fit the format.",
            got=f"{path.name!r} and format={format_!r}",
            expected=_ENDINGS[format_],
            do=f"format={fitting[0]!r}" if fitting else None,
        )
    for library in _LIBRARIES[format_]:
        try:
            __import__(library)
        except ImportError as error:
            raise MissingExtra.of(library, "export") from error


def _card(explainer: Explainer, made: Traced, target: Any, *, dynamic: bool) -> Card:
    explained, loaded = made.explanation, explainer.loaded
    free = target in (PREDICTED, INPUT)
    always = explained.index if isinstance(made.definite, targets.Category) and not free else None
    libraries = ("torch", "seewhy", *_LIBRARIES["onnx"][:2])
    return Card(
        model=loaded.name if loaded else type(explainer.model).__name__,
        weights=weights_hash(explainer.model),
        method=explained.method,
        layers=explained.layers,
        note=explained.note,
        target=target if free else explained.name(0) or type(made.definite).__name__,
        index=None if always is None else int(always[0]),
        kind=getattr(made.definite, "kind", None),
        size=explained.size,
        batch=None if dynamic else len(explained),
        names=made.names,
        layout=made.layout,
        fuse=explained.fuse,
        placements=dict(explained.placements),
        labels=None if explained.labels is None else tuple(explained.labels),
        preprocess=loaded.preprocess if loaded and isinstance(loaded.preprocess, Preprocess) else None,
        versions={library: _version(library) for library in libraries},
    )


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _exported(made: Traced, *, dynamic: bool) -> torch.export.ExportedProgram:
    batch = {0: torch.export.Dim("batch")} if dynamic else None
    with torch.no_grad():
        return torch.export.export(made.graph, made.examples, dynamic_shapes=tuple(batch for _ in made.examples))


def _write_onnx(program: torch.export.ExportedProgram, card: Card, made: Traced, path: Path) -> None:
    weights = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if weights > _MOST:
        raise ModelError(
            "the weights are too large for one .onnx file.", got=f"{weights / 2**30:.1f} GiB", do='format="torch"'
        )
    inputs = ["images", "targets"][: len(made.examples)]
    with _quiet():
        try:
            found = torch.onnx.export(
                program, dynamo=True, input_names=inputs, output_names=list(made.names), verbose=False
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise _unsupported(error) from error
    assert found is not None
    found.model.metadata_props[KEY] = card.json()
    found.save(path)


def _unsupported(error: BaseException) -> ModelError:
    """The refusal of a program with an operation that ONNX does not have."""
    cause: BaseException | None = error
    while cause is not None:
        if named := re.search(r"OpOverload\(op='([\w.]+)'", str(cause)):
            return ModelError(
                f"the operation {named[1]} has no form in ONNX.",
                expected="operations that torch's exporter to ONNX knows",
                do='format="torch"',
            )
        cause = cause.__cause__
    return ModelError("torch cannot write this program as ONNX.", got=str(error).splitlines()[0], do='format="torch"')


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch's exporter talks to its log and warns of its own parts."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _check_agreement(program: Program, made: Traced) -> None:
    """Run what was written on the example: the heatmap must be that of the library."""
    count = len(made.explanation)
    images = made.examples[0] if program.card.batch else made.examples[0][:count]
    found = program.run(images, *(classes[: len(images)] for classes in made.examples[1:]))
    for name, expected in (("scores", made.explanation.scores), ("heatmap", made.explanation.heatmap)):
        got, expected = found[name], expected.cpu()
        worst = float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
        if not worst <= _CLOSE:
            raise ModelError(
                f"the program's {name} is not the library's.",
                got=f"a difference of {worst:.2g} of the largest value on the example",
                expected=f"at most {_CLOSE}",
                do='format="torch", another method, or a model whose forward does the same for all images',
            )


export = Export()
